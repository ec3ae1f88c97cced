"""lemni.integrations.chroma in a collection on disk, which another process opens again."""

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
def answers(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the process that makes the collections prints, and under "opened" the one that opens them."""
    folder = tmp_path_factory.mktemp("chroma")
    arguments = {"url": zoo.url, "model": MODEL, "texts": TEXTS, "query": QUERY, "documents": DOCUMENTS}
    program = Path(__file__).with_name("integration_chroma_program.py")

    def run(opened: bool) -> dict[str, Any]:
        result: dict[str, Any] = environments.run(
            "clients",
            program,
            {**arguments, "folder": str(folder), "opened": opened},
            PYTHONPATH=environments.SOURCE,
        )
        return result

    return {**run(opened=False), "opened": run(opened=True)}


def test_vectors(answers: dict[str, Any], same: Callable[[object], None]) -> None:
    same(answers["vectors"])


@pytest.mark.parametrize("opened", [False, True])
def test_search(answers: dict[str, Any], cosines: Floats, opened: bool) -> None:
    one = answers["opened"] if opened else answers
    order = np.argsort(-cosines)
    assert one["space"] == "cosine"
    assert [text for text, _ in one["found"]] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([1 - distance for _, distance in one["found"]], cosines[order], atol=1e-4)


@pytest.mark.parametrize("opened", [False, True])
def test_queries_and_documents_have_their_prompts_and_options(answers: dict[str, Any], zoo: Zoo, opened: bool) -> None:
    one = answers["opened"] if opened else answers
    documents, query = (unit(vectors[..., :16]) for vectors in zoo.sides(DOCUMENTS, QUERY))
    np.testing.assert_allclose(one["kept"], documents, atol=1e-5)
    expected = dict(zip(DOCUMENTS, documents @ query, strict=True))
    for text, distance in one["found by sides"]:
        assert 1 - distance == pytest.approx(expected[text], abs=1e-4)


def test_the_key_is_not_kept(answers: dict[str, Any], zoo: Zoo) -> None:
    assert zoo.url in answers["configuration"]
    assert "secret" not in answers["configuration"]


def unit(vectors: Floats) -> Floats:
    found: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return found
