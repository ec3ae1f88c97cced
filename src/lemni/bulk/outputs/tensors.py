"""safetensors files read and written in pieces (https://github.com/huggingface/safetensors, "Format"): eight bytes with
the length of the header, the header as JSON, the tensors' bytes.

The package of that name writes what is in memory only. Knows nothing of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from lemni.bulk.outputs.drafts import slices

_NAMES = {"<f4": "F32", "<f2": "F16", "|i1": "I8", "|u1": "U8", "<i4": "I32", "<i8": "I64"}
_TYPES = {name: np.dtype(code) for code, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class Array:
    """An array that is written in pieces.

    Attributes:
        chunks: makes its bytes from the beginning, as often as it is called.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes | memoryview]]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: where its bytes are."""

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int

    def chunks(self) -> Iterable[bytes]:
        return slices(self.path, self.start, self.stop)

    def load(self) -> NDArray[Any]:
        return np.frombuffer(b"".join(self.chunks()), self.dtype).reshape(self.shape)


def whole(name: str, array: NDArray[Any]) -> Array:
    """One that is in memory."""
    return Array(name, array.dtype, array.shape, lambda: [array.tobytes()])


def write(file: BinaryIO, arrays: Seq[Array], metadata: Mapping[str, str]) -> None:
    """A whole file. The widest numbers come first, so that every tensor begins at a multiple of its number's size."""
    ordered = sorted(arrays, key=lambda array: (-array.dtype.itemsize, array.name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for array in ordered:
        header[array.name] = {
            "dtype": _NAMES[array.dtype.str],
            "shape": array.shape,
            "data_offsets": (at, at + array.size),
        }
        at += array.size
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in ordered:
        for some in array.chunks():
            file.write(some)


def read(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    """A file's tensors by name, and its metadata."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = orjson.loads(file.read(size))
    metadata = header.pop("__metadata__", {})
    return {
        name: Stored(
            path,
            _TYPES[entry["dtype"]],
            tuple(entry["shape"]),
            8 + size + entry["data_offsets"][0],
            8 + size + entry["data_offsets"][1],
        )
        for name, entry in header.items()
    }, metadata
