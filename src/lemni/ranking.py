"""Scores and labels as people read them: in order, with their names."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Ranked(NamedTuple):
    """A document: its place in the list that was given, and its score."""

    index: int  # type: ignore[assignment]  # rather than tuple.index
    score: float


class Label(NamedTuple):
    """A label and its score."""

    label: str
    score: float


def ranked(scores: NDArray[np.float32], top_n: int | None = None) -> list[Ranked]:
    """The best first, equal ones in their order; the first `top_n` if that is over 0."""
    order = np.argsort(-scores, kind="stable")
    if top_n is not None and top_n > 0:
        order = order[:top_n]
    return [Ranked(int(place), float(scores[place])) for place in order]


def labelled(scores: NDArray[np.float32], names: Seq[str], top_k: int | None = None) -> list[list[Label]]:
    """For each row of float32 [items, labels] its labels, the best first; the first `top_k` if that is over 0."""
    return [[Label(names[place], score) for place, score in ranked(row, top_k)] for row in scores]
