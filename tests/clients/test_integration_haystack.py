"""lemni.integrations.haystack in Haystack's own pipelines, also after they were written to YAML."""

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
    program = Path(__file__).with_name("integration_haystack_program.py")
    variables = {
        "PYTHONPATH": environments.SOURCE,
        "HAYSTACK_DESERIALIZATION_ALLOWLIST": "lemni.integrations.haystack",  # for YAML
    }
    result: dict[str, Any] = environments.run("clients", program, arguments, **variables)
    return result


@pytest.mark.parametrize("case", ["documents", "texts"])
def test_vectors(answers: dict[str, Any], same: Callable[[object], None], case: str) -> None:
    same(answers[case])


@pytest.mark.parametrize("way", ["", "async "])
def test_queries_and_documents_have_their_prompts(answers: dict[str, Any], zoo: Zoo, way: str) -> None:
    documents, query = zoo.sides(DOCUMENTS, QUERY)
    np.testing.assert_allclose(answers[f"{way}sided documents"], documents, atol=1e-5)
    np.testing.assert_allclose(answers[f"{way}sided query"], query, atol=1e-5)


def test_metadata_is_embedded_too(answers: dict[str, Any], zoo: Zoo) -> None:
    documents, _ = zoo.sides([f"a title | 1999 | {text}" for text in DOCUMENTS], QUERY)
    np.testing.assert_allclose(answers["with fields"], documents, atol=1e-5)
    assert answers["ids kept"]
    assert answers["none"] == []


@pytest.mark.parametrize("case", ["ranks", "async ranks", "thread ranks"])
def test_ranks(answers: dict[str, Any], relevance: Floats, case: str) -> None:
    order = np.argsort(-relevance)
    assert [text for text, _ in answers[case]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([score for _, score in answers[case]], relevance[order], atol=1e-4)
    assert answers["best"] == answers["ranks"][:1]
    assert sorted(answers["ranks with fields"]) != sorted(answers["ranks"])


@pytest.mark.parametrize("case", ["found", "found again"])
def test_pipelines(answers: dict[str, Any], cosines: Floats, case: str) -> None:
    order = np.argsort(-cosines)[:2]
    assert [text for text, _ in answers[case]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([score for _, score in answers[case]], cosines[order], atol=1e-4)


def test_yaml_says_where_the_server_is_and_names_the_variable_of_the_key(answers: dict[str, Any], zoo: Zoo) -> None:
    assert zoo.url in answers["written"]
    assert MODEL in answers["written"]
    assert "LEMNI_API_KEY" in answers["written"]
    assert answers["same dictionary"]


def test_errors(answers: dict[str, Any]) -> None:
    assert "LemniDocumentEmbedder" in answers["no text"]
    assert "LemniTextEmbedder" in answers["no documents"]
    assert "Cannot serialize token" in answers["token"]
    assert "the client has its own" in answers["two addresses"]
