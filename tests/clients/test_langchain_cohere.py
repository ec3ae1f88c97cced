"""langchain-cohere and LlamaIndex's Cohere reranker, over an older client of Cohere's; langchain-community's Jina and
Voyage."""

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


@pytest.fixture(scope="module")
def answers(server: str) -> dict[str, Any]:
    arguments = {"url": server, "key": KEY, "model": MODEL, "texts": TEXTS, "query": QUERY, "documents": DOCUMENTS}
    program = Path(__file__).with_name("langchain_cohere_program.py")
    result: dict[str, Any] = environments.run("older-clients", program, arguments)
    return result


@pytest.mark.parametrize("case", ["cohere", "jina", "voyage"])
def test_vectors(answers: dict[str, Any], same: Same, case: str) -> None:
    same(answers[case])


def test_query(answers: dict[str, Any], reference: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(answers["cohere query"], reference[0], atol=1e-4)


@pytest.mark.parametrize("case", ["cohere ranks", "jina ranks"])
def test_ranks(answers: dict[str, Any], case: str) -> None:
    (first, high), (_, low) = answers[case]
    assert first == 1
    assert high > low


def test_compressed_documents(answers: dict[str, Any]) -> None:
    assert len(answers["compressed"]) == 2
    assert answers["compressed"][0] == DOCUMENTS[1]


def test_llama_index(answers: dict[str, Any]) -> None:
    (first, high), (_, low) = answers["llama index"]
    assert first == DOCUMENTS[1]
    assert high > low


def test_error(answers: dict[str, Any]) -> None:
    assert "model 'no' is not served here" in answers["jina error"]
