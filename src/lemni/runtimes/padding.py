"""Packed batches as padded rectangles, for model code that knows nothing else (transformers, ONNX files).

Padding stands on the right under an attention mask: positions count from 0 as they should, and causal models never
look at it. Pure numpy; what a rectangle gives is packed again by its `tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.types import PackedBatch


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Some sequences of a batch, padded to the longest of them.

    Attributes:
        sequences: int [G], which ones.
        mask: bool [G, width], true where a token stands.
        tokens: int, the places in the packed batch of the mask's true cells, in their order.
        attended: bool [G, width], the mask without the tokens that none attends to.
    """

    sequences: NDArray[np.intp]
    mask: NDArray[np.bool_]
    tokens: NDArray[np.intp]
    attended: NDArray[np.bool_]

    def fill(self, values: NDArray[Any], padding: int, dtype: Any = np.int64) -> NDArray[Any]:
        """Values of the packed batch [T] in their cells [G, width]."""
        cells = np.full(self.mask.shape, padding, dtype=dtype)
        cells[self.mask] = values[self.tokens]
        return cells


def rectangles(batch: PackedBatch, cells: int) -> Iterator[Rectangle]:
    """Cut a batch into rectangles of like lengths, longest first.

    Each has at most `cells` cells (or one sequence), and at least half of them hold tokens.
    """
    starts = batch.starts.astype(np.intp)
    for sequences in _groups(batch.lengths, cells):
        lengths = batch.lengths[sequences]
        columns = np.arange(int(lengths[0]))
        mask = columns < lengths[:, None]
        attended = mask
        if batch.unattended is not None:
            attended = columns < (lengths - batch.unattended[sequences])[:, None]
        yield Rectangle(sequences, mask, (starts[sequences][:, None] + columns)[mask], attended)


def _groups(lengths: NDArray[np.int32], cells: int) -> Iterator[NDArray[np.intp]]:
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest, tokens, stop = int(lengths[order[start]]), 0, start
        while stop < len(order):
            size = (stop - start + 1) * longest
            tokens += int(lengths[order[stop]])
            if stop > start and (size > cells or size > 2 * tokens):
                break
            stop += 1
        yield order[start:stop]
        start = stop
