"""Cohere's client, v1 and v2."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.engine import Engine
from lemni.server.app import create_app
from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS
from tests.server.live import listening, loaded, server_settings

Same = Callable[[object], None]

QUERY = "Where do cats sleep?"
DOCUMENTS = ["Rust is a language.", "Cats sleep on sofas.", "A dog runs."]
EXAMPLES = [
    {"text": "Python is a language.", "label": "computers"},
    {"text": "My dog barks.", "label": "animals"},
    {"text": "A kitten naps.", "label": "animals"},
]


@pytest.fixture(scope="module")
def roomy(engine: Engine) -> Iterator[str]:
    """Of a server with its ordinary limits."""
    with listening(create_app(loaded(engine), server_settings(api_key=KEY))) as url:
        yield url


@pytest.fixture(scope="module")
def answers(server: str, roomy: str) -> dict[str, Any]:
    arguments = {"url": server, "roomy": roomy, "key": KEY, "model": MODEL, "texts": TEXTS, "query": QUERY}
    arguments |= {"documents": DOCUMENTS, "examples": EXAMPLES}
    result: dict[str, Any] = environments.run("clients", Path(__file__).with_name("cohere_program.py"), arguments)
    return result


@pytest.mark.parametrize("case", ["v1", "v2", "v2 inputs", "async"])
def test_vectors(answers: dict[str, Any], same: Same, case: str) -> None:
    same(answers[case])


def test_v1_echoes_and_counts(answers: dict[str, Any]) -> None:
    assert answers["v1 texts"] == TEXTS
    assert answers["v1 tokens"] > len(TEXTS)


def test_more_than_96_texts(answers: dict[str, Any]) -> None:
    assert answers["v1 many"] == [97, True, 97 * 9]


@pytest.mark.parametrize(("case", "size"), [("v1 types", 384), ("v2 types", 64)])
def test_types(answers: dict[str, Any], reference: NDArray[np.float32], case: str, size: int) -> None:
    from sentence_transformers.quantization import quantize_embeddings

    found = answers[case]
    cut = reference[:, :size] / np.linalg.norm(reference[:, :size], axis=1, keepdims=True)
    np.testing.assert_allclose(found["float"], cut, atol=1e-4)
    exact = np.float32(found["float"])
    np.testing.assert_array_equal([np.frombuffer(base64.b64decode(one), "<f4") for one in found["base64"]], exact)
    for kind in ("binary", "ubinary"):
        np.testing.assert_array_equal(found[kind], quantize_embeddings(exact, kind))
    np.testing.assert_array_equal(np.array(found["int8"]) + 128, found["uint8"])
    assert np.shape(found["int8"]) == exact.shape


def test_rerank(answers: dict[str, Any]) -> None:
    ranked = answers["v2 ranked"]
    assert ranked[0][0] == 1
    assert len(ranked) == 2
    assert answers["mistaken base"][:2] == ranked
    assert [index for index, _ in answers["v1 ranked"]] == [index for index, _ in answers["mistaken base"]]
    assert answers["v1 document"] == DOCUMENTS[1]


def test_tokens(answers: dict[str, Any]) -> None:
    assert answers["tokens"] == [18399, 2003, 1037, 2653, 1012]
    assert answers["text"] == "rust is a language."


def test_classify(answers: dict[str, Any]) -> None:
    assert [one[0] for one in answers["classes"]] == ["computers", "animals", "animals"]
    assert all(0.5 < one[1] <= 1 and one[2] == ["animals", "computers"] for one in answers["classes"])


def test_models(answers: dict[str, Any]) -> None:
    assert answers["models"] == [[MODEL, ["embed", "rerank"], 256]]
    assert answers["model"] == MODEL


@pytest.mark.parametrize(
    ("case", "kind", "status", "says"),
    [
        ("unknown", "NotFoundError", 404, "not served here"),
        ("empty", "BadRequestError", 400, "texts is an empty list"),
        ("key", "UnauthorizedError", 401, "API key is wrong"),
        ("rerank", "BadRequestError", 400, "documents is an empty list"),
    ],
)
def test_errors(answers: dict[str, Any], case: str, kind: str, status: int, says: str) -> None:
    error = answers[case]
    assert (error["class"], error["status"]) == (kind, status)
    assert says in error["body"]["message"]
