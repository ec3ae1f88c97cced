"""litellm's huggingface provider: embeddings and reranking in TEI's words, with a `top_n` that TEI does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.clients.conftest import KEY, TEXTS

DOCUMENTS = ["Rust is a language.", "Cats sleep on the sofa.", "Dogs sleep in the yard."]


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    program = Path(__file__).with_name("litellm_huggingface_program.py")
    query = {"query": "Where do cats sleep?", "documents": DOCUMENTS}
    found: dict[str, Any] = environments.run("litellm", program, {"url": server, "key": KEY, "texts": TEXTS, **query})
    return found


def test_embeddings(answers: dict[str, Any], same: Callable[[object], None]) -> None:
    same(answers["vectors"])


def test_reranking(answers: dict[str, Any]) -> None:
    assert [index for index, _, _ in answers["ranked"]] == [1, 2, 0]
    scores = [score for _, score, _ in answers["ranked"]]
    assert scores == sorted(scores, reverse=True)
    [[index, score, text]] = answers["top"]
    assert (index, text) == (1, DOCUMENTS[1])
    assert score == pytest.approx(scores[0], abs=1e-5)


def test_errors(answers: dict[str, Any]) -> None:
    assert answers["wrong key"]["error"] == "AuthenticationError"
    assert "API key is wrong" in answers["wrong key"]["message"]
