"""LlamaIndex's classes for TEI: embeddings over /embed, and the reranker, which sends its token without "Bearer"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS

DOCUMENTS = ["Rust is a language.", "Cats sleep on the sofa.", "Dogs sleep in the yard."]


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    program = Path(__file__).with_name("llama_index_tei_program.py")
    query = {"query": "Where do cats sleep?", "documents": DOCUMENTS}
    arguments = {"url": server, "key": KEY, "model": MODEL, "texts": TEXTS, **query}
    found: dict[str, Any] = environments.run("clients", program, arguments)
    return found


@pytest.mark.parametrize("case", ["texts", "queries", "async"])
def test_embeddings(answers: dict[str, Any], case: str, same: Callable[[object], None]) -> None:
    # Its instructions put a blank before a text, which BERT's tokenizer does not see.
    same(answers[case])


def test_reranking(answers: dict[str, Any]) -> None:
    assert [text for text, _ in answers["ranked"]] == [DOCUMENTS[1], DOCUMENTS[2]]
    assert answers["ranked"][0][1] > answers["ranked"][1][1] > 0.2


def test_errors_are_tei_s(answers: dict[str, Any]) -> None:
    assert answers["error"] == {"error": "batch size 9 > maximum allowed batch size 8", "error_type": "Validation"}
