"""Vectors in the number type that a caller asks for, and back: halves, int8 and uint8, one bit per dimension.

Pure functions on float32 arrays of any shape [..., dim], or on a list of them (a matrix per item). The formats are
those of sentence-transformers' `quantize_embeddings` (6.2), which Cohere's `binary` and `ubinary` share. Dialects call
`convert` before they write; clients and tests call `restore`. Where int8 ranges come from: `lemni.tasks.ranges`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, missing_extra

OutputType: TypeAlias = Literal["float32", "float16", "bfloat16", "int8", "uint8", "binary", "ubinary"]
OUTPUT_TYPES: tuple[OutputType, ...] = get_args(OutputType)
Float8: TypeAlias = Literal["fp8_e4m3", "fp8_e5m2"]

Rows: TypeAlias = NDArray[Any] | Seq[NDArray[Any]]
"""[dim], [n, dim] or [tokens, dim] in one array, or a list of such arrays: one per item."""

STEPS = 255
"""Steps between the smallest and the largest value of a range."""

_NEEDS_RANGES = ("int8", "uint8")


def needs_ranges(output_type: OutputType) -> bool:
    """Whether `convert` to this type takes the model's ranges."""
    return output_type in _NEEDS_RANGES


@overload
def convert(
    vectors: NDArray[np.float32], output_type: OutputType, ranges: NDArray[np.float32] | None = None
) -> NDArray[Any]: ...


@overload
def convert(
    vectors: Seq[NDArray[np.float32]], output_type: OutputType, ranges: NDArray[np.float32] | None = None
) -> list[NDArray[Any]]: ...


def convert(
    vectors: NDArray[np.float32] | Seq[NDArray[np.float32]],
    output_type: OutputType,
    ranges: NDArray[np.float32] | None = None,
) -> NDArray[Any] | list[NDArray[Any]]:
    """Vectors as `output_type`, each by itself: what comes of one never depends on the others.

    - float32, float16: those dtypes.
    - bfloat16: uint16 bit patterns, rounded to nearest, ties to even. numpy has no such dtype.
    - uint8, int8: `floor((v - min) / ((max - min) / 255))` with the range of its dimension, less 128 for int8. Values
      outside the range become the nearest end of it; they do not wrap.
    - ubinary: uint8 [..., ceil(dim / 8)], a bit per dimension, set if the value is over 0 (Cohere's text says "0 and
      over", which differs for exact zeros only); the first dimension is the most significant bit; missing bits are 0.
    - binary: the same as int8, less 128.

    Args:
        vectors: float32 [..., dim], or a list of such arrays; then a list comes back.
        ranges: float32 [2, dim], smallest and largest value of each dimension; for int8 and uint8.

    Raises:
        InvalidRequest: an unknown type; no ranges or ranges of another size; a value too large for float16.
    """
    if output_type not in OUTPUT_TYPES:
        raise InvalidRequest(f"output type {output_type!r:.100}: known are {', '.join(OUTPUT_TYPES)}")
    if isinstance(vectors, np.ndarray):
        return _convert(np.asarray(vectors, dtype=np.float32), output_type, ranges, None)
    return [_convert(np.asarray(v, dtype=np.float32), output_type, ranges, item) for item, v in enumerate(vectors)]


def convert_scaled(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 without a model's ranges: each vector has its own scale, its largest magnitude / 127.

    Args:
        vectors: float32 [..., dim].

    Returns:
        int8 [..., dim] in -127..127, rounded to nearest, and float32 [...] scales: vector ≈ int8 * scale. The scale of
        a zero vector is 1.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    scale = np.abs(vectors).max(axis=-1, initial=0) / np.float32(127)
    scale = np.where(scale == 0, np.float32(1), scale)
    # The clip is for denormal scales, whose rounding may let a quotient pass 127.
    return np.clip(np.rint(vectors / scale[..., None]), -127, 127).astype(np.int8), scale


def restore(
    values: NDArray[Any],
    output_type: OutputType,
    *,
    ranges: NDArray[np.float32] | None = None,
    dimensions: int | None = None,
) -> NDArray[np.float32]:
    """float32 [..., dim] from what `convert` made: the very value for floats, the middle of the step for int8.

    One bit per dimension becomes ±1/√dim: rows of unit length, whose dot product is the cosine that the bits leave.

    Args:
        ranges: those that `convert` was given; for int8 and uint8.
        dimensions: of the vectors before bits were packed, where that is not 8 times the bytes.

    Raises:
        InvalidRequest: no ranges, ranges of another size, or more dimensions than there are bits.
    """
    if output_type == "bfloat16":
        widened: NDArray[np.float32] = (np.asarray(values, dtype=np.uint16).astype(np.uint32) << 16).view(np.float32)
        return widened
    if output_type in _NEEDS_RANGES:
        low, high = _checked(ranges, values.shape[-1], output_type)
        codes = values.astype(np.float32) + np.float32(128.5 if output_type == "int8" else 0.5)
        return np.asarray(low + codes * ((high - low) / STEPS), dtype=np.float32)
    if output_type in ("binary", "ubinary"):
        packed = np.ascontiguousarray(values).view(np.uint8)
        packed = packed ^ np.uint8(0x80 if output_type == "binary" else 0)
        most = 8 * packed.shape[-1]
        if dimensions is not None and not 0 < dimensions <= most:
            raise InvalidRequest(f"{dimensions} dimensions from {packed.shape[-1]} bytes: 1 to {most} are possible")
        bits = np.unpackbits(packed, axis=-1)[..., : dimensions or most].astype(np.float32)
        return np.asarray((2 * bits - 1) / np.sqrt(max(1, bits.shape[-1])), dtype=np.float32)
    return np.asarray(values).astype(np.float32)


def to_float8(vectors: NDArray[np.float32], kind: Float8) -> NDArray[np.uint8]:
    """uint8 [..., dim] bit patterns, as vLLM writes them (torch's `float8_e4m3fn` and `float8_e5m2`).

    Raises:
        InvalidRequest: the package ml-dtypes is not installed; the message names the command that installs it.
    """
    try:
        import ml_dtypes
    except ImportError:
        # To the caller it is a format that this server does not have.
        raise InvalidRequest(missing_extra("ml-dtypes", "fp8", f"the format {kind!r}").message) from None
    vectors = np.asarray(vectors, dtype=np.float32)
    if kind == "fp8_e5m2":
        return vectors.astype(ml_dtypes.float8_e5m2).view(np.uint8)
    # The largest is 448 and there is no infinity: torch saturates where ml_dtypes writes NaN.
    return np.clip(vectors, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def _convert(
    vectors: NDArray[np.float32], output_type: OutputType, ranges: NDArray[np.float32] | None, item: int | None
) -> NDArray[Any]:
    if output_type in _NEEDS_RANGES:
        return _scalar(vectors, output_type, ranges)
    if output_type == "float16":
        return _float16(vectors, item)
    return _PLAIN[output_type](vectors)


def _scalar(
    vectors: NDArray[np.float32], output_type: OutputType, ranges: NDArray[np.float32] | None
) -> NDArray[np.int8] | NDArray[np.uint8]:
    low, high = _checked(ranges, vectors.shape[-1], output_type)
    step = (high - low) / STEPS
    step = np.where(step == 0, np.float32(1), step)
    codes = np.clip(np.floor((vectors - low) / step), 0, STEPS).astype(np.uint8)
    return _signed(codes) if output_type == "int8" else codes


def _checked(ranges: NDArray[np.float32] | None, dimensions: int, output_type: str) -> NDArray[np.float32]:
    if ranges is None:
        raise InvalidRequest(f"output type {output_type!r} needs the model's ranges, and there are none")
    if ranges.shape != (2, dimensions):
        raise InvalidRequest(f"ranges have the shape {ranges.shape}; {dimensions} dimensions need (2, {dimensions})")
    return ranges.astype(np.float32, copy=False)


def _float16(vectors: NDArray[np.float32], item: int | None) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = vectors.astype(np.float16)
    if (lost := np.isinf(halves) & np.isfinite(vectors)).any():
        where = np.argwhere(lost)[0]
        item = int(where[0]) if item is None and vectors.ndim > 1 else item
        raise InvalidRequest(
            f"{'' if item is None else f'item {item}: '}the value {vectors[tuple(where)]:g} is over 65504, float16's "
            "largest; ask for float32 or bfloat16",
            item=item,
        )
    return halves


def _bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(vectors).view(np.uint32)
    # Half of the last kept bit, less one where that bit is 0: ties go to even.
    patterns = ((bits + (0x7FFF + (bits >> 16 & 1))) >> 16).astype(np.uint16)
    patterns[np.isnan(vectors)] = 0x7FC0
    return patterns


def _ubinary(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.packbits(vectors > 0, axis=-1)


def _signed(codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    return (codes ^ 0x80).view(np.int8)  # less 128


_PLAIN: dict[str, Callable[[NDArray[np.float32]], NDArray[Any]]] = {
    "float32": lambda vectors: vectors,
    "bfloat16": _bfloat16,
    "ubinary": _ubinary,
    "binary": lambda vectors: _signed(_ubinary(vectors)),
}
