"""Rectangles hold every token of a batch once, in bounds, whatever the lengths."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lemni.runtimes.padding import rectangles
from lemni.types import PackedBatch, Sequence


def _batch(lengths: list[int]) -> PackedBatch:
    random = np.random.default_rng(0)
    return PackedBatch.pack([Sequence(random.integers(1, 99, n).astype(np.int32)) for n in lengths])


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 300))
def test_every_token_stands_once_and_padding_is_bounded(lengths: list[int], cells: int) -> None:
    batch = _batch(lengths)
    packed = np.zeros(batch.tokens, dtype=np.int64)
    seen = []
    for rectangle in rectangles(batch, cells):
        filled = rectangle.fill(batch.ids, 0)
        assert (filled[~rectangle.mask] == 0).all()
        assert rectangle.mask[:, 0].all()
        assert rectangle.mask.size <= cells or len(rectangle.sequences) == 1
        assert rectangle.mask.size <= 2 * rectangle.mask.sum()
        for row, sequence in zip(filled, rectangle.sequences, strict=True):
            start, length = batch.starts[sequence], batch.lengths[sequence]
            assert row[:length].tolist() == batch.ids[start : start + length].tolist()
        packed[rectangle.tokens] = filled[rectangle.mask]
        seen += rectangle.sequences.tolist()
    assert sorted(seen) == list(range(len(lengths)))
    assert packed.tolist() == batch.ids.tolist()


def test_sequences_of_one_length_stay_together() -> None:
    assert [len(r.sequences) for r in rectangles(_batch([8] * 16), 128)] == [16]
