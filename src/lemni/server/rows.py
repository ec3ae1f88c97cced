"""Vectors as JSON text or raw bytes, row by row and without a Python object per number. Every dialect writes with it.

Rows come as `lemni.tasks.output_types.convert` leaves them: one array [n, dim] whose rows are written one by one, or a
sequence of arrays, one per item, where [tokens, dim] becomes a nested list. Knows no dialect's envelope.
"""

from __future__ import annotations

import asyncio
import math
import sys
from binascii import b2a_base64
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np
import orjson
from numpy.typing import NDArray

from lemni.tasks.output_types import Float8, OutputType, Rows, convert, restore, to_float8

LARGE_BYTES = 1 << 18
"""Vectors of this size take about a millisecond to write; from there on a thread does it."""

EmbedDtype: TypeAlias = Literal["float32", "float16", "bfloat16"] | Float8
"""vLLM's `embed_dtype`."""

Endianness: TypeAlias = Literal["native", "big", "little"]

_Written = TypeVar("_Written")

_LITTLE = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int8": "i1",
    "uint8": "u1",
    "binary": "i1",
    "ubinary": "u1",
}


class RowBytes(NamedTuple):
    """Where a row lies in the concatenated bytes: an element of vLLM's `metadata` header.

    Attributes:
        start: its first byte.
        end: the byte after its last.
        shape: [dim] or [tokens, dim].
    """

    start: int
    end: int
    shape: tuple[int, ...]


def base64_rows(vectors: Rows, output_type: OutputType = "float32") -> Iterable[bytes]:
    """Each row as a JSON string: the base64 of its little-endian values, row-major, in the bytes of its output type.

    As OpenAI writes float32, and Voyage the bytes of its `output_dtype`.
    """
    return (base64_string(np.ascontiguousarray(row, dtype=_LITTLE[output_type])) for row in vectors)


def base64_string(values: NDArray[Any] | bytes) -> bytes:
    """The JSON string with the base64 of bytes, or of a C-contiguous array's."""
    return b'"%b"' % b2a_base64(values if isinstance(values, bytes) else values.data, newline=False)


def base64_matrices(matrices: Iterable[NDArray[np.float32]], shape_key: bytes = b"shape") -> Iterable[bytes]:
    """Each matrix [tokens, dim] as `base64_rows` does, and its shape as the field after it: `"...","shape":[2,128]`."""
    for matrix in matrices:
        yield b'%b,"%b":[%d,%d]' % (base64_string(np.ascontiguousarray(matrix, dtype="<f4")), shape_key, *matrix.shape)


def float_rows(vectors: Rows, output_type: OutputType = "float32") -> Iterable[bytes]:
    """Each row as a JSON list of numbers (or of lists, if it is a matrix): as short as its type allows, or integers."""
    return map(_numbers, _rows(vectors, output_type))


def sparse_rows(vectors: Iterable[tuple[NDArray[np.int32], NDArray[np.float32]]]) -> Iterable[bytes]:
    """Each pair of indices and values as `{"indices": [...], "values": [...]}`."""
    return (b'{"indices":%b,"values":%b}' % (_numbers(indices), _numbers(values)) for indices, values in vectors)


def sparse_pair_rows(vectors: Iterable[tuple[NDArray[np.int32], NDArray[np.float32]]]) -> Iterable[bytes]:
    """Each pair of indices and values as TEI's `[{"index": 12, "value": 0.5}, ...]`."""
    for indices, values in vectors:
        numbers = zip(_numbers(indices)[1:-1].split(b","), _numbers(values)[1:-1].split(b","), strict=True)
        yield b"[%b]" % b",".join([b'{"index":%b,"value":%b}' % pair for pair in numbers]) if len(indices) else b"[]"


def raw_rows(
    vectors: NDArray[np.float32] | Seq[NDArray[np.float32]],
    embed_dtype: EmbedDtype = "float32",
    endianness: Endianness = "little",
) -> list[bytes]:
    """Each float32 row as vLLM's bytes: row-major, in its `embed_dtype` and `endianness`; joined they are its body.

    Raises:
        InvalidRequest: 8-bit floats without the package ml-dtypes; a value too large for float16.
    """
    if embed_dtype in get_args(Float8):
        return [to_float8(row, embed_dtype).tobytes() for row in vectors]  # type: ignore[arg-type]
    order = sys.byteorder if endianness == "native" else endianness
    code = np.dtype(_LITTLE[embed_dtype]).newbyteorder("<" if order == "little" else ">")
    return [row.astype(code, copy=False).tobytes() for row in convert(vectors, embed_dtype)]  # type: ignore[arg-type]


def row_bytes(vectors: Rows, embed_dtype: EmbedDtype = "float32") -> list[RowBytes]:
    """Where each row of `raw_rows` lies in the joined bytes."""
    size = {"float32": 4, "float16": 2, "bfloat16": 2}.get(embed_dtype, 1)
    places: list[RowBytes] = []
    end = 0
    for row in vectors:
        start, end = end, end + size * math.prod(row.shape)
        places.append(RowBytes(start, end, row.shape))
    return places


async def off_the_loop(size: int, write: Callable[..., _Written], *args: Any) -> _Written:
    """`write(*args)`, in a thread if it is about `size` bytes of vectors and they are many: others are not held up."""
    if size < LARGE_BYTES:
        return write(*args)
    return await asyncio.to_thread(write, *args)


def _rows(vectors: Rows, output_type: OutputType) -> Iterator[NDArray[Any]]:
    if output_type == "bfloat16":
        return (restore(row, "bfloat16") for row in vectors)
    native = np.dtype(_LITTLE[output_type]).newbyteorder("=")
    return (np.asarray(row, dtype=native) for row in vectors)


def _numbers(values: NDArray[Any]) -> bytes:
    # orjson reads only C-contiguous arrays in the machine's byte order.
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
