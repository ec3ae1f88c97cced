"""LlamaIndex's OpenAI-like embeddings, Haystack's OpenAI embedders, and LangChain's for a Hugging Face endpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS

Same = Callable[[object], None]


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    arguments = {"url": server, "key": KEY, "model": MODEL, "texts": TEXTS}
    program = Path(__file__).with_name("openai_like_program.py")
    found: dict[str, Any] = environments.run("clients", program, arguments)
    return found


@pytest.mark.parametrize(
    "case",
    [
        "llama_index texts",
        "llama_index queries",
        "llama_index async",
        "llama_index without v1",
        "haystack texts",
        "haystack documents",
        "langchain documents",
        "langchain queries",
    ],
)
def test_vectors(answers: dict[str, Any], case: str, same: Same) -> None:
    same(answers[case]["vectors"] if case == "haystack documents" else answers[case])


@pytest.mark.parametrize("case", ["llama_index dimensions", "haystack dimensions"])
def test_dimensions(answers: dict[str, Any], case: str, reference: NDArray[np.float32]) -> None:
    found = answers[case]["vectors"] if case == "haystack dimensions" else answers[case]
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(found, cut, atol=1e-4)


def test_haystack_counts_tokens(answers: dict[str, Any]) -> None:
    for meta in (answers["haystack meta"], answers["haystack documents"]["meta"]):
        assert meta["model"] == MODEL
        assert meta["usage"]["prompt_tokens"] == meta["usage"]["total_tokens"]
    assert answers["haystack meta"]["usage"]["total_tokens"] == 9
    assert answers["haystack documents"]["meta"]["usage"]["total_tokens"] > 100


@pytest.mark.parametrize(
    ("case", "error", "says"),
    [
        ("llama_index unknown model", "NotFoundError", "not served here"),
        ("llama_index wrong key", "AuthenticationError", "API key is wrong"),
        ("llama_index too many", "BadRequestError", "at most 8"),
        ("llama_index too long", "BadRequestError", "at most 256"),
        ("haystack unknown model", "NotFoundError", "not served here"),
        ("haystack wrong key", "AuthenticationError", "API key is wrong"),
        ("haystack loud", "NotFoundError", "not served here"),
        ("langchain wrong key", "HfHubHTTPError", "API key is wrong"),
        ("langchain too many", "HfHubHTTPError", "maximum allowed batch size 8"),
    ],
)
def test_errors(answers: dict[str, Any], case: str, error: str, says: str) -> None:
    assert answers[case]["error"] == error
    assert says in answers[case]["message"]


def test_haystack_goes_on_without_a_vector(answers: dict[str, Any]) -> None:
    assert answers["haystack silent"]["vectors"] == [None]
