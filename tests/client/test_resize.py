"""Vectors of another size: each method beside faciliter-lib's formula, written with numpy's own functions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.client.errors import InvalidArgument
from lemni.client.resize import best_method, resize, unit
from lemni.errors import InvalidRequest

SIZES = [(384, 384), (384, 256), (384, 100), (384, 7), (384, 1), (384, 385), (384, 1000), (1, 3), (2, 1), (13, 12)]


def _rows(count: int, dim: int) -> NDArray[np.float32]:
    return np.random.default_rng(dim).standard_normal((count, dim)).astype(np.float32)


def _of_length_1(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit_vector: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit_vector


@pytest.mark.parametrize(("dim", "size"), SIZES)
def test_truncate_or_pad(dim: int, size: int) -> None:
    rows = _rows(5, dim)
    expected = [(row.tolist() + [0.0] * size)[:size] for row in rows]
    np.testing.assert_array_equal(resize(rows, size, "truncate_or_pad"), np.array(expected, np.float32))


@pytest.mark.parametrize(("dim", "size"), SIZES)
def test_interpolate(dim: int, size: int) -> None:
    rows = _rows(5, dim)
    ours = resize(rows, size, "interpolate")
    assert ours.dtype == np.float32
    assert ours.shape == (5, size)
    for row, found in zip(rows, ours, strict=True):
        line = np.interp(np.linspace(0, 1, size), np.linspace(0, 1, dim), row)
        np.testing.assert_allclose(found, row if dim == size else _of_length_1(line), atol=1e-6)


@pytest.mark.parametrize(("dim", "size"), SIZES)
def test_pca_approximate(dim: int, size: int) -> None:
    rows = _rows(5, dim)
    ours = resize(rows, size, "pca_approximate")
    if size >= dim:
        np.testing.assert_array_equal(ours, resize(rows, size, "interpolate"))
        return
    for row, found in zip(rows, ours, strict=True):
        groups = [row[i * dim // size : (i + 1) * dim // size].astype(np.float64).mean() for i in range(size)]
        np.testing.assert_allclose(found, _of_length_1(np.array(groups)), atol=1e-6)


@pytest.mark.parametrize("method", ["truncate_or_pad", "interpolate", "pca_approximate"])
@pytest.mark.parametrize("size", [2, 5, 9])
def test_a_vector_is_the_same_alone_and_zeros_stay_zero(method: str, size: int) -> None:
    rows = _rows(4, 5)
    rows[2] = 0
    together = resize(rows, size, method)
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(resize(row[None], size, method)[0], together[place])
    assert not together[2].any()


def test_vectors_of_length_1() -> None:
    rows = np.array([[3, 4], [0, 0], [1e30, 0], [1e-30, -1e-30]], np.float32)
    half = np.sqrt(0.5)
    expected = np.array([[0.6, 0.8], [0, 0], [1, 0], [half, -half]])
    np.testing.assert_allclose(unit(rows), expected, rtol=1e-6)
    for row, found in zip(rows, unit(rows), strict=True):
        np.testing.assert_array_equal(unit(row[None])[0], found)


@pytest.mark.parametrize(
    ("model", "current", "target", "method"),
    [
        ("text-embedding-3-small", 1536, 256, "truncate_or_pad"),
        ("nomic-ai/nomic-embed-text-v1.5", 768, 1024, "truncate_or_pad"),
        ("me/tiny-Matryoshka", 64, 16, "truncate_or_pad"),
        ("BAAI/bge-small-en-v1.5", 384, 384, "truncate_or_pad"),
        ("BAAI/bge-small-en-v1.5", 384, 1024, "interpolate"),
        ("BAAI/bge-small-en-v1.5", 384, 400, "interpolate"),
        ("BAAI/bge-small-en-v1.5", 384, 192, "interpolate"),
        ("BAAI/bge-small-en-v1.5", 384, 191, "pca_approximate"),
        (None, 384, 100, "pca_approximate"),
    ],
)
def test_the_choice(model: str | None, current: int, target: int, method: str) -> None:
    assert best_method(model, current, target) == method


def test_an_unknown_method() -> None:
    with pytest.raises(ValueError, match=r"^Unsupported normalization method: umap; known: truncate_or_pad") as raised:
        resize(_rows(1, 3), 3, "umap")
    assert isinstance(raised.value, InvalidArgument)
    assert isinstance(raised.value, InvalidRequest)
