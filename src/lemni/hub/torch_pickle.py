"""Reads a small file of `torch.save` without torch and without running what is in it.

Such a file is a zip archive: a pickle that names tensors, and their bytes. The pickle may hold nothing but dictionaries
of tensors of floats: every opcode is looked at before anything is loaded, and only names that rebuild such a
tensor mean something here. For layers beside a model's weights, as BGE-M3 has them; weights of whole models are
not read this way. Format: torch, `torch/serialization.py` (`_save`), `torch/_utils.py` (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError

_MAX_PICKLE_BYTES = 1 << 20
_MAX_BYTES = 1 << 30
_MAX_MEMO = 100_000  # a memo's index is taken for a list's length

# Storage class of torch -> numpy type of its bytes; bfloat16 is the upper half of a float32.
_STORAGES = {"FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2", "DoubleStorage": "f8"}
_OPCODES = frozenset((
    "PROTO", "STOP", "MARK", "POP", "GLOBAL", "REDUCE", "BUILD", "BINPERSID",
    "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
))  # fmt: skip
# What a damaged or made-up file raises.
_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, pickle.UnpicklingError, ValueError, TypeError,
    KeyError, IndexError, AttributeError, RecursionError, OverflowError, MemoryError, NotImplementedError,
)  # fmt: skip


class _Storage(NamedTuple):
    kind: Any
    key: Any


class _Tensor(NamedTuple):
    storage: Any
    offset: Any
    shape: Any
    strides: Any


class _Kind(NamedTuple):
    """A storage class; no callable, so that it cannot be called."""

    name: str


def read_torch(path: Path) -> dict[str, NDArray[np.floating[Any]]]:
    """The tensors of a dictionary (`state_dict`) by name, in their own types, bfloat16 as float32.

    Raises:
        ModelLoadError: not such a file, or anything else than floats is in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive).tensors()
    except ModelLoadError as error:
        raise ModelLoadError(f"{path}: {error.message}") from error
    except _ERRORS as error:
        raise ModelLoadError(f"{path}: not a file of torch.save that Lemni reads: {error!r}") from error


class _Reader:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        [self._pickle] = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        self._folder = self._pickle.rpartition("/")[0]
        order = f"{self._folder}/byteorder"
        self._order = ">" if order in archive.namelist() and self._entry(order, 16) == b"big" else "<"

    def tensors(self) -> dict[str, NDArray[np.floating[Any]]]:
        content = self._entry(self._pickle, _MAX_PICKLE_BYTES)
        _check(content)
        found = _Unpickler(io.BytesIO(content)).load()
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise ModelLoadError("holds no dictionary of tensors")
        return {name: self._tensor(name, value) for name, value in found.items()}

    def _entry(self, name: str, limit: int) -> bytes:
        info = self._archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
            raise ModelLoadError(f"{name} is compressed, or over {limit} bytes")
        return self._archive.read(info)

    def _tensor(self, name: str, value: Any) -> NDArray[np.floating[Any]]:
        if not isinstance(value, _Tensor) or not isinstance(value.storage, _Storage):
            raise ModelLoadError(f"{name!r} is no tensor")
        kind, key = value.storage
        if not isinstance(kind, _Kind) or not isinstance(key, str):
            raise ModelLoadError(f"{name!r} has no storage of floats")
        stored = np.frombuffer(
            self._entry(f"{self._folder}/data/{key}", _MAX_BYTES), self._order + _STORAGES[kind.name]
        )
        shape, strides, offset = _places(value.shape), _places(value.strides), _place(value.offset)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 in shape:
            return np.zeros(shape, dtype=np.float32)
        # No larger than what is stored, so that a stride of 0 makes no gigabytes out of nothing.
        if last >= len(stored) or math.prod(shape) > len(stored):
            raise ModelLoadError(f"{name!r} reaches beyond its {len(stored)} stored values")
        view = np.lib.stride_tricks.as_strided(
            stored[offset:], shape, [stride * stored.itemsize for stride in strides], writeable=False
        )
        if kind.name == "BFloat16Storage":
            floats: NDArray[np.float32] = (view.astype(np.uint32) << np.uint32(16)).view(np.float32)
            return floats
        return np.array(view, dtype=view.dtype.newbyteorder("="), order="C")


def _check(content: bytes) -> None:
    """Raises ModelLoadError for what no dictionary of tensors needs: pickles are small programs."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise ModelLoadError(f"the pickle has the opcode {opcode.name}, which no dictionary of tensors needs")
        if opcode.name == "LONG_BINPUT" and argument is not None and argument > _MAX_MEMO:
            raise ModelLoadError(f"the pickle has a memo of {argument}")


class _Unpickler(pickle.Unpickler):
    """Knows the few names that rebuild a tensor; everything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _Kind(name)
        # Functions are made anew for each file: what a pickle can do to them must not outlive it.
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *parts: _Tensor(*parts[:4]),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
        }
        if (module, name) not in known:
            raise ModelLoadError(f"the pickle names {module}.{name}; only tensors of floats are read")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        word, kind, key, *_ = pid
        if word != "storage":
            raise ModelLoadError(f"the pickle refers to {word!r}")
        return _Storage(kind, key)


def _places(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple):
        raise TypeError(f"{values!r} is no shape")
    return tuple(map(_place, values))


def _place(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no natural number")
    return value
