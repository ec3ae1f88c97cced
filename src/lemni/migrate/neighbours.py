"""The nearest entries, exactly, in one pass over a collection and in bounded memory; and what a store's own search
finds of them."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.stores.base import Id, Metric, Page, Store

_TIE = 1e-5
"""Relative: entries whose scores differ by less are equally near, whatever order the last bits give them."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Of each query entry the nearest others: their ids, the best first, and scores [queries, k], higher is nearer."""

    ids: list[list[Id]]
    scores: NDArray[np.float64]


class Search:
    """Exact search of some entries among all others.

    Args:
        ids: of the entries that are asked with; none is its own neighbour.
        vectors: theirs, [queries, dimensions].
        k: neighbours.
    """

    def __init__(self, ids: Seq[Id], vectors: NDArray[Any], metric: Metric, k: int) -> None:
        self._ids, self._metric, self._k = list(ids), metric, k
        self._queries = prepared(vectors, metric)
        self._names: NDArray[np.object_] = np.empty((len(self._ids), 0), np.object_)
        self._scores: NDArray[np.float64] = np.empty((len(self._ids), 0))

    def add(self, page: Page) -> None:
        """A page with vectors."""
        if not page.ids or not self._ids:
            return
        scores = similarity(self._queries, prepared(np.asarray(page.vectors), self._metric), self._metric)
        own = {name: at for at, name in enumerate(page.ids)}
        for row, name in enumerate(self._ids):
            if name in own:
                scores[row, own[name]] = -np.inf
        names = np.empty(len(page.ids), np.object_)
        names[:] = page.ids
        both = np.concatenate([self._scores, scores], axis=1)
        called = np.concatenate([self._names, np.broadcast_to(names, scores.shape)], axis=1)
        best = np.argsort(-both, axis=1, kind="stable")[:, : self._k]
        self._scores = np.take_along_axis(both, best, axis=1)
        self._names = np.take_along_axis(called, best, axis=1)

    def found(self) -> Neighbours:
        kept = np.isfinite(self._scores)
        ids = [
            [name for name, there in zip(row, good, strict=True) if there]
            for row, good in zip(self._names.tolist(), kept.tolist(), strict=True)
        ]
        return Neighbours(ids, self._scores)


def prepared(vectors: NDArray[Any], metric: Metric) -> NDArray[np.float64]:
    """float64 [n, dimensions], of unit length for the cosine."""
    wide = vectors.astype(np.float64)
    if metric == "cosine":
        wide = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return wide


def similarity(one: NDArray[np.float64], two: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    """[n, m] of prepared vectors; of distances the negative squares."""
    products: NDArray[np.float64] = one @ two.T
    if metric == "l2":
        products = 2 * products - np.square(one).sum(1)[:, None] - np.square(two).sum(1)
    return products


def overlap(old: Neighbours, new: Neighbours) -> tuple[list[float], list[float]]:
    """Of each query, how many of k neighbours stayed, and Jaccard's index of both sets. Both sides' ids in one form."""
    shares, jaccards = [], []
    for before, after in zip(old.ids, new.ids, strict=True):
        both = len({*before} & {*after})
        shares.append(both / max(1, len(before), len(after)))
        jaccards.append(both / max(1, len({*before, *after})))
    return shares, jaccards


def recall(store: Store, ids: Seq[Id], vectors: NDArray[Any], metric: Metric, exact: Neighbours, k: int) -> list[float]:
    """Of each query, the share of its exact neighbours that the store's search finds; entries that are equally near
    stand for each other."""
    answers = store.search(vectors, k + 1)
    found = [[name for name in row if name != own][:k] for own, row in zip(ids, answers, strict=True)]
    wanted = list(dict.fromkeys(name for row in found for name in row))
    where: dict[Id, NDArray[np.float64]] = {}
    for start in range(0, len(wanted), 500):
        page = store.fetch(wanted[start : start + 500])
        where.update(zip(page.ids, prepared(np.asarray(page.vectors), metric), strict=True))
    queries = prepared(vectors, metric)
    shares = []
    for at, row in enumerate(found):
        near = [name for name in row if name in where]
        limits = exact.scores[at][np.isfinite(exact.scores[at])]
        if not len(limits):
            continue
        limit = limits[-1] - _TIE * max(1.0, abs(limits[-1]))
        scores = similarity(queries[at : at + 1], np.stack([where[name] for name in near]), metric)[0] if near else []
        shares.append(sum(score >= limit for score in scores) / len(limits))
    return shares


def ids_in(pages: Iterator[Page]) -> Iterator[Id]:
    for page in pages:
        yield from page.ids
