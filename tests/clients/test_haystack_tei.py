"""Haystack's components for TEI over HTTP: embedders (through huggingface_hub's client) and the ranker."""

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
    program = Path(__file__).with_name("haystack_tei_program.py")
    query = {"query": "Where do cats sleep?", "documents": DOCUMENTS}
    found: dict[str, Any] = environments.run("clients", program, {"url": server, "key": KEY, "texts": TEXTS, **query})
    return found


@pytest.mark.parametrize("case", ["documents", "texts"])
def test_embeddings(answers: dict[str, Any], case: str, same: Callable[[object], None]) -> None:
    same(answers[case])


@pytest.mark.parametrize("case", ["ranked", "truncated", "async"])
def test_reranking(answers: dict[str, Any], case: str) -> None:
    found = answers[case]
    assert [text for text, _ in found] == [DOCUMENTS[1], DOCUMENTS[2]]
    assert found[0][1] > found[1][1] > 0.2
    assert [score for _, score in found] == pytest.approx([score for _, score in answers["ranked"]], abs=1e-5)


def test_errors_are_shown(answers: dict[str, Any]) -> None:
    assert "batch size 9 > maximum allowed batch size 8" in answers["error"]
