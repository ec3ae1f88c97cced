"""Every method of Client and AsyncClient against a live server: the numbers are those of `lemni.load` on the same
weights, and of sentence-transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

import lemni
from lemni import Image, Pair
from lemni.client import PartialFailure, StatusError
from tests.client.asking import Asking
from tests.client.recordings import recorded, replaying
from tests.client.zoo import DENSE, KEY, Zoo
from tests.tiny_multimodal import picture

pytestmark = pytest.mark.timeout(60)

TEXTS = ["A cat sits on the mat.", "", "日本語のテキスト 🙂", "word " * 100, "Eine Katze.", "x"]
LONG = "word " * 600
QUERY = "Where do cats sleep?"
DOCUMENTS = ["Rust is a language.", "Cats sleep on sofas.", "A dog runs.", "abc", "the mat"]


@pytest.fixture(scope="module")
def sentence_transformer(zoo: Zoo) -> SentenceTransformer:
    return SentenceTransformer(str(zoo.folders[DENSE]), device="cpu")


def near(ours: Any, theirs: Any, atol: float = 2e-6) -> None:
    assert np.shape(ours) == np.shape(theirs)
    np.testing.assert_allclose(ours, theirs, atol=atol)


# Vectors.


def test_vectors_are_those_of_sentence_transformers(
    ask_zoo: Callable[..., Asking], sentence_transformer: SentenceTransformer
) -> None:
    vectors = ask_zoo(model=DENSE).embed(TEXTS)
    assert vectors.dtype == np.float32
    near(vectors, sentence_transformer.encode(TEXTS, batch_size=1), 1e-5)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"dimensions": 100},
        {"dimensions": np.int64(7)},
        {"input_type": "query"},
        {"input_type": "document"},
        {"prompt": "search: "},
        {"normalize": False},
        {"normalize": True, "dimensions": 16},
        {"truncate": "left"},
        {"truncate": "right"},
        {"truncate": "chunk"},
        {"priority": "bulk"},
        {"deadline_s": 30, "dimensions": None},
    ],
    ids=str,
)
def test_vectors_with_options_are_those_of_the_library(
    zoo: Zoo, ask_zoo: Callable[..., Asking], how: dict[str, Any]
) -> None:
    texts = [*TEXTS, LONG]
    expected = zoo.model(DENSE).embed(texts, **{k: int(v) if k == "dimensions" and v else v for k, v in how.items()})
    near(ask_zoo(model=DENSE).embed(texts, **how), expected, 1e-5)


def test_a_prompt_by_its_name(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    texts = ["who is it", "a cat"]
    for name in ("query", "document"):
        theirs = zoo.model("colbert").multi_vector(texts, prompt_name=name)
        for ours, one in zip(ask_zoo(model="colbert").multi_vector(texts, prompt_name=name), theirs, strict=True):
            near(ours, one, 1e-5)


OUTPUT_TYPES = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "float32",
    "int8": "int8",
    "int8_scaled": "float32",
    "uint8": "uint8",
    "binary": "int8",
    "ubinary": "uint8",
}


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_every_output_type_is_the_same_however_it_travels(
    zoo: Zoo, ask_zoo: Callable[..., Asking], output_type: str
) -> None:
    texts = TEXTS[:3]
    answers = {
        encoding: ask_zoo(model=DENSE, encoding=encoding).embed(texts, output_type=output_type)
        for encoding in ("raw", "base64", "float")
    }
    full = zoo.model(DENSE).embed(texts)
    for vectors in answers.values():
        assert vectors.dtype == OUTPUT_TYPES[output_type]
        np.testing.assert_array_equal(vectors, answers["raw"])
    if OUTPUT_TYPES[output_type].startswith("float"):
        near(answers["raw"], full, 4e-3)
    elif "binary" in output_type:
        bits = np.packbits(full > 0, axis=1)
        expected = bits if output_type == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8)
        assert np.mean(answers["raw"] != expected) < 0.01


def test_token_ids(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    ids = [[101, 1037, 4937, 102], [101, 102]]
    client = ask_zoo(model=DENSE)
    expected = zoo.model(DENSE).embed(ids)
    near(client.embed(ids), expected, 1e-5)
    near(client.embed([np.array(one) for one in ids]), expected, 1e-5)
    near(client.embed([ids[0], "a cat", tuple(ids[1])])[[0, 2]], expected, 1e-5)
    near(client.embed(["a cat"]), client.embed([ids[0]]), 1e-5)


def test_images(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    images = [Image(picture(seed=seed)) for seed in range(3)]
    model, client = zoo.model("clip"), ask_zoo(model="clip", batch_size=2)
    near(client.embed(images), model.embed(images), 1e-5)
    near(client.embed(images[0]), model.embed(images[0]), 1e-5)
    near(client.embed([images[0], "a cat"]), model.embed([images[0], "a cat"]), 1e-5)
    near(client.similarity(images[1], ["a", "b"]), model.embed(images[1]) @ model.embed(["a", "b"]).T, 1e-5)


def test_sparse_vectors(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    texts = ["a cat", "", "the mat on the floor", "a"]
    expected = zoo.model("splade").sparse(texts)
    for encoding in ("raw", "base64", "float"):
        ours = ask_zoo(model="splade", encoding=encoding, batch_size=3).sparse(texts)
        assert len(ours) == len(expected)
        for one, other in zip(ours, expected, strict=True):
            assert one.indices.dtype == np.int32
            assert one.values.dtype == np.float32
            np.testing.assert_array_equal(one.indices, other.indices)
            near(one.values, other.values, 1e-5)


def test_multi_vectors(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    texts = ["a cat", "the mat on the floor", "a"]
    expected = zoo.model("colbert").multi_vector(texts, input_type="document")
    for encoding in ("raw", "base64", "float"):
        ours = ask_zoo(model="colbert", encoding=encoding, batch_size=2).multi_vector(texts, input_type="document")
        for one, other in zip(ours, expected, strict=True):
            assert one.dtype == np.float32
            near(one, other, 1e-5)


def test_a_lone_item_is_a_row_and_nothing_is_nothing(ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo(model=DENSE)
    lone, listed = client.embed(TEXTS[0]), client.embed(TEXTS[:1])
    assert (lone.shape, listed.shape) == ((384,), (1, 384))
    np.testing.assert_array_equal(lone, listed[0])
    sent = client.statistics.requests
    assert client.embed([]).shape == (0, 0)
    assert client.embed([], dimensions=5).shape == (0, 5)
    assert client.sparse([]) == client.multi_vector([]) == client.rerank(QUERY, []) == client.classify([]) == []
    assert client.score([]).shape == (0,)
    assert client.statistics.requests == sent
    assert client.similarity([], ["a"]).shape == (0, 1)
    assert client.similarity(["a", "b"], []).shape == (2, 0)


def test_what_comes_back_belongs_to_the_caller(ask_zoo: Callable[..., Asking]) -> None:
    for encoding in ("raw", "base64", "float"):
        for batch_size in (2, 100):
            vectors = ask_zoo(model=DENSE, encoding=encoding, batch_size=batch_size).embed(TEXTS)
            vectors *= 2
            assert vectors.flags.c_contiguous
            assert vectors.flags.aligned


def test_encodings_are_equal_to_the_bit(ask_zoo: Callable[..., Asking]) -> None:
    raw, base64, numbers = (ask_zoo(model=DENSE, encoding=one).embed(TEXTS) for one in ("raw", "base64", "float"))
    np.testing.assert_array_equal(raw, base64)
    np.testing.assert_array_equal(raw, numbers)


# Scores and labels.


@pytest.mark.parametrize("how", [{}, {"raw_scores": True}, {"top_n": 2}, {"top_n": 0}, {"truncate": "left"}], ids=str)
@pytest.mark.parametrize("batch_size", [2, 256])
def test_documents_are_ranked(zoo: Zoo, ask_zoo: Callable[..., Asking], how: dict[str, Any], batch_size: int) -> None:
    there = {"activation": "none"} if how.get("raw_scores") else {}
    options = {name: one for name, one in how.items() if name != "raw_scores"}
    expected = zoo.model("ranker").rerank(QUERY, DOCUMENTS, **options, **there)
    ours = ask_zoo(model="ranker", batch_size=batch_size).rerank(QUERY, DOCUMENTS, **how)
    assert [one.index for one in ours] == [one.index for one in expected]
    near([one.score for one in ours], [one.score for one in expected], 1e-5)


def test_pairs_are_scored(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    pairs = [Pair(QUERY, document) for document in DOCUMENTS] + [Pair(DOCUMENTS[0], QUERY)]
    client = ask_zoo(model="ranker", batch_size=4)
    near(client.score(pairs), zoo.model("ranker").score(pairs), 1e-5)
    raw = zoo.model("ranker").score(pairs, activation="none")
    near(client.score(pairs, raw_scores=True), raw, 1e-5)
    assert client.score(iter(pairs)).shape == (6,)


@pytest.mark.parametrize("how", [{}, {"top_k": 1}, {"top_k": 2, "raw_scores": True}], ids=str)
def test_texts_are_classified(zoo: Zoo, ask_zoo: Callable[..., Asking], how: dict[str, Any]) -> None:
    there = {"activation": "none"} if how.get("raw_scores") else {}
    expected = zoo.model("labels").classify(DOCUMENTS, top_k=how.get("top_k"), **there)
    ours = ask_zoo(model="labels", batch_size=2).classify(DOCUMENTS, **how)
    assert [[one.label for one in row] for row in ours] == [[one.label for one in row] for row in expected]
    near([[one.score for one in row] for row in ours], [[one.score for one in row] for row in expected], 1e-5)


def test_similarity_is_the_model_s(ask_zoo: Callable[..., Asking], sentence_transformer: SentenceTransformer) -> None:
    a, b = TEXTS[:2], DOCUMENTS[:3]
    expected = sentence_transformer.similarity(sentence_transformer.encode(a), sentence_transformer.encode(b)).numpy()
    client = ask_zoo(model=DENSE)
    near(client.similarity(a, b), expected, 1e-5)
    near(client.similarity(a[0], b), expected[0], 1e-5)
    near(client.similarity(a, b[0]), expected[:, 0], 1e-5)
    assert np.shape(client.similarity(a[0], b[0])) == ()
    assert client.statistics.requests == 5  # one for each, and one that asked which model it is


def test_similarity_takes_no_quantised_vectors(ask_zoo: Callable[..., Asking]) -> None:
    with pytest.raises(TypeError, match="output_type"):
        ask_zoo(model=DENSE).similarity("a", "b", output_type="ubinary")


# The server.


def test_models_and_health(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo()
    models = {model.id: model for model in client.models()}
    assert set(models) == {"minilm", "ranker", "labels", "splade", "colbert", "clip"}
    card = zoo.model(DENSE).card
    found = models[DENSE]
    assert (found.dimensions, found.max_length, found.similarity) == (384, card.max_length, "cosine")
    assert "embed" in found.capabilities
    assert found.fields["normalized"] is True
    assert client.health() is True


def test_the_key(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    assert ask_zoo(zoo.guarded, api_key=KEY, model=DENSE).embed("a").shape == (384,)
    for key in ("wrong", ""):
        with pytest.raises(StatusError) as caught:
            ask_zoo(zoo.guarded, api_key=key, model=DENSE).embed("a")
        assert caught.value.status == 401
    assert ask_zoo(zoo.guarded, headers={"Authorization": f"Bearer {KEY}"}, model=DENSE).embed("a").shape == (384,)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "//"])
def test_forms_of_the_url(zoo: Zoo, ask_zoo: Callable[..., Asking], end: str) -> None:
    client = ask_zoo(f" {zoo.url}{end} ")
    assert client.embed("a", model=DENSE).shape == (384,)
    assert client.classify(["a"], model="labels")
    assert client.rerank("a", ["b"], model="ranker")
    assert client.score([Pair("a", "b")], model="ranker").shape == (1,)
    assert client.health()
    assert client.models()


def test_the_server_s_refusals(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo()
    with pytest.raises(StatusError, match="nobody") as caught:
        client.embed("a", model="nobody")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    with pytest.raises(StatusError, match=r"score|rerank") as caught:
        client.rerank("a", ["b"], model="labels")
    assert caught.value.status == 400
    with pytest.raises(StatusError, match="dimensions"):
        client.embed("a", model=DENSE, dimensions=4000)
    with pytest.raises(StatusError) as caught:
        client.embed(["a", LONG], model=DENSE, truncate="error")
    assert (caught.value.item, caught.value.code) == (1, "context_length_exceeded")
    with pytest.raises(StatusError) as caught:
        client.score([Pair("a", "b"), Pair("a", "word " * 200)], model="ranker", truncate="error")
    assert caught.value.item == 1
    with pytest.raises(StatusError) as caught:
        client.classify(["a", "word " * 200], model="labels", truncate="error")
    assert caught.value.item == 1


def test_too_long_inputs_of_a_long_list_fail_alone(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    texts = [f"text {number}" for number in range(20)]
    texts[5] = texts[17] = LONG
    with pytest.raises(PartialFailure) as caught:
        ask_zoo(model=DENSE, batch_size=7).embed(texts, truncate="error")
    assert caught.value.missing == [5, 17]
    assert [failure.error.item for failure in caught.value.failures] == [5, 17]
    expected = zoo.model(DENSE).embed(texts)
    for place, vector in caught.value.finished.items():
        near(vector, expected[place], 1e-5)


def test_a_list_over_the_server_s_limit_fits_in_parts(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    texts = [f"text {number}" for number in range(30)]
    for batch_size in (8, 256):
        client = ask_zoo(zoo.guarded, api_key=KEY, model=DENSE, batch_size=batch_size)
        near(client.embed(texts), zoo.model(DENSE).embed(texts), 1e-5)


def test_genuine_infinity(sync: bool) -> None:
    four = recorded("dense-four-base64")
    with replaying("dense-four-base64") as replay:
        client = Asking(sync, replay.url, encoding="base64", model=(four.body or {})["model"])
        try:
            vectors = client.embed((four.body or {})["input"])
        finally:
            client.end()
        np.testing.assert_array_equal(vectors, np.stack(four.vectors()))


# Parts, order, counts.


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    batch_bytes=st.integers(1, 200),
    concurrency=st.integers(1, 9),
)
def test_order_is_kept_whatever_the_parts(
    zoo: Zoo, count: int, batch_size: int, batch_bytes: int, concurrency: int
) -> None:
    texts = [f"a {'b' * (number % 13)}" for number in range(count)]
    expected = [len(text) for text in texts]
    limits: Any = {"batch_size": batch_size, "batch_bytes": batch_bytes, "concurrency": concurrency}
    with lemni.Client(zoo.url, model="labels", **limits) as client:
        labels = client.classify(texts)
    assert len(labels) == len(expected)
    one_by_one = {text: zoo.model("labels").classify([text])[0] for text in set(texts)}
    for text, row in zip(texts, labels, strict=True):
        near(sorted(row)[0].score, sorted(one_by_one[text])[0].score, 1e-5)


def test_sync_and_async_are_equal_to_the_bit(zoo: Zoo) -> None:
    # One request after the other: which texts share a forward pass, and so the last bit, would else be up to chance.
    alone: Any = {"model": DENSE, "batch_size": 1, "concurrency": 1}

    async def theirs() -> Any:
        async with lemni.AsyncClient(zoo.url, **alone) as client:
            return await client.embed(TEXTS)

    with lemni.Client(zoo.url, **alone) as client:
        np.testing.assert_array_equal(client.embed(TEXTS), asyncio.run(theirs()))


def test_statistics_are_exact(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo(model=DENSE, batch_size=2)
    client.embed([*TEXTS, LONG])
    found = client.statistics
    result = zoo.model(DENSE).run(lemni.types.Request([*TEXTS, LONG]))
    assert (found.requests, found.retries, found.inputs) == (4, 0, 7)
    assert found.tokens == int(result.token_counts.sum())
    assert found.truncated == len(result.truncated) == 1


def test_progress(ask_zoo: Callable[..., Asking], capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int]] = []
    client = ask_zoo(model=DENSE, batch_size=4)
    client.embed(TEXTS, progress=lambda done, total: calls.append((done, total)))
    assert calls in ([(4, 6), (6, 6)], [(2, 6), (6, 6)])
    client.embed(TEXTS, progress=True)
    assert "6.00/6.00" in capsys.readouterr().err
    client.embed(TEXTS)
    assert not capsys.readouterr().err


def test_an_error_of_the_progress_function_is_the_caller_s(ask_zoo: Callable[..., Asking]) -> None:
    def broken(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask_zoo(model=DENSE, batch_size=2).embed(TEXTS, progress=broken)


def test_a_generator_and_an_array_of_texts(ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo(model=DENSE)
    expected = client.embed(TEXTS[:3])
    near(client.embed(text for text in TEXTS[:3]), expected)
    near(client.embed(np.array(TEXTS[:3])), expected)


def test_the_cache(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo(model=DENSE, cache="memory")
    first = client.embed([*TEXTS, TEXTS[0]])
    near(client.embed(TEXTS[::-1]), first[:6][::-1], 0)
    assert client.statistics.inputs == len(TEXTS)
    assert client.embed(TEXTS[0], dimensions=8).shape == (8,)
    near(client.embed(TEXTS[0], normalize=False), zoo.model(DENSE).embed(TEXTS[0], normalize=False), 1e-5)
    quantised = [client.embed(TEXTS, output_type="int8_scaled") for _ in range(2)]
    near(*quantised, 0)


def test_the_cache_keeps_models_apart(zoo: Zoo, ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo(cache="memory")
    assert client.embed("a", model=DENSE).shape == (384,)
    assert client.embed("a", model="clip").shape == (16,)
    assert client.embed("a", model=DENSE).shape == (384,)
    with pytest.raises(StatusError):  # which of the models is for the caller to say
        client.embed("a", model="nobody")
