"""Voyage's client: embeddings, contextualised and multimodal ones, reranking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS
from tests.clients.test_cohere import DOCUMENTS, QUERY

Same = Callable[[object], None]

CHUNKS = [["Berlin is large.", "The city has parks."], ["A cat."]]


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    arguments = {"url": server, "key": KEY, "model": MODEL, "texts": TEXTS, "query": QUERY, "documents": DOCUMENTS}
    program = Path(__file__).with_name("voyageai_program.py")
    result: dict[str, Any] = environments.run("clients", program, {**arguments, "chunks": CHUNKS})
    return result


@pytest.mark.parametrize("case", ["plain", "without v1", "async", "multimodal"])
def test_vectors(answers: dict[str, Any], same: Same, case: str) -> None:
    same(answers[case])


def test_one_text_and_tokens(answers: dict[str, Any], reference: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(answers["one"], reference[:1], atol=1e-4)
    assert answers["tokens"] > len(TEXTS)


def test_types(answers: dict[str, Any], reference: NDArray[np.float32]) -> None:
    from sentence_transformers.quantization import quantize_embeddings

    found = answers["types"]
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(found["float"], cut, atol=1e-4)
    for kind in ("binary", "ubinary"):
        np.testing.assert_array_equal(found[kind], quantize_embeddings(np.float32(found["float"]), kind))
    np.testing.assert_array_equal(np.array(found["int8"]) + 128, found["uint8"])
    assert np.shape(found["int8"]) == (len(TEXTS), 64)


def test_chunks(answers: dict[str, Any]) -> None:
    assert [np.shape(one) for one in answers["chunks"]] == [(2, 384), (1, 384)]
    first, second = answers["chunks"][0]
    assert 0.3 < np.dot(first, second) < 0.99


def test_multimodal_usage(answers: dict[str, Any]) -> None:
    assert answers["multimodal usage"] == [answers["multimodal tokens"], 0, 0]
    assert answers["multimodal tokens"] == answers["tokens"]


@pytest.mark.parametrize("case", ["rerank", "rerank without v1"])
def test_rerank(answers: dict[str, Any], case: str) -> None:
    ranks = answers[case]["ranks"]
    assert len(ranks) == 2
    assert ranks[0][:2] == [1, DOCUMENTS[1]]
    assert ranks[0][2] > ranks[1][2]
    assert answers[case]["tokens"] > 0


@pytest.mark.parametrize(
    ("case", "kind", "says"),
    [
        ("long", "InvalidRequestError", "input[1] has 402 tokens"),
        ("key", "AuthenticationError", "API key is wrong"),
        ("unknown", "APIError", "'voyage-9' is not served here"),
        ("documents", "InvalidRequestError", "documents is an empty list"),
    ],
)
def test_errors(answers: dict[str, Any], case: str, kind: str, says: str) -> None:
    assert answers[case]["class"] == kind
    assert says in answers[case]["message"]
