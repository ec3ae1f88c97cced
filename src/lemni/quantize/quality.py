"""How well vectors do: rank correlation with human scores, and nDCG on judged documents."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.floating[Any]]


def ranks(values: _Floats | Seq[float]) -> NDArray[np.float64]:
    """1 for the smallest; equal values share the mean of their ranks."""
    _, places, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[places.reshape(-1)]
    return shared


def spearman(one: _Floats | Seq[float], two: _Floats | Seq[float]) -> float:
    """Rank correlation of two lists of one length, ties averaged; NaN if all values of one are alike."""
    first, second = ranks(one), ranks(two)
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size else float("nan")


def cosines(one: _Floats, two: _Floats) -> NDArray[np.float64]:
    """Of each row [n, dim] with the same row of the other; two rows of zeros, such as a static model gives for texts
    without words that it knows, are alike."""
    alike: NDArray[np.float64] = np.einsum("nd,nd->n", _unit(one), _unit(two))
    return np.where(one.any(axis=1) | two.any(axis=1), alike, 1.0)


def similarities(one: _Floats, two: _Floats, name: str) -> NDArray[np.float64]:
    """[n, m] of all rows with all rows; `name` as in a model's card. Of distances the negative."""
    first, second = one.astype(np.float64), two.astype(np.float64)
    if name == "cosine":
        first, second = _unit(first), _unit(second)
    if name == "euclidean":
        squares = np.square(first).sum(1)[:, None] - 2 * first @ second.T + np.square(second).sum(1)
        distances: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0))
        return -distances
    if name == "manhattan":
        return np.stack([-np.abs(second - row).sum(1) for row in first])
    products: NDArray[np.float64] = first @ second.T
    return products


def ndcg(scores: _Floats, judgments: Seq[Mapping[int, float]], depth: int = 10) -> float:
    """Mean nDCG of queries, with the relevance itself as the gain (Jarvelin and Kekalainen 2002), as trec_eval has it.

    Args:
        scores: [queries, documents].
        judgments: of each query, place of a document -> relevance, at least one over 0.
    """
    discounts = 1 / np.log2(np.arange(2, depth + 2))
    found = []
    for row, judged in zip(scores, judgments, strict=True):
        best = np.argsort(-row, kind="stable")[:depth]
        gains = np.array([judged.get(int(place), 0.0) for place in best])
        ideal = np.sort(list(judged.values()))[::-1][:depth]
        found.append((gains @ discounts[: len(gains)]) / (ideal @ discounts[: len(ideal)]))
    return float(np.mean(found))


def _unit(rows: _Floats) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12)
    return unit
