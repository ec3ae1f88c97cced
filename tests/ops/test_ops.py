"""Every op on torch and OpenVINO against the plain numpy one, and that one against definitions."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.activations import ACT2FN

from lemni.errors import ModelLoadError
from lemni.ops.base import ACTIVATIONS, Inputs, Ops, Tensor
from lemni.ops.plan import CAUSAL, FULL
from tests.ops.libraries import LIBRARIES, Array, batch_of, same, with_numpy, with_torch

LENGTHS = [(1,), (2,), (7,), (1, 2, 7), (7, 40, 1, 2, 33, 5), (1, 1, 1)]
BATCHES = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def values(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("tokens", [1, 2, 7, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(tokens: int, bias: bool) -> None:
    weight, offset = values(5, 8, seed=2), values(5, seed=3) if bias else None

    def program(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        return ops.linear(x, ops.constant(weight), None if offset is None else ops.constant(offset))

    x = values(tokens, 8)
    expected = F.linear(*(torch.from_numpy(a) if a is not None else None for a in (x, weight, offset)))
    np.testing.assert_allclose(same(program, batch_of(tokens), x), expected.numpy(), atol=1e-5)


@BATCHES
def test_embedding_of_each_kind_of_input(lengths: tuple[int, ...]) -> None:
    batch = batch_of(*lengths)
    words, positions, types = values(50, 4), values(64, 4, seed=2), values(2, 4, seed=3)

    def program(ops: Ops, inputs: Inputs) -> Tensor:
        return (
            ops.embedding(ops.constant(words), inputs.ids)
            + ops.embedding(ops.constant(positions), inputs.positions)
            + ops.embedding(ops.constant(types), inputs.token_types)
        )

    result = same(program, batch)
    np.testing.assert_allclose(
        result, words[batch.ids] + positions[batch.positions] + types[batch.token_types], atol=1e-6
    )


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("eps", [1e-12, 1e-2])
def test_layer_norm(weighted: bool, biased: bool, eps: float) -> None:
    weight, bias = values(8, seed=2) if weighted else None, values(8, seed=3) if biased else None

    def program(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        parts = [None if part is None else ops.constant(part) for part in (weight, bias)]
        return ops.layer_norm(x, *parts, eps)

    x = values(7, 8) * 0.1 + 3
    expected = F.layer_norm(
        torch.from_numpy(x), (8,), *(None if p is None else torch.from_numpy(p) for p in (weight, bias)), eps
    )
    np.testing.assert_allclose(same(program, batch_of(7), x, atol=3e-5), expected.numpy(), atol=3e-5)


@pytest.mark.parametrize("shape", [(7, 8), (7, 3, 8)])
@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_rms_norm(shape: tuple[int, ...], eps: float) -> None:
    weight = values(8, seed=2)
    x = values(*shape) * 0.1
    result = same(lambda ops, inputs, x: ops.rms_norm(x, ops.constant(weight), eps), batch_of(7), x)
    expected = F.rms_norm(torch.from_numpy(x), (8,), torch.from_numpy(weight), eps).numpy()
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str) -> None:
    x = np.linspace(-20, 20, 401, dtype=np.float32)[:, None]
    result = same(lambda ops, inputs, x: ops.activation(x, name), batch_of(401), x)
    np.testing.assert_allclose(result, ACT2FN[name](torch.from_numpy(x)).numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("run", [with_numpy, *LIBRARIES.values()])
def test_an_unknown_activation_is_refused(run: Any) -> None:
    with pytest.raises(ModelLoadError, match="unknown activation 'wobble'; known: gelu, gelu_new"):
        run(lambda ops, inputs, x: ops.activation(x, "wobble"), batch_of(2), values(2, 3))


def test_split_concat_and_arithmetic() -> None:
    def program(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        a, b, c = ops.split(x, [2, 5, 1])
        one, two, four = (ops.constant(np.array(number, dtype=np.float32)) for number in (1, 2, 4))
        mixed = (c * two + a) / four - one
        return ops.concat([b * b, mixed, a - c, a, one * c])

    x = values(7, 8)
    a, b, c = x[:, :2], x[:, 2:7], x[:, 7:]
    expected = np.concatenate([b * b, (c * 2 + a) / 4 - 1, a - c, a, c], axis=1)
    np.testing.assert_allclose(same(program, batch_of(7), x), expected, atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("width", [8, 4])
def test_rotate(tokens: int, interleaved: bool, width: int) -> None:
    angles = np.outer(np.arange(tokens), 0.3 ** np.arange(width // 2))
    angles = angles.repeat(2, axis=1) if interleaved else np.concatenate([angles, angles], axis=1)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    x = values(tokens, 3, 8)
    result = same(lambda ops, inputs, x, cos, sin: ops.rotate(x, cos, sin, interleaved), batch_of(tokens), x, cos, sin)
    # As complex numbers: the definition in the paper.
    first, second = (
        (slice(0, width, 2), slice(1, width, 2)) if interleaved else (slice(0, width // 2), slice(width // 2, width))
    )
    turned = (x[..., first] + 1j * x[..., second]) * (cos + 1j * sin)[:, None, first]
    np.testing.assert_allclose(result[..., first], turned.real, atol=1e-5)
    np.testing.assert_allclose(result[..., second], turned.imag, atol=1e-5)
    np.testing.assert_array_equal(result[..., width:], x[..., width:])


def attention(window: tuple[int, int], table: Array | None, scale: float = 0.4) -> Any:
    def program(ops: Ops, inputs: Inputs, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        bias = None if table is None else ops.relative_bias(ops.constant(table), inputs)
        return ops.attention(query, key, value, inputs, scale=scale, window=window, bias=bias)

    return program


WINDOWS = [FULL, CAUSAL, (4, 4), (3, 0), (0, 3), (0, 0), (-1, 2), (5, -1), (100, 100)]


@BATCHES
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("biased", [False, True], ids=["plain", "bias"])
def test_attention(lengths: tuple[int, ...], window: tuple[int, int], shared: int, biased: bool) -> None:
    batch, heads, dim = batch_of(*lengths), 4, 6
    query = values(batch.tokens, heads, dim)
    key, value = values(batch.tokens, shared, dim, seed=2), values(batch.tokens, shared, dim, seed=3)
    # A table for distances up to 8: longer sequences are clipped.
    table = values(heads, 17, seed=4) if biased else None
    result = same(attention(window, table), batch, query, key, value)

    # The definition, one query at a time.
    start = int(batch.starts[-1])
    for n in range(int(batch.lengths[-1])):
        seen = [
            m
            for m in range(int(batch.lengths[-1]))
            if (window[0] < 0 or n - m <= window[0]) and (window[1] < 0 or m - n <= window[1])
        ]
        for head in range(heads):
            group = head // (heads // shared)
            scores = np.array([0.4 * query[start + n, head] @ key[start + m, group] for m in seen])
            if table is not None:
                scores = scores + [table[head, min(max(m - n, -8), 8) + 8] for m in seen]
            weights = np.exp(scores) / np.exp(scores).sum()
            expected = sum(weight * value[start + m, group] for weight, m in zip(weights, seen, strict=True))
            np.testing.assert_allclose(result[start + n, head * dim : (head + 1) * dim], expected, atol=1e-5)


@pytest.mark.parametrize("window", [FULL, CAUSAL, (6, 6)], ids=str)
@pytest.mark.parametrize("ends", [(0, 4), (2, 3, 0, 1), (1, 1, 1), (5,)], ids=str)
def test_tokens_that_none_attends_to(ends: tuple[int, ...], window: tuple[int, int]) -> None:
    """The others get what they get without them; they themselves see all the others."""
    kept = [3 + n for n in range(len(ends))]
    batch = batch_of(*(n + end for n, end in zip(kept, ends, strict=True)))
    batch = dataclasses.replace(batch, unattended=np.array(ends, dtype=np.int32))
    arrays = [values(batch.tokens, 2, 6, seed=seed) for seed in (1, 2, 3)]
    result = same(attention(window, None), batch, *arrays)
    attended = batch.positions < np.repeat(kept, batch.lengths)
    alone = same(attention(window, None), batch_of(*kept), *(array[attended] for array in arrays))
    np.testing.assert_allclose(result[attended], alone, atol=1e-5)
    # The last of them, by the definition.
    start, query = int(batch.starts[-1]), batch.tokens - 1
    if ends[-1]:
        seen = [n for n in range(kept[-1]) if window[0] < 0 or int(batch.lengths[-1]) - 1 - n <= window[0]]
        scores = 0.4 * arrays[1][start:, 0][seen] @ arrays[0][query, 0]
        weights = np.exp(scores) / np.exp(scores).sum()
        np.testing.assert_allclose(result[query, :6], weights @ arrays[2][start:, 0][seen], atol=1e-5)


def test_attention_with_values_of_another_size() -> None:
    batch = batch_of(3, 7)
    query, key, value = values(10, 2, 6), values(10, 2, 6, seed=2), values(10, 2, 4, seed=3)
    assert same(attention(FULL, None), batch, query, key, value).shape == (10, 8)


def test_two_biases_and_two_windows_in_one_model() -> None:
    tables = values(2, 9, seed=4), values(2, 9, seed=5)

    def program(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        first, second = (ops.relative_bias(ops.constant(table), inputs) for table in tables)
        outputs = []
        for bias, window in [(first, FULL), (second, FULL), (first, CAUSAL), (None, CAUSAL), (first, FULL)]:
            outputs.append(ops.attention(x, x, x, inputs, scale=0.5, window=window, bias=bias))
        return ops.concat(outputs)

    result = same(program, batch_of(5, 11), values(16, 2, 4))
    parts = np.split(result, 5, axis=1)
    np.testing.assert_array_equal(parts[0], parts[4])
    for one, other in [(0, 1), (0, 2), (2, 3)]:
        assert np.abs(parts[one] - parts[other]).max() > 0.01


@BATCHES
@pytest.mark.parametrize("name", ["segment_sum", "segment_max", "first", "last"])
def test_segments(name: str, lengths: tuple[int, ...]) -> None:
    for starts in (None, tuple(length // 2 for length in lengths)):
        batch = batch_of(*lengths, pool_starts=starts)
        x = values(batch.tokens, 3)
        result = same(lambda ops, inputs, x: getattr(ops, name)(x, inputs), batch, x)
        parts = np.split(x, batch.starts[1:])
        take = {
            "segment_sum": lambda part, start: part.sum(0),
            "segment_max": lambda part, start: part.max(0),
            "first": lambda part, start: part[start],
            "last": lambda part, start: part[-1],
        }[name]
        expected = [take(part, start) for part, start in zip(parts, batch.pool_starts, strict=True)]
        np.testing.assert_allclose(result, expected, atol=1e-5)


@BATCHES
def test_counts_and_masks(lengths: tuple[int, ...]) -> None:
    batch = batch_of(*lengths, pool_starts=tuple(length // 2 for length in lengths))

    def by_token(ops: Ops, inputs: Inputs) -> Tensor:
        return ops.concat([inputs.places, inputs.pool_mask])

    places = np.concatenate([np.arange(1, length + 1) for length in lengths])
    mask = np.concatenate([np.arange(length) >= length // 2 for length in lengths])
    np.testing.assert_array_equal(same(by_token, batch), np.stack([places, mask], axis=1))
    counts = same(lambda ops, inputs: ops.concat([inputs.lengths]), batch)
    np.testing.assert_array_equal(counts, np.array(lengths)[:, None])


def test_log1p() -> None:
    positive = np.abs(values(4, 3))
    result = same(lambda ops, inputs, x: ops.log1p(x), batch_of(4), positive)
    np.testing.assert_allclose(result, np.log1p(positive), atol=1e-6)


def test_the_largest_of_many_wide_tokens() -> None:
    batch = batch_of(300, 1, 40)
    x = values(batch.tokens, 999)
    result = same(lambda ops, inputs, x: ops.segment_max(x, inputs), batch, x)
    np.testing.assert_array_equal(result, [part.max(0) for part in np.split(x, batch.starts[1:])])


def test_square_root() -> None:
    x = values(4, 5)
    x[2] = 0
    positive = np.abs(x)
    np.testing.assert_allclose(
        same(lambda ops, inputs, x: ops.square_root(x), batch_of(4), positive), np.sqrt(positive), atol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("run", [with_numpy, *LIBRARIES.values()])
def test_constants_become_float32(run: Any, dtype: type) -> None:
    weight = values(5, 8).astype(dtype)
    x = values(3, 8, seed=2)
    result = run(lambda ops, inputs, x: ops.linear(x, ops.constant(weight)), batch_of(3), x)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, x @ weight.astype(np.float32).T, atol=1e-5)


def test_a_transposed_constant() -> None:
    weight = values(8, 5).T
    same(lambda ops, inputs, x: ops.linear(x, ops.constant(weight)), batch_of(3), values(3, 8, seed=2))


def test_a_long_text_s_sum_does_not_overflow_in_half_precision() -> None:
    x = np.full((4000, 2), 100, dtype=np.float32)

    def mean(ops: Ops, inputs: Inputs, x: Tensor) -> Tensor:
        pooled = ops.segment_sum(x, inputs) / inputs.lengths
        return ops.linear(pooled, ops.constant(np.eye(2, dtype=np.float32)))

    np.testing.assert_array_equal(with_torch(mean, batch_of(4000), x, dtype=torch.float16), [[100, 100]])


def test_masks_hold_in_half_precision() -> None:
    batch = batch_of(3, 40, 7)
    query, key, value = (values(50, 2, 8, seed=n) for n in range(3))
    for window in WINDOWS:
        table = values(2, 17, seed=4)
        for program in (attention(window, None, 1 / math.sqrt(8)), attention(window, table, 1 / math.sqrt(8))):
            exact = with_numpy(program, batch, query, key, value)
            for dtype, tolerance in ((torch.float16, 5e-3), (torch.bfloat16, 4e-2)):
                half = with_torch(program, batch, query, key, value, dtype=dtype)
                assert np.abs(half - exact).max() < tolerance
