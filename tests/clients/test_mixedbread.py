"""Mixedbread's client."""

from __future__ import annotations

import base64
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
    result: dict[str, Any] = environments.run("clients", Path(__file__).with_name("mixedbread_program.py"), arguments)
    return result


@pytest.mark.parametrize("case", ["plain", "async"])
def test_vectors(answers: dict[str, Any], same: Same, case: str) -> None:
    same(answers[case])
    prompt, total = answers["usage"]
    assert prompt == total > len(TEXTS)


def test_base64(answers: dict[str, Any], same: Same) -> None:
    same([np.frombuffer(base64.b64decode(text), "<f4") for text in answers["single"]["base64"]])


def test_several_formats(answers: dict[str, Any], reference: NDArray[np.float32]) -> None:
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    for one, vector in zip(answers["several"], cut, strict=True):
        np.testing.assert_allclose(one["float"], vector, atol=1e-4)
        np.testing.assert_allclose(one["float16"], one["float"], atol=1e-3)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(one["base64"]), "<f4"), np.float32(one["float"]))
        np.testing.assert_array_equal(one["ubinary"], np.packbits(np.float32(one["float"]) > 0))
        np.testing.assert_array_equal(np.array(one["binary"]) + 128, one["ubinary"])
        np.testing.assert_array_equal(np.array(one["int8"]) + 128, one["uint8"])
    normalized, formats, dimensions = answers["said"]
    assert (normalized, formats, dimensions) == (True, list(answers["several"][0]), 64)


def test_rerank(answers: dict[str, Any]) -> None:
    assert [one[0] for one in answers["ranked"]] == [one[0] for one in answers["by field"]][:2]
    assert answers["ranked"][0][0] == 1
    assert answers["ranked"][0][2] == DOCUMENTS[1]
    assert answers["ranked said"] == [2, True]


@pytest.mark.parametrize(
    ("case", "kind", "says"),
    [
        ("unknown", "NotFoundError", "not served here"),
        ("empty", "BadRequestError", "input is an empty list"),
        ("key", "AuthenticationError", "API key is wrong"),
    ],
)
def test_errors(answers: dict[str, Any], case: str, kind: str, says: str) -> None:
    assert answers[case]["class"] == kind
    assert says in answers[case]["body"]["message"]
