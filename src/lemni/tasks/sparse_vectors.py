"""Term weights as `SparseVector`s: made from tokens, joined, cut and compared. Used by the kinds that give them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lemni.tasks.similarity import SIMILARITIES
from lemni.types import SparseVector

_Floats = NDArray[np.float32]


def by_term(ids: NDArray[np.integer], weights: _Floats, *, add: bool = False) -> SparseVector:
    """One weight per term of [n] ids that may repeat: the largest (0 if all are below), or the sum with `add`."""
    terms, place = np.unique(ids, return_inverse=True)
    values = np.zeros(len(terms), dtype=np.float32)
    (np.add if add else np.maximum).at(values, place, weights)
    return without_zeros(terms, values)


def joined(vectors: Iterable[SparseVector], *, add: bool) -> SparseVector:
    """Those of the parts of one text as one: by term the largest, or the sum."""
    parts = list(vectors)
    if len(parts) == 1:
        return parts[0]
    return by_term(np.concatenate([p.indices for p in parts]), np.concatenate([p.values for p in parts]), add=add)


def without_zeros(indices: NDArray[np.integer], values: _Floats) -> SparseVector:
    """Of ascending ids and their weights, those that are not zero."""
    [places] = np.nonzero(values)
    return SparseVector(indices[places].astype(np.int32), values[places].astype(np.float32, copy=False))


def strongest(vector: SparseVector, count: int) -> SparseVector:
    """The `count` terms of the largest absolute weight; among equals the smallest ids.

    Reference: sentence-transformers, `select_max_active_dims`, which leaves open who wins among equals.
    """
    if len(vector.values) <= count:
        return vector
    places = np.sort(np.argsort(-np.abs(vector.values), kind="stable")[:count])
    return SparseVector(vector.indices[places], vector.values[places])


def sparse_similarity(name: str, a: SparseVector, b: SparseVector) -> float:
    """`SIMILARITIES[name]` of two sparse vectors."""
    terms = np.union1d(a.indices, b.indices)
    dense = np.zeros((2, 1, len(terms)), dtype=np.float32)
    for row, vector in zip(dense, (a, b), strict=True):
        row[0, np.searchsorted(terms, vector.indices)] = vector.values
    return float(SIMILARITIES[name](*dense)[0])
