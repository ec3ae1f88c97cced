"""Attention from contents and relative positions, and neighbouring tokens: all libraries against definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.plan import plan_rows
from tests.ops.libraries import Array, batch_of, same, with_numpy, with_torch
from tests.ops.test_ops import BATCHES, values

HEADS, DIM, ROWS = 3, 6, 12


def near(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distances -8..3 have a row each."""
    return np.clip(distances + 8, 0, ROWS - 1)


def far(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Not in order, and not all rows are used."""
    return 3 + np.abs(distances) % 5


def attention(keys: Array | None, queries: Array | None, buckets: Any = near, scale: float = 0.4) -> Any:
    def program(ops: Ops, inputs: Inputs, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        tables = [None if table is None else ops.constant(table) for table in (keys, queries)]
        return ops.disentangled_attention(
            query, key, value, inputs,
            scale=scale, position_keys=tables[0], position_queries=tables[1], buckets=buckets,
        )  # fmt: skip

    return program


@BATCHES
@pytest.mark.parametrize("buckets", [near, far])
@pytest.mark.parametrize("terms", ["both", "keys", "queries", "none"])
def test_disentangled_attention(lengths: tuple[int, ...], buckets: Any, terms: str) -> None:
    batch = batch_of(*lengths)
    query, key, value = (values(batch.tokens, HEADS, DIM, seed=n) for n in range(3))
    keys = values(HEADS, ROWS, DIM, seed=4) if terms in ("both", "keys") else None
    queries = values(HEADS, ROWS, DIM, seed=5) if terms in ("both", "queries") else None
    result = same(attention(keys, queries, buckets), batch, query, key, value)

    # The definition, one query at a time.
    start, length = int(batch.starts[-1]), int(batch.lengths[-1])
    seen = slice(start, start + length)
    for n in range(length):
        rows = buckets(np.arange(length) - n)
        for head in range(HEADS):
            scores = key[seen, head] @ query[start + n, head]
            if keys is not None:
                scores = scores + keys[head, rows] @ query[start + n, head]
            if queries is not None:
                scores = scores + (queries[head, rows] * key[seen, head]).sum(1)
            weights = np.exp(0.4 * scores) / np.exp(0.4 * scores).sum()
            expected = weights @ value[seen, head]
            np.testing.assert_allclose(result[start + n, head * DIM : (head + 1) * DIM], expected, atol=1e-5)


def test_two_kinds_of_buckets_and_plain_attention_in_one_model() -> None:
    keys, queries = values(HEADS, ROWS, DIM, seed=4), values(HEADS, ROWS, DIM, seed=5)

    def program(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        outputs = [attention(keys, queries, buckets)(ops, inputs, x, x, x) for buckets in (near, far, near)]
        return ops.concat([*outputs, ops.attention(x, x, x, inputs, scale=0.4)])

    parts = np.split(same(program, batch_of(5, 11, 2), values(18, HEADS, DIM)), 4, axis=1)
    np.testing.assert_array_equal(parts[0], parts[2])
    for one, other in [(0, 1), (0, 3), (1, 3)]:
        assert np.abs(parts[one] - parts[other]).max() > 0.01


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 5e-3), (torch.bfloat16, 4e-2)], ids=str)
def test_half_precision(dtype: torch.dtype, tolerance: float) -> None:
    batch = batch_of(3, 40, 7)
    query, key, value = (values(50, HEADS, DIM, seed=n) for n in range(3))
    keys, queries = values(HEADS, ROWS, DIM, seed=4), values(HEADS, ROWS, DIM, seed=5)
    program = attention(keys, queries, scale=1 / math.sqrt(3 * DIM))
    exact = with_numpy(program, batch, query, key, value)
    assert np.abs(with_torch(program, batch, query, key, value, dtype=dtype) - exact).max() < tolerance


@BATCHES
def test_neighbours(lengths: tuple[int, ...]) -> None:
    """With a linear layer they are a convolution of each sequence by itself."""
    batch = batch_of(*lengths)
    x, kernel, bias = values(batch.tokens, 4), values(5, 4, 3, seed=2), values(5, seed=3)

    def program(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        flat = ops.constant(np.ascontiguousarray(kernel.transpose(0, 2, 1)).reshape(5, 12))
        return ops.linear(ops.neighbours(x, inputs), flat, ops.constant(bias))

    result = same(program, batch, x)
    tensors = torch.from_numpy(kernel), torch.from_numpy(bias)
    for rows, found in zip(np.split(x, batch.starts[1:]), np.split(result, batch.starts[1:]), strict=True):
        expected = torch.nn.functional.conv1d(torch.from_numpy(rows).T[None], *tensors, padding=1)[0].T
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from([near, far]))
def test_a_batch_looks_up_only_the_buckets_between_its_lowest_and_highest(lengths: list[int], buckets: Any) -> None:
    plan = plan_rows(np.array(lengths, dtype=np.int32))
    found, places = plan.bucketed(buckets)
    assert found.dtype == places.dtype == np.int32
    np.testing.assert_array_equal(found[places], buckets(plan.relative.astype(np.int64)))
    np.testing.assert_array_equal(found, np.arange(found[places].min(), found[places].max() + 1))
