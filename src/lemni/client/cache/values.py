"""Vectors as the bytes that a store holds, and back: any store, any process, no pickle.

A value, little-endian:

    crc32 u4 | version u1 | dtype u1 | axes u1 | 0 u1 | shape u4 x axes | numbers, row by row

The checksum is over all that follows it. What is damaged, or was written by another version, reads as None.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest

_VERSION = 1
_HEAD = struct.Struct("<BBBx")
_CHECKSUM = struct.Struct("<I")
# Numbers in the file; new ones go to the end.
_DTYPES = tuple(np.dtype(name) for name in ("<f4", "<f2", "i1", "u1", "<f8"))
_CODES = {dtype: code for code, dtype in enumerate(_DTYPES)}
_AXES = (1, 2)


def to_bytes(array: NDArray[Any]) -> bytes:
    """A vector or a multi-vector as bytes.

    Args:
        array: [dimensions] or [tokens, dimensions]; float32, float16, int8, uint8 or float64.

    Raises:
        InvalidRequest: another dtype, or another number of axes.
    """
    dtype = array.dtype.newbyteorder("<")
    if dtype not in _CODES or array.ndim not in _AXES:
        raise InvalidRequest(
            "the cache keeps float32, float16, float64, int8 and uint8 with 1 or 2 axes, "
            f"not {array.dtype} {array.shape}"
        )
    body = b"".join(
        (
            _HEAD.pack(_VERSION, _CODES[dtype], array.ndim),
            struct.pack(f"<{array.ndim}I", *array.shape),
            np.ascontiguousarray(array, dtype).tobytes(),
        )
    )
    return _CHECKSUM.pack(zlib.crc32(body)) + body


def from_bytes(value: bytes) -> NDArray[Any] | None:
    """The array as a copy that its owner may write to; None for bytes that `to_bytes` did not make."""
    start = _CHECKSUM.size + _HEAD.size
    if len(value) < start or _CHECKSUM.unpack_from(value)[0] != zlib.crc32(memoryview(value)[_CHECKSUM.size :]):
        return None
    version, code, axes = _HEAD.unpack_from(value, _CHECKSUM.size)
    data = start + 4 * axes
    if version != _VERSION or code >= len(_DTYPES) or axes not in _AXES or len(value) < data:
        return None
    shape = struct.unpack_from(f"<{axes}I", value, start)
    dtype = _DTYPES[code]
    if len(value) - data != math.prod(shape) * dtype.itemsize:
        return None
    return np.frombuffer(value, dtype, offset=data).reshape(shape).astype(dtype.newbyteorder("="))
