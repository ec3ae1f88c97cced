"""The library's methods beside `embed`, on the real default model and a tiny classifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lemni
from lemni import Pair
from lemni.errors import InvalidRequest, TaskNotSupported

DOCUMENTS = ["Rust is a language.", "Cats sleep on sofas.", ""]


@pytest.fixture(scope="module")
def model(minilm: object) -> Iterator[lemni.Embedder]:
    with lemni.load() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, minilm: object) -> Iterator[tuple[lemni.Embedder, Path]]:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    labels = {0: "ham", 1: "spam", 2: "eggs"}
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=30522, num_labels=3, id2label=labels, **sizes)
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    AutoTokenizer.from_pretrained(minilm.path).save_pretrained(folder)  # type: ignore[attr-defined]
    with lemni.load(str(folder)) as loaded:
        yield loaded, folder


def test_rerank(model: lemni.Embedder) -> None:
    query = "Where do cats sleep?"
    ranked = model.rerank(query, DOCUMENTS)
    vectors = model.embed([query, *DOCUMENTS])
    assert [one.index for one in ranked] == np.argsort(-(vectors[1:] @ vectors[0])).tolist()
    assert [one.score for one in ranked] == pytest.approx(sorted(vectors[1:] @ vectors[0], reverse=True), abs=1e-5)
    assert model.rerank(query, DOCUMENTS, top_n=1) == ranked[:1]
    assert model.rerank(query, []) == []
    pairs = [Pair(query, document) for document in DOCUMENTS]
    np.testing.assert_allclose(model.score(pairs), vectors[1:] @ vectors[0], atol=1e-5)


async def test_async_twins(model: lemni.Embedder) -> None:
    assert await model.arerank("cats", DOCUMENTS) == model.rerank("cats", DOCUMENTS)
    np.testing.assert_array_equal(await model.aembed(DOCUMENTS), model.embed(DOCUMENTS))
    pairs = [Pair("a", "b")]
    np.testing.assert_array_equal(await model.ascore(pairs), model.score(pairs))


async def test_an_async_context(minilm: object) -> None:
    async with lemni.load() as model:
        assert (await model.aembed("a")).shape == (384,)
    with pytest.raises(lemni.LemniError):
        model.embed("a")


def test_classify(classifier: tuple[lemni.Embedder, Path]) -> None:
    from transformers import pipeline

    model, folder = classifier
    texts = ["Buy cheap pills now!", "See you at the meeting tomorrow."]
    reference = pipeline("text-classification", str(folder), device="cpu")(texts, top_k=None)
    ours = model.classify(texts)
    for one, expected in zip(ours, reference, strict=True):
        assert [label.label for label in one] == [label["label"] for label in expected]
        assert [label.score for label in one] == pytest.approx([label["score"] for label in expected], abs=1e-5)
    assert model.classify(texts, top_k=1) == [one[:1] for one in ours]
    assert model.card.labels == ("ham", "spam", "eggs")


def test_a_long_list_is_one_result(classifier: tuple[lemni.Embedder, Path], model: lemni.Embedder) -> None:
    texts = [f"text number {n}" for n in range(1100)]
    assert len(classifier[0].classify(texts)) == 1100
    ranked = model.rerank("text number 7", texts)
    assert ranked[0].index == 7
    assert sorted(one.index for one in ranked) == list(range(1100))


def test_what_a_model_does_not_do(model: lemni.Embedder) -> None:
    for ask in (model.sparse, model.multi_vector, model.classify):
        with pytest.raises(TaskNotSupported, match=r"it does embeddings, reranking"):
            ask(["a"])


def test_mistakes(model: lemni.Embedder) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'dimension'"):
        model.embed("a", dimension=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest, match="documents is a text"):
        model.rerank("a", "b")
    with pytest.raises(InvalidRequest) as caught:
        model.rerank("a", ["b", "\ud800"])
    assert (caught.value.item, caught.value.param) == (1, "documents[1]")
