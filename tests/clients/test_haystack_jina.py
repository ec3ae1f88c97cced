"""Haystack's embedders and rankers for Jina's and Cohere's APIs."""

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
    program = Path(__file__).with_name("haystack_jina_program.py")
    result: dict[str, Any] = environments.run("clients", program, arguments)
    return result


@pytest.mark.parametrize("case", ["jina", "jina task", "cohere"])
def test_vectors(answers: dict[str, Any], same: Same, case: str) -> None:
    same(answers[case])


@pytest.mark.parametrize("case", ["jina text", "cohere text"])
def test_text(answers: dict[str, Any], reference: NDArray[np.float32], case: str) -> None:
    np.testing.assert_allclose(answers[case], reference[0], atol=1e-4)


def test_late_chunking(answers: dict[str, Any]) -> None:
    first, second = answers["jina late"]
    assert np.shape(first) == np.shape(second) == (384,)
    assert 0.2 < np.dot(first, second) < 0.99


def test_bits(answers: dict[str, Any]) -> None:
    expected = np.packbits(np.float32(answers["cohere"]) > 0, axis=1)
    np.testing.assert_array_equal(answers["cohere bits"], expected)


@pytest.mark.parametrize("case", ["jina ranks", "cohere ranks"])
def test_ranks(answers: dict[str, Any], case: str) -> None:
    ranked = answers[case]
    assert len(ranked) == 2
    assert ranked[0][0] == DOCUMENTS[1]
    assert ranked[0][1] > ranked[1][1]


def test_error(answers: dict[str, Any]) -> None:
    assert "model 'no' is not served here" in answers["jina error"]
