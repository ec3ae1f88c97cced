"""lemni.integrations.langchain in LangChain's own vector store and compression retriever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import environments
from tests.clients.conftest import DOCUMENTS, MODEL, QUERY, TEXTS
from tests.clients.zoo import Zoo

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def answers(zoo: Zoo) -> dict[str, Any]:
    arguments = {"url": zoo.url, "model": MODEL, "texts": TEXTS, "query": QUERY, "documents": DOCUMENTS}
    program = Path(__file__).with_name("integration_langchain_program.py")
    result: dict[str, Any] = environments.run("clients", program, arguments, PYTHONPATH=environments.SOURCE)
    return result


@pytest.mark.parametrize("case", ["documents", "async documents"])
def test_vectors(answers: dict[str, Any], same: Callable[[object], None], case: str) -> None:
    same(answers[case])


@pytest.mark.parametrize("way", ["", "async "])
def test_queries_and_documents_have_their_prompts(answers: dict[str, Any], zoo: Zoo, way: str) -> None:
    documents, query = zoo.sides(DOCUMENTS, QUERY)
    np.testing.assert_allclose(answers[f"{way}sided documents"], documents, atol=1e-5)
    np.testing.assert_allclose(answers[f"{way}sided query"], query, atol=1e-5)
    np.testing.assert_allclose(answers["thread sided query"], query, atol=1e-5)


def test_options_and_no_documents(answers: dict[str, Any]) -> None:
    assert answers["short"] == 8
    assert answers["none"] == answers["no ranks"] == []


def test_a_sync_call_with_an_async_client_only_is_refused(answers: dict[str, Any]) -> None:
    assert answers["sync"] == "only async_client is given; a sync call needs client too"


@pytest.mark.parametrize("case", ["ranks", "async ranks", "thread ranks"])
def test_ranks(answers: dict[str, Any], relevance: Floats, case: str) -> None:
    order = np.argsort(-relevance)
    assert [row[0] for row in answers[case]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([row[1] for row in answers[case]], relevance[order], atol=1e-4)
    assert [row[2:] for row in answers[case]] == [[1, f"id {row[0]}"] for row in answers[case]]
    assert answers["untouched"] == [{"a": 1}] * 3


def test_store(answers: dict[str, Any], cosines: Floats) -> None:
    order = np.argsort(-cosines)
    assert [text for text, _ in answers["found"]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([score for _, score in answers["found"]], cosines[order], atol=1e-4)


@pytest.mark.parametrize("case", ["compressed", "async compressed"])
def test_compression_retriever(answers: dict[str, Any], cosines: Floats, case: str) -> None:
    order = np.argsort(-cosines)[:2]
    assert [row[0] for row in answers[case]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([row[1] for row in answers[case]], cosines[order], atol=1e-4)


def test_the_key_is_not_shown(answers: dict[str, Any]) -> None:
    assert "ranker" in answers["shown"]
    assert "secret" not in answers["shown"]
