"""What a dense model does besides plain vectors: tokens, late chunking, long texts in chunks, scores of pairs."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.models import Dense, Normalize, Pooling

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.errors import InputTooLong, InvalidRequest, LemniError, TaskNotSupported
from lemni.types import Chunks, Image, Item, Options, Pair, Request, Task
from tests.tasks.tiny import TEXTS, load, request, run, sentence_model, tokenize

RUNTIMES = ["openvino", "torch", "transformers"]
PROMPTS = {"query": "find this: ", "document": "doc: "}


def states(reference: SentenceTransformer, text: str) -> NDArray[np.float32]:
    """Last hidden states [tokens, hidden] by transformers, special tokens included."""
    features = reference.tokenizer(text, return_tensors="pt", truncation=True, max_length=reference.max_seq_length)
    with torch.inference_mode():
        hidden: NDArray[np.float32] = reference[0].model(**features).last_hidden_state[0].numpy()
    return hidden


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return length


# The hidden states of all tokens


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tokens_are_the_last_hidden_states(tmp_path: Path, runtime: str) -> None:
    reference = sentence_model(tmp_path, [Pooling(32, pooling_mode="cls"), Normalize()])
    model = load(tmp_path, runtime=runtime)
    assert model.card.tasks == ("embed", "score", "tokens")
    result = run(model, TEXTS, ("tokens",))
    assert result.vectors.shape == (0, 0)
    for text, rows, count in zip(TEXTS, result.multi_vectors, result.token_counts, strict=True):
        expected = states(reference, text)
        assert rows.dtype == np.float32
        assert rows.shape == expected.shape == (count, 32)
        np.testing.assert_allclose(rows, expected, atol=1e-5)
    for rows, alone in zip(result.multi_vectors, (run(model, [text], ("tokens",)) for text in TEXTS), strict=True):
        np.testing.assert_allclose(alone.multi_vectors[0], rows, atol=1e-5)


def test_tokens_and_vectors_from_one_pass(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32), Normalize()])
    model = load(tmp_path)
    both = run(model, TEXTS, ("embed", "tokens"))
    assert {one.outputs for many in tokenize(model, TEXTS, ("embed", "tokens")) for one in many} == {  # type: ignore[union-attr]
        ("dense", "tokens")
    }
    np.testing.assert_allclose(both.vectors, reference.encode(TEXTS), atol=1e-5)
    for text, rows in zip(TEXTS, both.multi_vectors, strict=True):
        np.testing.assert_allclose(rows, states(reference, text), atol=1e-5)


# Late chunking

DOCUMENTS = [
    ("the cat sat", "on a mat", "and slept"),
    ("one.",),
    ("a b c ", "d e f", " g h i"),
    ("unbelievable", "Words here:", "z"),
]


def averages(reference: SentenceTransformer, texts: Seq[str], prompt: str = "") -> NDArray[np.float32]:
    """By hand: each part's tokens in the context of the whole, averaged. Parts of whole words are tokenised alike
    alone and in the document, which gives the spans."""
    hidden = states(reference, prompt + " ".join(text.strip() for text in texts))
    counts = [len(reference.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    start = 1 + (len(reference.tokenizer(prompt, add_special_tokens=False)["input_ids"]) if prompt else 0)
    assert start + sum(counts) + 1 == len(hidden)
    rows = []
    for count in counts:
        rows.append(hidden[start : start + count].mean(0))
        start += count
    return np.stack(rows)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_late_chunking_averages_the_hidden_states_of_each_part(tmp_path: Path, runtime: str) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)], max_length=60)
    model = load(tmp_path, runtime=runtime)
    expected = [averages(reference, document) for document in DOCUMENTS]
    result = run(model, [Chunks(document) for document in DOCUMENTS])
    np.testing.assert_allclose(result.vectors, np.concatenate(expected), atol=1e-5)
    assert result.token_counts.tolist() == [
        len(states(reference, " ".join(text.strip() for text in document))) for document in DOCUMENTS
    ]
    alone = run(model, [Chunks(("on a mat",))]).vectors
    assert np.abs(alone - result.vectors[1]).max() > 1e-2  # the context tells


def test_late_chunks_beside_texts_keep_the_order(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32), Normalize()], max_length=60)
    model = load(tmp_path)
    result = run(model, ["hello", Chunks(DOCUMENTS[0]), [2, 5, 3], Chunks(DOCUMENTS[1])])
    assert len(result.vectors) == 1 + 3 + 1 + 1
    np.testing.assert_allclose(result.vectors[0], reference.encode("hello"), atol=1e-5)
    np.testing.assert_allclose(result.vectors[1:4], unit(averages(reference, DOCUMENTS[0])), atol=1e-5)
    np.testing.assert_allclose(result.vectors[5:], unit(averages(reference, DOCUMENTS[1])), atol=1e-5)


def test_late_chunks_with_a_prompt_options_and_dense_modules(tmp_path: Path) -> None:
    torch.manual_seed(1)
    dense = Dense(32, 16, activation_function=torch.nn.Tanh())
    reference = sentence_model(tmp_path, [Pooling(32), dense], prompts=PROMPTS, max_length=60)
    model = load(tmp_path)
    hidden = averages(reference, DOCUMENTS[0], PROMPTS["document"])
    with torch.inference_mode():
        expected = dense({"sentence_embedding": torch.from_numpy(hidden)})["sentence_embedding"].numpy()
    document: list[Item] = [Chunks(DOCUMENTS[0])]
    np.testing.assert_allclose(run(model, document, prompt_name="document").vectors, expected, atol=1e-5)
    np.testing.assert_allclose(run(model, document, input_type="document").vectors, expected, atol=1e-5)
    cut = run(model, document, prompt_name="document", dimensions=8).vectors
    np.testing.assert_allclose(cut, unit(expected[:, :8]), atol=1e-5)


@pytest.mark.parametrize(
    ("chunks", "kind", "says"),
    [
        (("a", "", "b"), InvalidRequest, r"input\[1\]: part 1 holds no text to embed"),
        (("a", "b", "  \n"), InvalidRequest, r"input\[1\]: part 2 holds no text"),
        ((), InvalidRequest, r"input\[1\] has no parts"),
        (("a", "b\ud800"), InvalidRequest, r"input\[1\] holds a lone surrogate"),
        (("abc " * 3, "def " * 6), InputTooLong, r"input\[1\] has 29 tokens in all its parts, .* at most 24 in one"),
    ],
)
def test_chunks_that_cannot_be_embedded(tmp_path: Path, chunks: tuple[str, ...], kind: type, says: str) -> None:
    sentence_model(tmp_path, [Pooling(32)], max_length=24)
    fine, refused = tokenize(load(tmp_path), ["a", Chunks(chunks)])
    assert isinstance(fine, list)
    assert type(refused) is kind
    with pytest.raises(kind, match=says):
        raise refused  # type: ignore[misc]


def test_no_late_chunking_where_vectors_are_not_one_mean(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32, pooling_mode=["mean", "max"])])
    with pytest.raises(TaskNotSupported, match=r"one vector per token, which late chunking needs"):
        run(load(tmp_path), [Chunks(("a", "b"))])


def test_chunks_of_a_static_model(tmp_path: Path) -> None:
    """No context, so a part's vector is that of its text; unknown words count for nothing in model2vec's layout."""
    import model2vec
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", *(f"w{n}" for n in range(20))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).standard_normal((len(words), 8)).astype(np.float32)
    model2vec.StaticModel(vectors, tokenizer, normalize=True).save_pretrained(tmp_path / "model")
    model = load(tmp_path)
    parts = ("w1 w2", "w3 never w4 heard", "w5")
    np.testing.assert_allclose(run(model, [Chunks(parts)]).vectors, run(model, parts).vectors, atol=1e-6)
    with pytest.raises(InvalidRequest, match="part 1 holds no text"):
        run(model, [Chunks(("w1", "never heard"))])
    long = " ".join(f"w{n % 20}" for n in range(1, 2000))
    whole = run(load(tmp_path, max_length=4000), [long], normalize=False).vectors
    windows = run(load(tmp_path, max_length=300), [long], truncate="chunk", normalize=False)
    assert windows.token_counts.tolist() == [1999]
    assert windows.truncated == ()
    # Averages of unit vectors of windows, so the length differs, and the direction hardly.
    assert (unit(windows.vectors) * unit(whole)).sum() > 0.95


# Long texts in chunks


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", ["mean", "cls"])
def test_chunks_of_a_long_text_are_averaged_by_their_tokens(tmp_path: Path, mode: str, normalize: bool) -> None:
    modules = [Pooling(32, pooling_mode=mode), *([Normalize()] if normalize else [])]
    reference = sentence_model(tmp_path, modules, max_length=12)
    model = load(tmp_path)
    words = ["cat", "dog", "sun", "ox", "a", "whale", "tree", "z"]
    ids = [reference.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    flat = [token for one in ids for token in one]
    windows = [[2, *flat[start : start + 10], 3] for start in range(0, len(flat), 10)]
    assert len(windows) == 3
    rows = run(model, windows).vectors
    lengths = np.array([len(window) for window in windows], dtype=np.float32)
    mean = lengths @ rows / lengths.sum()
    result = run(model, ["ox", " ".join(words), "a"], truncate="chunk")
    np.testing.assert_allclose(result.vectors[1], unit(mean) if normalize else mean, atol=1e-5)
    np.testing.assert_allclose(result.vectors[[0, 2]], reference.encode(["ox", "a"]), atol=1e-5)
    assert result.token_counts.tolist() == [4, int(lengths.sum()), 3]
    assert result.truncated == ()


def test_chunks_of_a_long_text_by_default_and_with_a_prompt_that_is_left_out(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32, include_prompt=False)], max_length=12, prompts=PROMPTS)
    model = load(tmp_path, truncate="chunk")
    first, *others = tokenize(model, ["ab " * 20], prompt="ab ")[0]  # type: ignore[misc]
    assert (first.pool_start, [one.pool_start for one in others]) == (3, [0] * 4)  # [CLS] and the two of "ab"
    rows = run(model, [one.ids.tolist() for one in others]).vectors
    [head] = run(model, ["ab " * 4], prompt="ab ").vectors  # the same tokens as in the first window
    lengths = np.array([len(one.ids) for one in (first, *others)], dtype=np.float32)
    expected = lengths @ np.stack([head, *rows]) / lengths.sum()
    np.testing.assert_allclose(run(model, ["ab " * 20], prompt="ab ").vectors[0], expected, atol=1e-5)


def test_a_limit_within_a_prompt_that_is_left_out(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32, include_prompt=False)], prompts=PROMPTS)
    model = load(tmp_path)
    for limit in (1, 3):
        vectors = run(model, ["abc def"], prompt_name="query", max_tokens=limit).vectors
        assert np.isfinite(vectors).all()
        assert np.abs(vectors).max() > 0


def test_token_ids_are_not_cut_into_chunks(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)], max_length=12)
    model = load(tmp_path)
    short, long = tokenize(model, [[2, 5, 3], [2, *[5] * 20, 3]], truncate="chunk")
    assert isinstance(short, list)
    assert isinstance(long, LemniError)
    assert long.message == "input[1] is a list of token ids; only texts are cut into chunks"


def test_all_of_a_text_in_chunks_counts_for_admission(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)], max_length=12)
    model = load(tmp_path)
    text = "abcd " * 1000
    assert model.estimate_tokens(text, request([])) == 12
    assert model.estimate_tokens(text, request([], truncate="chunk")) > 1000
    assert load(tmp_path, truncate="chunk").estimate_tokens(text, request([])) > 1000
    assert model.estimate_tokens(Chunks((text, text)), request([])) > 2000


# Scores of pairs

PAIRS = [("what is a cat", "a cat is an animal"), ("what is a cat", "dogs bark"), ("", "zzz"), ("same", "same")]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("cosine", util.pairwise_cos_sim),
        ("dot", util.pairwise_dot_score),
        ("euclidean", util.pairwise_euclidean_sim),
        ("manhattan", util.pairwise_manhattan_sim),
    ],
)
@pytest.mark.parametrize("symmetric", [False, True])
def test_scores_are_the_models_similarity(tmp_path: Path, name: str, function: Any, symmetric: bool) -> None:
    reference = sentence_model(tmp_path, [Pooling(32)], prompts=PROMPTS, similarity_fn_name=name)
    sides = ({}, {}) if symmetric else ({"prompt_name": "query"}, {"prompt_name": "document"})
    firsts, seconds = (
        torch.from_numpy(reference.encode(list(texts), **side))
        for texts, side in zip(zip(*PAIRS, strict=True), sides, strict=True)
    )
    expected = function(firsts, seconds).numpy()
    model = load(tmp_path)
    pairs = [Pair(*pair, symmetric=symmetric) for pair in PAIRS]
    result = run(model, pairs, ("score",))
    assert result.scores.dtype == np.float32
    np.testing.assert_allclose(result.scores, expected, rtol=1e-5, atol=1e-5)
    for pair, score in zip(pairs, result.scores, strict=True):
        np.testing.assert_allclose(run(model, [pair], ("score",)).scores[0], score, rtol=1e-5, atol=1e-5)
    if name == "cosine":
        [own] = run(model, [Pair("same", "same", symmetric=symmetric)], ("score",)).scores
        assert (own > 0.99999) == symmetric  # with prompts the two sides of a search differ


def test_scores_mix_both_kinds_of_pairs_and_take_options(tmp_path: Path) -> None:
    reference = sentence_model(tmp_path, [Pooling(32), Normalize()], prompts=PROMPTS)
    model = load(tmp_path)
    first, second = PAIRS[0]
    pairs = [Pair(first, second), Pair(first, second, symmetric=True), Pair(first, "b")]
    query, left = reference.encode(first, prompt_name="query"), reference.encode(first)
    documents, right = reference.encode([second, "b"], prompt_name="document"), reference.encode(second)
    expected = [query @ documents[0], left @ right, query @ documents[1]]
    np.testing.assert_allclose(run(model, pairs, ("score",)).scores, expected, atol=1e-5)
    short = unit(query[:8]) @ unit(documents[0][:8])
    np.testing.assert_allclose(run(model, pairs[:1], ("score",), dimensions=8).scores, [short], atol=1e-5)
    own = reference.encode([first, second], prompt="xyz ")
    np.testing.assert_allclose(run(model, pairs[:1], ("score",), prompt="xyz ").scores, [own[0] @ own[1]], atol=1e-5)


def test_a_query_is_one_sequence_for_all_its_documents(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    model = load(tmp_path)
    outcomes = tokenize(model, [Pair("query", text) for text in "abc"], ("score",))
    keys = {many[0].key for many in outcomes if isinstance(many, list)}
    assert len(keys) == 1


def test_what_is_wrong_with_a_pair_names_its_side(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)], max_length=6)
    with Engine({"m": load(tmp_path)}, EngineSettings()) as engine:

        def refused(*pairs: Pair, **options: Any) -> LemniError:
            asked = Request(pairs, Options(**options), ("score",), field="documents")
            error = engine.submit("m", asked).exception(60)
            assert isinstance(error, LemniError)
            return error

        long = "abcdefgh"
        query = refused(Pair(long, "a"), Pair(long, "b"), truncate="error")
        assert query.message.startswith("query has 10 tokens, but this model takes at most 6.")
        assert (type(query), query.param) == (InputTooLong, "query")
        document = refused(Pair("a", "b"), Pair("a", long), truncate="error")
        assert document.message.startswith("documents[1] has 10 tokens")
        assert (document.item, document.param) == (1, "documents[1]")
        with pytest.raises(InvalidRequest, match="scoring does not know") as chunked:
            engine.submit("m", Request([Pair("a", "b")], Options(truncate="chunk"), ("score",)))
        assert chunked.value.param == "truncate"
        with pytest.raises(InvalidRequest, match="the scores are similarities") as activation:
            engine.submit("m", Request([Pair("a", "b")], Options(activation="sigmoid"), ("score",)))
        assert activation.value.param == "activation"
        assert engine.submit("m", Request([Pair("a", "b")], Options(activation="none"), ("score",))).result(60)


# What the model does not do


@pytest.mark.parametrize(
    ("items", "tasks", "kind", "says"),
    [
        (["a"], ("sparse",), TaskNotSupported, "does not do sparse embeddings; it does embeddings, reranking, token"),
        (["a"], ("embed", "classify"), TaskNotSupported, "does not do classification"),
        ([Pair("a", "b")], ("embed",), InvalidRequest, "embeds single texts, not pairs"),
        ([Chunks(("a",))], ("tokens",), InvalidRequest, "not chunks of a document"),
        ([Image(b"x")], ("embed",), InvalidRequest, "takes no image; it takes text"),
        (["a"], ("score",), InvalidRequest, "scoring takes pairs"),
        ([Pair("a", Image(b"x"))], ("score",), InvalidRequest, "embeds single texts, not images"),
        ([Pair([1], "a")], ("score",), InvalidRequest, "not of list"),  # type: ignore[arg-type]
    ],
)
def test_what_a_dense_model_refuses(
    tmp_path: Path, items: list[Item], tasks: tuple[Task, ...], kind: type[LemniError], says: str
) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    model = load(tmp_path)
    with Engine({"m": model}, EngineSettings()) as engine:
        with pytest.raises(LemniError, match=says) as caught:
            engine.submit("m", request(items, tasks)).result(60)
        assert type(caught.value) is kind
        assert caught.value.param == ("model" if "does not do" in says else "input[0]")
