"""Reads safetensors files by memory map: one store over one or several shards.

Own code because the safetensors library copies every tensor and its numpy side has no bfloat16. Arrays are
copy-on-write views of the file, so weights cost no memory until they are touched; OpenVINO and torch share only
writable memory, hence not read-only (a write would stay in this process). Families and runtimes call it;
the format is https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.hub.codes import SCALE, ZERO, Weight, floats_of, stored

_MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit

# Storage type -> bits per value; the numpy type where numpy has one.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_NUMPY = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    data: NDArray[np.uint8]  # the bytes after the header of the shard that holds it
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class TensorStore:
    """All tensors of a model, by name. Safe to read from several threads.

    Raises:
        ModelLoadError: a file is missing, truncated or not safetensors, or two shards hold the same name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(Path(p) for p in paths)
        self._entries: dict[str, _Entry] = {}
        for path in self.paths:
            for name, entry in _open(path).items():
                if name in self._entries:
                    raise ModelLoadError(f"{path}: the tensor {name!r} is also in another file of the same model")
                self._entries[name] = entry

    def names(self) -> list[str]:
        """All tensor names, in file order."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def dtype(self, name: str) -> str:
        """The storage type as safetensors writes it: "F32", "F16", "BF16", "I64" ..."""
        return self._entry(name).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def raw(self, name: str) -> NDArray[np.uint8]:
        """uint8 [bytes]: the stored bytes, little-endian, as a view of the file."""
        entry = self._entry(name)
        return entry.data[entry.start : entry.end]

    def numpy(self, name: str) -> NDArray[Any]:
        """The tensor in its own shape: a view of the file, or for bf16 and for codes with scales a float32 copy.

        Raises:
            ModelLoadError: no such tensor, or a storage type that numpy has no equal of (8-bit floats and smaller).
        """
        return floats_of(self.weight(name))

    def weight(self, name: str) -> Weight:
        """As `numpy`, but 8-bit codes that have scales stay codes, a view of the file."""
        entry = self._entry(name)
        return self._weight(name, _array(name, entry, self.raw(name), entry.shape), slice(None))

    def rows(self, name: str, places: Sequence[int]) -> NDArray[Any]:
        """[len(places), ...]: some rows of a tensor's first axis; only they are read.

        Raises:
            ModelLoadError: as `numpy`; or there are no such rows.
        """
        entry = self._entry(name)
        count = entry.shape[0]
        if not all(0 <= place < count for place in places):
            raise ModelLoadError(f"{entry.path}: tensor {name!r} has {count} rows, so none of each of {list(places)}")
        data = self.raw(name).reshape(count, -1)[list(places)].reshape(-1)
        return floats_of(self._weight(name, _array(name, entry, data, (len(places), *entry.shape[1:])), list(places)))

    def parameters(self) -> int:
        """Total count of values, of whatever type; scales and zero points of codes are not counted."""
        return sum(math.prod(entry.shape) for name, entry in self._entries.items() if not self._is_of_codes(name))

    def release_pages(self) -> None:
        """Give back the memory of what has been read: pages that are needed again come back from the file.

        For after a runtime has packed the weights into its own form. Harmless where the system cannot.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            for data in {id(entry.data): entry.data for entry in self._entries.values()}.values():
                _mapping(data).madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Forget the files. A map is released when the last view of it is gone. Idempotent."""
        self._entries = {}

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _weight(self, name: str, array: NDArray[Any], rows: slice | list[int]) -> Weight:
        """`array`, or with its scales and zero points the codes that it is; `rows` are those of the tensor in it."""
        if array.dtype != np.int8 or name + SCALE not in self._entries:
            return array
        count = math.prod(self.shape(name)[:1])
        # One for the whole tensor may be stored without axes.
        sides = (
            np.atleast_1d(self.numpy(name + side)) if name + side in self._entries else None for side in (SCALE, ZERO)
        )
        scales, zeros = (side[rows] if side is not None and len(side) == count else side for side in sides)
        assert scales is not None
        return stored(name, array, scales, zeros)

    def _is_of_codes(self, name: str) -> bool:
        return any(name.endswith(side) and name.removesuffix(side) in self._entries for side in (SCALE, ZERO))

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            files = ", ".join(str(p) for p in self.paths) or "no file"
            raise ModelLoadError(f"no tensor named {name!r} in {files}") from None


def _array(name: str, entry: _Entry, data: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[Any]:
    if entry.dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        halves = _aligned(data, 2).view("<u2")
        floats: NDArray[np.float32] = (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return floats.reshape(shape)
    if entry.dtype not in _NUMPY:
        raise ModelLoadError(f"{entry.path}: tensor {name!r} is stored as {entry.dtype}, which is not supported")
    return _aligned(data, _BITS[entry.dtype] // 8).view(_NUMPY[entry.dtype]).reshape(shape)


def _aligned(data: NDArray[np.uint8], itemsize: int) -> NDArray[np.uint8]:
    # Old writers did not pad the header; OpenVINO and torch must not be given such a view.
    return data if data.ctypes.data % itemsize == 0 else data.copy()


def _mapping(data: NDArray[np.uint8]) -> mmap.mmap:
    owner: Any = data
    while not isinstance(owner, mmap.mmap):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    return owner


def _open(path: Path) -> dict[str, _Entry]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise ModelLoadError(f"{path}: not a safetensors file: {size} bytes are less than its fixed header")
            view: NDArray[np.uint8] = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except OSError as error:
        raise ModelLoadError(f"{path}: cannot be read: {error.strerror or error}") from error
    (header_bytes,) = struct.unpack("<Q", view[:8].tobytes())
    if header_bytes > min(size - 8, _MAX_HEADER_BYTES):
        raise ModelLoadError(f"{path}: not a safetensors file, or truncated: header of {header_bytes} in {size} bytes")
    try:
        header = json.loads(view[8 : 8 + header_bytes].tobytes())
        return _entries(path, header, view[8 + header_bytes :])
    except ModelLoadError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{path}: corrupt safetensors header: {error}") from error


def _entries(path: Path, header: dict[str, Any], data: NDArray[np.uint8]) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        dtype, shape, (start, end) = info["dtype"], tuple(info["shape"]), info["data_offsets"]
        if dtype not in _BITS:
            raise ModelLoadError(f"{path}: tensor {name!r} has the unknown storage type {dtype!r}")
        if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
            raise ModelLoadError(f"{path}: tensor {name!r} has a shape or offsets that are not natural numbers")
        if end > len(data):
            raise ModelLoadError(
                f"{path}: truncated: tensor {name!r} ends at byte {end} of the data, the file has {len(data)}"
            )
        if end - start != (math.prod(shape) * _BITS[dtype] + 7) // 8:
            raise ModelLoadError(f"{path}: tensor {name!r} is {dtype} {list(shape)} but has {end - start} bytes")
        entries[name] = _Entry(path, data, dtype, shape, start, end)
    position = 0
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].start, pair[1].end)):
        if entry.start != position:
            raise ModelLoadError(f"{path}: corrupt safetensors header: a gap or an overlap before tensor {name!r}")
        position = entry.end
    if position != len(data):
        raise ModelLoadError(f"{path}: {len(data) - position} bytes after the last tensor; the file is corrupt")
    return entries
