"""Vectors as JSON text, row by row and without a Python object per number. Every dialect writes vectors with it."""

from __future__ import annotations

import asyncio
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

LARGE_BYTES = 1 << 18
"""Vectors of this size take about a millisecond to write; from there on a thread does it."""

_Written = TypeVar("_Written")


def base64_rows(vectors: NDArray[np.float32]) -> Iterable[bytes]:
    """Each row as a JSON string: the base64 of its little-endian float32 values."""
    little = np.ascontiguousarray(vectors, dtype="<f4")
    return (b'"%b"' % b2a_base64(row.data, newline=False) for row in little)


def float_rows(vectors: NDArray[np.float32]) -> Iterable[bytes]:
    """Each row as a JSON list of numbers, as short as float32 allows."""
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    return (orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows)


async def off_the_loop(size: int, write: Callable[..., _Written], *args: Any) -> _Written:
    """`write(*args)`, in a thread if it is about `size` bytes of vectors and they are many: others are not held up."""
    if size < LARGE_BYTES:
        return write(*args)
    return await asyncio.to_thread(write, *args)
