"""litellm's providers jina_ai, voyage and cohere, each in its own dialect."""

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
    program = Path(__file__).with_name("litellm_providers_program.py")
    result: dict[str, Any] = environments.run("litellm", program, arguments)
    return result


@pytest.mark.parametrize("provider", ["jina_ai", "voyage", "cohere"])
def test_vectors(answers: dict[str, Any], same: Same, provider: str) -> None:
    assert "vectors" in answers[provider], answers[provider]
    same(answers[provider]["vectors"])
    assert answers[provider]["tokens"] > len(TEXTS)


def test_dimensions(answers: dict[str, Any], reference: NDArray[np.float32]) -> None:
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(answers["voyage dimensions"]["vectors"], cut, atol=1e-4)


@pytest.mark.parametrize("provider", ["jina_ai", "voyage", "cohere"])
def test_ranks(answers: dict[str, Any], provider: str) -> None:
    ranks = answers[f"{provider} ranks"]
    assert isinstance(ranks, list), ranks
    assert len(ranks) == 2
    assert ranks[0][0] == 1
    assert ranks[0][1] > ranks[1][1]
    assert ranks[0][2] == DOCUMENTS[1]
