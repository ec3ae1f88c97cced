"""How alike two embeddings are: the functions that sentence-transformers names, and MaxSim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


def unit_length(vectors: Vectors) -> Vectors:
    """x / max(|x|, 1e-12) by row of [n, dim], as torch.nn.functional.normalize; a zero vector stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    unit: Vectors = vectors / np.maximum(norms, np.float32(1e-12))[:, None]
    return unit


def maxsim(query: Vectors, document: Vectors) -> float:
    """Sum over the rows of `query` [n, dim] of the largest dot product with a row of `document` [m, dim].

    Reference: ColBERT (arXiv:2004.12832).
    """
    return float((query @ document.T).max(axis=1).sum())


def _cosine(a: Vectors, b: Vectors) -> Vectors:
    return _dot(unit_length(a), unit_length(b))


def _dot(a: Vectors, b: Vectors) -> Vectors:
    products: Vectors = np.einsum("ij,ij->i", a, b)
    return products


def _euclidean(a: Vectors, b: Vectors) -> Vectors:
    distances: Vectors = -np.linalg.norm(a - b, axis=1)
    return distances


def _manhattan(a: Vectors, b: Vectors) -> Vectors:
    distances: Vectors = -np.abs(a - b).sum(axis=1)
    return distances


SIMILARITIES: dict[str, Callable[[Vectors, Vectors], Vectors]] = {
    "cosine": _cosine,
    "dot": _dot,
    "euclidean": _euclidean,
    "manhattan": _manhattan,
}
"""float32 [n, dim] and [n, dim] -> [n], row by row, by the names of `ModelSpec.similarity`; distances are negative, so
that more is always more alike. Reference: sentence-transformers, `util/similarity.py` (`pairwise_...`)."""
