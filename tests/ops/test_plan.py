"""Packing sequences into rows: what must hold for every batch, and what the masks let a token see."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.ops.plan import CAUSAL, FULL, MASKED, plan_rows, rounded

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=30)
windows = st.tuples(st.integers(-1, 12), st.integers(-1, 12))


def array(lengths: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(lengths, dtype=np.int32)


@given(lengths_of)
def test_every_token_has_a_cell_of_its_own(lengths: list[int]) -> None:
    plan = plan_rows(array(lengths))
    assert plan.width == max(lengths)
    assert -(-sum(lengths) // plan.width) <= plan.rows <= len(lengths)
    assert len(set(plan.cell.tolist())) == len(plan.cell) == sum(lengths)
    assert plan.cell.min() >= 0
    assert plan.cell.max() < plan.rows * plan.width
    assert set(plan.row.tolist()) == set(range(plan.rows))  # no row is empty
    np.testing.assert_array_equal(plan.token.reshape(-1)[plan.cell], np.arange(sum(lengths)))
    assert plan.token.shape == plan.sequence.shape == (plan.rows, plan.width)
    assert (plan.sequence < 0).sum() == plan.rows * plan.width - sum(lengths)
    for values in (plan.cell, plan.token, plan.sequence, plan.relative):
        assert values.dtype == np.int32


@given(lengths_of)
def test_a_sequence_is_in_one_piece(lengths: list[int]) -> None:
    plan = plan_rows(array(lengths))
    for n, cells in enumerate(np.split(plan.cell, np.cumsum(lengths)[:-1])):
        np.testing.assert_array_equal(cells, cells[0] + np.arange(lengths[n]))
        assert cells[0] // plan.width == cells[-1] // plan.width == plan.row[n]
        assert cells[0] % plan.width == plan.column[n]
        assert (plan.sequence.reshape(-1)[cells] == n).all()


@given(lengths_of)
def test_rows_are_used_well(lengths: list[int]) -> None:
    """Best fit decreasing: no two rows could be one, so at most one row is half empty or more."""
    plan = plan_rows(array(lengths))
    used = np.bincount(plan.row, weights=lengths)
    assert (used <= plan.width).all()
    assert (used * 2 <= plan.width).sum() <= 1


@settings(max_examples=60, deadline=None)
@given(lengths_of, windows)
def test_a_token_sees_its_own_sequence_within_the_window(lengths: list[int], window: tuple[int, int]) -> None:
    plan = plan_rows(array(lengths))
    mask = np.broadcast_to(plan.mask(window), (plan.rows, 1, plan.width, plan.width))[:, 0]
    assert set(np.unique(mask).tolist()) <= {0.0, float(MASKED)}
    left, right = (np.inf if side < 0 else side for side in window)
    for row, sequences in enumerate(plan.sequence):
        for query, own in enumerate(sequences):
            if own < 0:
                continue  # nobody reads what such a cell computes
            keys = np.arange(plan.width)
            expected = (sequences == own) & (query - keys <= left) & (keys - query <= right)
            np.testing.assert_array_equal(mask[row, query] == 0, expected)


@given(lengths_of, windows)
def test_no_cell_is_blind(lengths: list[int], window: tuple[int, int]) -> None:
    """A softmax over nothing but masked keys would spread NaN in half precision, where the mask is -inf."""
    assert (plan_rows(array(lengths)).mask(window).max(-1) == 0).all()


def test_examples() -> None:
    plan = plan_rows(array([2, 5, 3, 1]))
    assert (plan.rows, plan.width) == (3, 5)
    assert plan.row.tolist() == [1, 0, 1, 2]
    assert plan.column.tolist() == [3, 0, 0, 0]
    assert plan.mask(FULL).shape == (3, 1, 5, 5)
    one_each = plan_rows(array([4, 4]))
    assert one_each.mask(FULL).shape == (2, 1, 1, 4)
    assert one_each.mask(CAUSAL).shape == (2, 1, 4, 4)
    assert plan_rows(array([1])).mask(FULL).tolist() == [[[[0.0]]]]


@given(st.integers(1, 10**6), st.sampled_from([(8, 8), (4, 1)]))
def test_rounded_adds_little_and_repeats(count: int, how: tuple[int, int]) -> None:
    parts, least = how
    up = rounded(count, parts, least)
    assert count <= up < count + max(least, count / parts + 1)
    assert up % least == 0
    assert rounded(up, parts, least) == up


@given(lengths_of, st.sampled_from([FULL, CAUSAL, (3, 2)]))
def test_spare_cells_change_nothing_that_is_seen(lengths: list[int], window: tuple[int, int]) -> None:
    plan = plan_rows(array(lengths))
    wide = plan.with_spare_cells()
    assert (wide.rows, wide.width) == (rounded(plan.rows, 4, 1), rounded(plan.width))
    seen, in_wide = (np.broadcast_to(p.mask(window), (p.rows, 1, p.width, p.width))[:, 0] == 0 for p in (plan, wide))
    real = plan.sequence >= 0  # what a real token sees
    assert (seen[real] == in_wide[: plan.rows, : plan.width, : plan.width][real]).all()
    assert not in_wide[: plan.rows, : plan.width, plan.width :][real].any()
