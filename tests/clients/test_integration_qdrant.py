"""lemni.integrations.qdrant with Qdrant's local mode: dense, sparse and multi-vectors, alone and together."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients import environments
from tests.clients.conftest import DOCUMENTS, MODEL, QUERY, TEXTS
from tests.clients.zoo import Zoo
from tests.tiny_multimodal import DIMENSIONS, picture

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def answers(zoo: Zoo) -> dict[str, Any]:
    arguments = {"url": zoo.url, "model": MODEL, "texts": TEXTS, "query": QUERY, "documents": DOCUMENTS}
    arguments["picture"] = base64.b64encode(picture()).decode()
    program = Path(__file__).with_name("integration_qdrant_program.py")
    result: dict[str, Any] = environments.run("clients", program, arguments, PYTHONPATH=environments.SOURCE)
    return result


def test_vectors(answers: dict[str, Any], same: Callable[[object], None]) -> None:
    same(answers["vectors"])


def test_points(answers: dict[str, Any]) -> None:
    expected = [[7 + place, {"text": text, "place": place}] for place, text in enumerate(DOCUMENTS)]
    assert answers["points"] == expected
    assert answers["random ids"] == len(DOCUMENTS)
    assert answers["none"] == []


def test_collection(answers: dict[str, Any]) -> None:
    assert answers["collection"] == {
        "dense": {"size": 384, "distance": "Cosine"},
        "sparse": {},
        "multi_vector": {"size": 16, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
    }
    assert answers["distance of sided"] == "Dot"


def test_dense(answers: dict[str, Any], cosines: Floats) -> None:
    ranked(answers["kinds"]["all"]["dense"], cosines)


def test_sides_and_options(answers: dict[str, Any], zoo: Zoo) -> None:
    documents, query = zoo.sides(DOCUMENTS, QUERY)
    rows, lone = documents[:, :16], query[:16]
    cosines = rows @ lone / np.linalg.norm(rows, axis=1) / np.linalg.norm(lone)
    ranked(answers["kinds"]["sided"]["dense"], cosines)


def test_sparse(answers: dict[str, Any], zoo: Zoo) -> None:
    query, documents = zoo.splade.encode_query([QUERY]), zoo.splade.encode_document(DOCUMENTS)
    ranked(answers["kinds"]["all"]["sparse"], zoo.splade.similarity(query, documents).numpy()[0])


@pytest.mark.parametrize("case", ["multi_vector", "hybrid"])
def test_late_interaction(answers: dict[str, Any], zoo: Zoo, case: str) -> None:
    query, documents = zoo.colbert.encode_query([QUERY]), zoo.colbert.encode_document(DOCUMENTS)
    found = answers["hybrid"] if case == "hybrid" else answers["kinds"]["all"][case]
    ranked(found, zoo.colbert.similarity(query, documents).numpy()[0])


def test_pictures(answers: dict[str, Any]) -> None:
    assert answers["picture"] == [DIMENSIONS, DIMENSIONS, {}]


def test_errors(answers: dict[str, Any]) -> None:
    assert answers["wrong kind"] == "using is 'sparse'; points have dense"
    assert answers["wrong count"] == "1 ids for 3 documents; give one for each"
    assert "no vectors" in answers["no kind"]


def ranked(found: list[Any], scores: Floats) -> None:
    order = np.argsort(-scores)
    assert [text for text, _ in found] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([score for _, score in found], scores[order], atol=1e-4)
