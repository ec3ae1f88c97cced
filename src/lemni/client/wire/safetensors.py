"""Reads Lemni's raw answers: one safetensors file (https://github.com/huggingface/safetensors, "Format")."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from lemni.client.errors import BadAnswer

SAFETENSORS = "application/x-safetensors"
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I8": "i1", "U8": "u1"}
_LONGEST_HEADER = 1 << 20


def read(body: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors by name, and the metadata. BF16 becomes float32.

    Raises BadAnswer.
    """
    try:
        size = int.from_bytes(body[:8], "little")
        if len(body) < 8 or size > min(len(body) - 8, _LONGEST_HEADER):
            raise ValueError(f"a header of {size} bytes in an answer of {len(body)}")
        header = orjson.loads(body[8 : 8 + size])
        metadata = dict(header.pop("__metadata__", {}))
        tensors = {name: _tensor(body, 8 + size, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BadAnswer(f"the server's answer is not a safetensors file: {error!r}") from error
    return tensors, metadata


def _tensor(body: bytes, offset: int, entry: dict[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body) - offset:
        raise ValueError(f"bytes {start} to {end} of {len(body) - offset}")
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    if any(type(size) is not int or size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f"{end - start} bytes for the shape {shape} of {entry['dtype']}")
    # A copy: what the caller gets can be changed, and is aligned.
    values: NDArray[Any] = np.frombuffer(body, dtype, math.prod(shape), offset + start).reshape(shape).copy()
    if entry["dtype"] == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values
