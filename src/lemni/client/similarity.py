"""How alike vectors are, by the functions that sentence-transformers names (`util/similarity.py`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lemni.client.wire.embeddings import Vectors
from lemni.client.wire.models import Model


def similarities(a: Vectors, b: Vectors, model: Model | None) -> Vectors:
    """float32 [a, b] of [a, dim] and [b, dim] by the model's own function, cosine if unknown; the axis of a lone vector
    [dim] is left out. Distances are negative: more is always more alike."""
    left, right = np.atleast_2d(a).astype(np.float32), np.atleast_2d(b).astype(np.float32)
    if not len(left) or not len(right):
        matrix: Vectors = np.zeros((len(left), len(right)), np.float32)
    else:
        matrix = _FUNCTIONS.get(model.similarity if model else "cosine", _cosine)(left, right)
    rows: Vectors = matrix[0] if a.ndim == 1 else matrix
    return rows[..., 0] if b.ndim == 1 else rows


def _cosine(a: Vectors, b: Vectors) -> Vectors:
    return _dot(_unit(a), _unit(b))


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)[:, None]
    return unit


def _dot(a: Vectors, b: Vectors) -> Vectors:
    products: Vectors = a @ b.T
    return products


def _euclidean(a: Vectors, b: Vectors) -> Vectors:
    left, right = a.astype(np.float64), b.astype(np.float64)  # near neighbours are differences of large numbers
    squares = (left * left).sum(1)[:, None] + (right * right).sum(1) - 2 * left @ right.T
    distances: Vectors = -np.sqrt(np.maximum(squares, 0.0)).astype(np.float32)
    return distances


def _manhattan(a: Vectors, b: Vectors) -> Vectors:
    return np.stack([-np.abs(row - b).sum(1) for row in a])


_FUNCTIONS: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
