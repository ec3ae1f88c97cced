"""How attention sees a packed batch where the device has no variable-length kernel: as rows.

Several short sequences share one row as long as the longest sequence, and a mask keeps them apart, so that a long
sequence among short ones costs little more than without them (padding each to the longest would double or triple
the time of such a batch). Pure numpy: lengths in, index arrays out; the runtimes call it once per batch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int]
"""Tokens that a query sees to its left and right besides itself; -1 is unlimited, so (-1, 0) is causal."""

FULL: Window = (-1, -1)
CAUSAL: Window = (-1, 0)

MASKED = np.float32(-1e9)

Buckets = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Distances key - query -> rows of a table of positions. Hashable: batches remember what it gave them."""


@dataclass(frozen=True)
class RowPlan:
    """Where each token of a packed batch stands in the rows.

    Attributes:
        lengths: int32 [B].
        row: int32 [B], the row of each sequence.
        column: int32 [B], the column where it begins.
        rows: R.
        width: L, at least the longest sequence.
        unattended: int32 [B], tokens at the end of each sequence that nobody sees; None if there are none.
    """

    lengths: NDArray[np.int32]
    row: NDArray[np.int32]
    column: NDArray[np.int32]
    rows: int
    width: int
    unattended: NDArray[np.int32] | None = None

    def with_spare_cells(self) -> RowPlan:
        """The same places among a few more rows and columns, which nobody sees, so that shapes repeat."""
        return replace(self, rows=rounded(self.rows, parts=4, least=1), width=rounded(self.width))

    @cached_property
    def cell(self) -> NDArray[np.int32]:
        """int32 [T]: the cell (row * L + column) of each token."""
        first = self.row * self.width + self.column
        starts = np.cumsum(self.lengths, dtype=np.int32) - self.lengths
        return np.repeat(first - starts, self.lengths) + np.arange(self.lengths.sum(), dtype=np.int32)

    @cached_property
    def token(self) -> NDArray[np.int32]:
        """int32 [R, L]: the token in each cell; 0 in cells without one."""
        cells = np.zeros(self.rows * self.width, dtype=np.int32)
        cells[self.cell] = np.arange(len(self.cell), dtype=np.int32)
        return cells.reshape(self.rows, self.width)

    @cached_property
    def sequence(self) -> NDArray[np.int32]:
        """int32 [R, L]: which sequence each cell belongs to; -1 for none."""
        cells = np.full(self.rows * self.width, -1, dtype=np.int32)
        cells[self.cell] = np.repeat(np.arange(len(self.lengths), dtype=np.int32), self.lengths)
        return cells.reshape(self.rows, self.width)

    @cached_property
    def seen(self) -> NDArray[np.int32]:
        """int32 [R, L]: the sequence whose tokens see each cell; -1 for none."""
        if self.unattended is None:
            return self.sequence
        ends = np.cumsum(self.lengths, dtype=np.int32)
        to_end = np.repeat(ends, self.lengths) - np.arange(len(self.cell), dtype=np.int32)
        cells: NDArray[np.int32] = self.sequence.reshape(-1).copy()
        cells[self.cell[to_end <= np.repeat(self.unattended, self.lengths)]] = -1
        return cells.reshape(self.rows, self.width)

    @cached_property
    def relative(self) -> NDArray[np.int32]:
        """int32 [L, L]: key column minus query column; within a sequence that is their distance in tokens."""
        columns = np.arange(self.width, dtype=np.int32)
        return columns[None, :] - columns[:, None]

    def bucketed(self, buckets: Buckets) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The buckets that distances in a row fall into.

        Returns:
            int32 [W], from the lowest to the highest of them, and int32 [L, L]: which of these W each query (first
            axis) and key have.
        """
        found = buckets(np.arange(1 - self.width, self.width, dtype=np.int64)).astype(np.int32)
        lowest, highest = found.min(), found.max()
        # Row i of the windows begins at distance 1 - L + i, a query's at minus its column.
        places = np.lib.stride_tricks.sliding_window_view(found - lowest, self.width)[::-1]
        return np.arange(lowest, highest + 1, dtype=np.int32), places

    def mask(self, window: Window = FULL) -> NDArray[np.float32]:
        """float32 [R, 1, L or 1, L]: 0 where the query (third axis) sees the key (last axis), else a large negative."""
        if window == FULL and not self.column.any():  # one sequence a row
            visible = (self.seen >= 0)[:, None, None, :]
        else:
            visible = (self.sequence[:, :, None] == self.seen[:, None, :])[:, None]
            left, right = window
            if left >= 0:
                visible = visible & (self.relative >= -left)
            if right >= 0:
                visible = visible & (self.relative <= right)
        mask: NDArray[np.float32] = np.where(visible, np.float32(0), MASKED)
        return mask


def rounded(count: int, parts: int = 8, least: int = 4) -> int:
    """`count`, up to a multiple of `least` and to one of `parts` values an octave, so at most 1 / parts larger.

    A compiled graph keeps memory and prepared kernels for every shape that it has met; so it meets few.
    """
    step = max(least, (1 << count.bit_length() - 1) // parts)
    return -(-count // step) * step


def neighbours(lengths: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32 [T, 3]: the token before, the token, the one after, in sequences of these lengths; -1 where it has none."""
    ends = np.cumsum(lengths)
    tokens = np.arange(lengths.sum(), dtype=np.int32)[:, None] + np.array([-1, 0, 1], dtype=np.int32)
    tokens[ends - lengths, 0] = -1
    tokens[ends - 1, 2] = -1
    return tokens


def plan_rows(lengths: NDArray[np.int32], unattended: NDArray[np.int32] | None = None) -> RowPlan:
    """Pack sequences into as few rows of the longest one's length as best-fit decreasing finds."""
    width = int(lengths.max())
    row = np.empty(len(lengths), dtype=np.int32)
    column = np.empty(len(lengths), dtype=np.int32)
    free: list[tuple[int, int]] = []  # (free cells, row), sorted
    rows = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        fit = bisect_left(free, (length, -1))
        if fit < len(free):
            space, where = free.pop(fit)
        else:
            space, where = width, rows
            rows += 1
        row[index], column[index] = where, width - space
        if space > length:
            insort(free, (space - length, where))
    return RowPlan(lengths, row, column, rows, width, unattended)
