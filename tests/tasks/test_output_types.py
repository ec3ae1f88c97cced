"""Output types against sentence-transformers, torch and the real model: codes bit for bit, and what they cost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sentence_transformers.util import quantize_embeddings

from lemni.errors import InvalidRequest
from lemni.tasks.output_types import (
    OUTPUT_TYPES,
    Float8,
    OutputType,
    convert,
    convert_scaled,
    needs_ranges,
    restore,
    to_float8,
)

RNG = np.random.default_rng(0)
QUANTIZED: list[OutputType] = ["int8", "uint8", "binary", "ubinary"]
DIMENSIONS = [1, 7, 8, 9, 384]


def rows(count: int, dimensions: int) -> NDArray[np.float32]:
    """Some exact zeros and an empty range among ordinary values."""
    made = RNG.standard_normal((count, dimensions)).astype(np.float32)
    made[RNG.random(made.shape) < 0.1] = 0
    made[:, -1] = 0.25
    return made


def narrow(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ranges that leave values outside on both sides."""
    return np.stack([np.quantile(vectors, 0.2, axis=0), np.quantile(vectors, 0.9, axis=0)]).astype(np.float32)


@pytest.mark.parametrize("output_type", QUANTIZED)
@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_codes_are_those_of_sentence_transformers(dimensions: int, output_type: Any) -> None:
    vectors = rows(50, dimensions)
    for ranges in (np.stack([vectors.min(0), vectors.max(0)]), narrow(vectors)):
        expected = quantize_embeddings(vectors, output_type, ranges=ranges)
        got = convert(vectors, output_type, ranges)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("output_type", QUANTIZED)
def test_matrices_in_a_list(output_type: Any) -> None:
    matrices = [rows(count, 12) for count in (3, 0, 5)]
    ranges = narrow(np.concatenate(matrices))
    expected = quantize_embeddings(matrices, output_type, ranges=ranges)
    for got, wanted in zip(convert(matrices, output_type, ranges), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_a_vector_alone_is_as_in_any_array(output_type: OutputType) -> None:
    vectors = rows(6, 20)
    ranges = narrow(vectors)
    together = convert(vectors, output_type, ranges)
    for layout in (np.asfortranarray(vectors), vectors.astype(">f4"), np.repeat(vectors, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(convert(layout, output_type, ranges), together)
    for row, expected in zip(vectors, together, strict=True):
        np.testing.assert_array_equal(convert(row, output_type, ranges), expected)
    np.testing.assert_array_equal(convert(vectors.reshape(2, 3, 20), output_type, ranges)[1, 2], together[5])


def test_the_first_dimension_is_the_most_significant_bit() -> None:
    vector = np.array([0.1, -1, 0, 2, 1, -0.0, 1e-45, -3, 5], dtype=np.float32)
    assert convert(vector, "ubinary").tolist() == [0b10011010, 0b10000000]
    assert convert(vector, "binary").tolist() == [0b10011010 - 128, 0]


def test_values_outside_the_range_do_not_wrap() -> None:
    ranges = np.array([[-1], [1]], dtype=np.float32)
    outside = np.array([[-50], [-1], [50]], dtype=np.float32)
    assert convert(outside, "int8", ranges).ravel().tolist() == [-128, -128, 127]
    assert convert(outside, "uint8", ranges).ravel().tolist() == [0, 0, 255]


@given(arrays(np.uint32, st.integers(1, 20), elements=st.integers(0, 2**32 - 1)))
def test_bfloat16_is_torchs(bits: NDArray[np.uint32]) -> None:
    values = bits.view(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16)
    np.testing.assert_array_equal(convert(values, "bfloat16")[~np.isnan(values)], _bits(expected)[~np.isnan(values)])
    np.testing.assert_array_equal(restore(convert(values, "bfloat16"), "bfloat16"), expected.float().numpy())


def test_float16_is_numpys_and_refuses_what_does_not_fit() -> None:
    vectors = rows(4, 9)
    np.testing.assert_array_equal(convert(vectors, "float16"), vectors.astype(np.float16))
    vectors[2, 3] = -70000
    with pytest.raises(InvalidRequest, match="item 2: the value -70000 is over 65504") as caught:
        convert(vectors, "float16")
    assert caught.value.item == 2
    with pytest.raises(InvalidRequest, match="item 1"):
        convert([vectors[:2], vectors], "float16")


@pytest.mark.parametrize(("kind", "dtype"), [("fp8_e4m3", torch.float8_e4m3fn), ("fp8_e5m2", torch.float8_e5m2)])
def test_float8_is_torchs(kind: Float8, dtype: torch.dtype) -> None:
    vectors = np.concatenate([rows(20, 30), [[0, -0.0, 448, 460, -500, *[1e-3] * 25]]]).astype(np.float32)
    np.testing.assert_array_equal(to_float8(vectors, kind), _bits(torch.from_numpy(vectors).to(dtype)))


def test_float8_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(InvalidRequest, match=r"lemni\[fp8\]"):
        to_float8(rows(1, 4), "fp8_e4m3")


@given(arrays(np.float32, (4, 6), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_scaled_int8_is_within_half_a_step(vectors: NDArray[np.float32]) -> None:
    codes, scales = convert_scaled(vectors)
    assert (codes.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (4,))
    assert codes.min() >= -127
    error = np.abs(codes.astype(np.float64) * scales[:, None].astype(np.float64) - vectors)
    # A scale among the denormals has few bits of its own.
    assert (error <= np.maximum(scales[:, None] * 0.501, 2e-43)).all()
    for row, alone, scale in zip(vectors, codes, scales, strict=True):
        np.testing.assert_array_equal(convert_scaled(row)[0], alone)
        assert convert_scaled(row)[1] == scale


def test_a_zero_vector_has_scale_one() -> None:
    codes, scales = convert_scaled(np.zeros((2, 3), dtype=np.float32))
    assert not codes.any()
    assert scales.tolist() == [1, 1]


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_restored(dimensions: int) -> None:
    vectors = rows(10, dimensions)
    ranges = np.stack([vectors.min(0), vectors.max(0)])
    half_a_step = (ranges[1] - ranges[0]) / 255 / 2
    for output_type in OUTPUT_TYPES:
        back = restore(convert(vectors, output_type, ranges), output_type, ranges=ranges, dimensions=dimensions)
        assert back.dtype == np.float32
        assert back.shape == vectors.shape
        if needs_ranges(output_type):
            assert (np.abs(back - vectors) <= half_a_step * 1.001 + 1e-6).all()
        elif output_type.endswith("binary"):
            np.testing.assert_allclose(back, np.where(vectors > 0, 1, -1) / np.sqrt(dimensions), rtol=1e-6)
        else:
            np.testing.assert_allclose(back, vectors, rtol=0 if output_type == "float32" else 2**-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: convert(v, "int4"), "'int4': known are float32, float16"),
        (lambda v: convert(v, "int8"), "needs the model's ranges"),
        (lambda v: convert(v, "uint8", v[:2, :3]), r"\(2, 3\); 9 dimensions need \(2, 9\)"),
        (lambda v: restore(v.astype(np.int8), "int8"), "needs the model's ranges"),
        (lambda v: restore(convert(v, "binary"), "binary", dimensions=17), "17 dimensions from 2 bytes: 1 to 16"),
    ],
)
def test_bad_requests(call: Callable[[NDArray[np.float32]], object], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        call(rows(3, 9))


def _bits(tensor: torch.Tensor) -> NDArray[Any]:
    wide = tensor.element_size() == 2
    return tensor.view(torch.int16 if wide else torch.uint8).numpy().view(np.uint16 if wide else np.uint8)
