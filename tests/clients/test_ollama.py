"""Ollama's client, and LangChain's and LlamaIndex's embeddings over it."""

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
Reference = NDArray[np.float32]


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    arguments = {"url": server, "key": KEY, "model": MODEL, "texts": TEXTS}
    found: dict[str, Any] = environments.run("clients", Path(__file__).with_name("ollama_program.py"), arguments)
    return found


@pytest.mark.parametrize("case", ["embed", "embed async", "embed with a tag"])
def test_embed(answers: dict[str, Any], case: str, same: Same) -> None:
    found = answers[case]
    same(found["embeddings"])
    assert found["model"] == MODEL + (":latest" if case == "embed with a tag" else "")
    assert found["prompt_eval_count"] > 100  # the last text has as many words
    assert found["total_duration"] > 0


def test_one_text_gives_a_list_of_one(answers: dict[str, Any], reference: Reference) -> None:
    [vector] = answers["embed one"]["embeddings"]
    np.testing.assert_allclose(vector, reference[0], atol=1e-4)


@pytest.mark.parametrize("case", ["embed options", "langchain short"])
def test_dimensions(answers: dict[str, Any], case: str, reference: Reference) -> None:
    found = answers[case]["embeddings"] if case == "embed options" else answers[case]
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(found, cut, atol=1e-4)


@pytest.mark.parametrize("case", ["embeddings", "llama_index queries"])
def test_one_text_at_a_time(answers: dict[str, Any], case: str, reference: Reference) -> None:
    """Without the empty text, of which Ollama gives no vector."""
    np.testing.assert_allclose(answers[case], reference[[bool(text) for text in TEXTS]], atol=1e-4)


@pytest.mark.parametrize(
    "case",
    [
        "langchain documents",
        "langchain async",
        "llama_index texts",
        "llama_index async",
    ],
)
def test_frameworks(answers: dict[str, Any], case: str, same: Same) -> None:
    """LangChain sends every option of a chat model as null, and first looks for the model's name in the list."""
    same(answers[case])


def test_langchain_sends_a_list_for_a_query(answers: dict[str, Any], same: Same) -> None:
    same(answers["langchain queries"])


def test_models(answers: dict[str, Any]) -> None:
    [listed] = answers["list"]["models"]
    [running] = answers["ps"]["models"]
    shown = answers["show"]
    assert listed["model"] == running["model"] == f"{MODEL}:latest"
    assert listed["size"] == running["size"] > 80e6
    assert listed["modified_at"] == shown["modified_at"] is not None
    assert listed["details"] == running["details"] == shown["details"]
    assert listed["details"]["family"] == "bertmodel"
    assert listed["details"]["parameter_size"] == "22.7M"
    assert running["size_vram"] == 0
    assert shown["modelinfo"]["bertmodel.embedding_length"] == 384
    assert shown["modelinfo"]["bertmodel.context_length"] == 256
    assert shown["capabilities"] == ["embedding"]


@pytest.mark.parametrize(
    ("case", "status", "says"),
    [
        ("unknown model", 404, "not served here"),
        ("unknown model shown", 404, "not served here"),
        ("wrong key", 401, "API key"),
        ("too many items", 400, "at most 8"),
        ("too long", 400, "at most 256"),
        ("not served", 404, "/api/generate"),
        ("not pulled", 404, "/api/pull"),
    ],
)
def test_errors(answers: dict[str, Any], case: str, status: int, says: str) -> None:
    assert answers[case]["status"] == status
    assert says in answers[case]["error"]
