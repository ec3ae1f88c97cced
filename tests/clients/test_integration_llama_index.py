"""lemni.integrations.llama_index in LlamaIndex's own index and query engine."""

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
    program = Path(__file__).with_name("integration_llama_index_program.py")
    result: dict[str, Any] = environments.run("clients", program, arguments, PYTHONPATH=environments.SOURCE)
    return result


@pytest.mark.parametrize(
    "case", ["batch", "async batch", "one by one", "async one by one", "from a dictionary", "from a pickle"]
)
def test_vectors(answers: dict[str, Any], same: Callable[[object], None], case: str) -> None:
    same(answers[case])


@pytest.mark.parametrize("way", ["", "async "])
def test_queries_and_documents_have_their_prompts(answers: dict[str, Any], zoo: Zoo, way: str) -> None:
    documents, query = zoo.sides(DOCUMENTS, QUERY)
    np.testing.assert_allclose(answers[f"{way}sided documents"], documents, atol=1e-5)
    np.testing.assert_allclose(answers[f"{way}sided query"], query, atol=1e-5)


@pytest.mark.parametrize("case", ["ranks", "async ranks", "thread ranks"])
def test_ranks(answers: dict[str, Any], relevance: Floats, case: str) -> None:
    order = np.argsort(-relevance)
    assert [text for text, _ in answers[case]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([score for _, score in answers[case]], relevance[order], atol=1e-4)


def test_no_nodes_and_no_query(answers: dict[str, Any]) -> None:
    assert answers["no ranks"] == []
    assert "query_str" in answers["refused"]


def test_index(answers: dict[str, Any], cosines: Floats) -> None:
    order = np.argsort(-cosines)
    for case, count in (("found", 3), ("queried", 2)):
        assert [text for text, _ in answers[case]] == [DOCUMENTS[place] for place in order[:count]]
        np.testing.assert_allclose([score for _, score in answers[case]], cosines[order[:count]], atol=1e-4)


def test_listeners_hear_of_it(answers: dict[str, Any]) -> None:
    assert {"EmbeddingStartEvent", "ReRankStartEvent", "ReRankEndEvent"} <= set(answers["events"])


def test_the_key_is_not_shown(answers: dict[str, Any]) -> None:
    assert MODEL in answers["shown"]
    assert "secret" not in answers["shown"]
