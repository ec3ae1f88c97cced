"""infinity-client, its vision client, and LangChain's classes for Infinity, Jina and Hugging Face's Inference API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import environments
from tests.clients.conftest import DOCUMENTS, KEY, MODEL, QUERY, TEXTS

Same = Callable[[object], None]
Vectors = NDArray[np.float32]


@pytest.fixture(scope="module")
def answers(server: str, open_server: str) -> dict[str, Any]:
    arguments = {"url": server, "open": open_server, "key": KEY, "model": MODEL, "texts": TEXTS}
    arguments |= {"query": QUERY, "documents": DOCUMENTS}
    program = Path(__file__).with_name("infinity_program.py")
    found: dict[str, Any] = environments.run("older-clients", program, arguments)
    return found


def test_embeddings(answers: dict[str, Any], same: Same) -> None:
    """The client always sends dimensions: 0, which means all of them."""
    same(answers["embed"]["vectors"])
    assert answers["embed"]["indices"] == list(range(len(TEXTS)))
    prompt, total = answers["embed"]["tokens"]
    assert prompt == total > 100
    same(answers["embed async"])


@pytest.fixture(scope="module")
def clip(tiny: Path) -> tuple[Vectors, Vectors]:
    """The vectors of the program's picture and of "a cat", by transformers."""
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(tiny / "clip").eval()
    processor = CLIPProcessor.from_pretrained(tiny / "clip")
    picture = Image.new("RGB", (40, 40), (200, 30, 90))
    with torch.no_grad():
        both = model(**processor(text=["a cat"], images=[picture], return_tensors="pt"))
    return both.image_embeds.numpy(), both.text_embeds.numpy()


@pytest.mark.parametrize("case", ["embed image", "embeddings_image"])
def test_images(answers: dict[str, Any], case: str, clip: tuple[Vectors, Vectors]) -> None:
    found = np.array(answers[case]["vectors"])
    assert found.shape == (2 if case == "embed image" else 1, 16)
    for row in found:
        np.testing.assert_allclose(row, clip[0][0], atol=1e-4)


def test_the_vision_client(answers: dict[str, Any], clip: tuple[Vectors, Vectors]) -> None:
    """It reads base64 as rows of the length that a first request as floats had."""
    [[image]], [[text]] = answers["vision images"]["vectors"], answers["vision texts"]["vectors"]
    np.testing.assert_allclose(image, clip[0][0], atol=0.01)  # sent as JPEG
    np.testing.assert_allclose(text, clip[1][0], atol=1e-4)
    assert answers["vision texts"]["tokens"] > 0


def test_rerank(answers: dict[str, Any], cosines: Vectors) -> None:
    order = np.argsort(-cosines).tolist()
    found = answers["rerank"]
    assert [[index, document] for index, _, document in found] == [[index, DOCUMENTS[index]] for index in order]
    np.testing.assert_allclose([score for _, score, _ in found], cosines[order], atol=1e-4)
    assert answers["rerank without a model"] == [[index, score, None] for index, score, _ in found]
    assert answers["rerank top"] == answers["rerank without a model"][:2]


def test_rerank_by_a_cross_encoder(answers: dict[str, Any], relevance: Vectors) -> None:
    order = np.argsort(-relevance).tolist()
    for case in ("rerank raw", "rerank cross-encoder"):
        assert [index for index, *_ in answers[case]] == order
    np.testing.assert_allclose([score for _, score, _ in answers["rerank raw"]], relevance[order], atol=1e-4)
    scores = 1 / (1 + np.exp(-relevance[order]))
    np.testing.assert_allclose([score for _, score, _ in answers["rerank cross-encoder"]], scores, atol=1e-4)


def test_classify(answers: dict[str, Any], tiny: Path) -> None:
    from transformers import pipeline

    expected = pipeline("text-classification", str(tiny / "labels"), device="cpu")(["a cat sat", "dogs"], top_k=None)
    for case, raw in (("classify", False), ("classify raw", True)):
        for row, one in zip(answers[case], expected, strict=True):
            assert [label for label, _ in row] == [label["label"] for label in one]
            scores = np.array([score for _, score in row])
            scores = np.exp(scores) / np.exp(scores).sum() if raw else scores
            np.testing.assert_allclose(scores, [label["score"] for label in one], atol=1e-4)
    assert answers["classify"] != answers["classify raw"]


def test_models(answers: dict[str, Any]) -> None:
    """The client refuses an owner that is not "infinity"."""
    found = {one["id"]: one for one in answers["models"]["data"]}
    does = {name: one["capabilities"] for name, one in found.items()}
    assert does == {
        MODEL: ["embed", "rerank"],
        "ranker": ["rerank", "classify"],
        "labels": ["classify"],
        "clip": ["embed", "rerank", "image_embed"],
    }
    for one in found.values():
        assert one["owned_by"] == "infinity"
        assert one["backend"] in ("torch", "optimum")
        assert set(one["stats"]) == {"queue_fraction", "queue_absolute", "results_pending", "batch_size"}
    assert found[MODEL]["max_length"] == 256
    assert answers["health"]["unix"] > 0


@pytest.mark.parametrize(
    ("case", "status", "says"),
    [
        ("unknown model", 404, "not served here"),
        ("unknown reranker", 404, "not served here"),
        ("wrong key", 401, "API key is wrong"),
        ("too many items", 400, "at most 8"),
        ("not a classifier", 400, "does not do classification"),
    ],
)
def test_errors(answers: dict[str, Any], case: str, status: int, says: str) -> None:
    assert answers[case]["status"] == status
    assert says in answers[case]["message"]


@pytest.mark.parametrize(
    "case", ["langchain infinity", "langchain infinity async", "langchain jina", "langchain hugging face"]
)
def test_langchain(answers: dict[str, Any], case: str, same: Same) -> None:
    same(answers[case])


@pytest.mark.parametrize("case", ["langchain infinity query", "langchain hugging face query"])
def test_langchain_queries(answers: dict[str, Any], case: str, reference: Vectors) -> None:
    np.testing.assert_allclose(answers[case], reference[0], atol=1e-4)


@pytest.mark.parametrize("case", ["langchain infinity rerank", "langchain jina rerank"])
def test_langchain_reranks(answers: dict[str, Any], case: str, cosines: Vectors) -> None:
    best = np.argsort(-cosines)[:2].tolist()
    assert [text for text, _ in answers[case]] == [DOCUMENTS[index] for index in best]
    np.testing.assert_allclose([score for _, score in answers[case]], cosines[best], atol=1e-4)


@pytest.mark.parametrize(
    ("case", "error", "says"),
    [
        ("langchain infinity unknown", "Exception", "not served here"),
        ("langchain infinity without key", "Exception", "status 401"),
        ("langchain jina unknown", "RuntimeError", "not served here"),
        ("langchain jina too many", "RuntimeError", "at most 8"),
        ("langchain jina rerank unknown", "RuntimeError", "not served here"),
        ("langchain jina rerank without key", "RuntimeError", "API key is wrong"),
    ],
)
def test_langchain_shows_errors(answers: dict[str, Any], case: str, error: str, says: str) -> None:
    assert answers[case]["error"] == error
    assert says in answers[case]["message"]
