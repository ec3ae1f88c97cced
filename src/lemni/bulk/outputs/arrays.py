"""What .npy, .npz and .safetensors share: vectors and ids as arrays. They hold no texts and no other columns.

A part is a safetensors file: the arrays of `flat`, and ids as `ids` int64 where all are whole numbers, else as
`ids_utf8` and `ids_lengths`. In its metadata stands what the ids need, so that a plan reads headers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.bulk.outputs import tensors
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.file import FileOutput
from lemni.bulk.outputs.flat import flat, number, types_of, width_of
from lemni.bulk.outputs.tensors import Array, Stored, whole
from lemni.bulk.rows import Id, Rows, Vectors

# Longer ids would make an array of texts of equal width too large.
LONGEST = 256
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Ids:
    """How the ids of some parts are kept.

    Attributes:
        text: whether one is no whole number of 64 bits.
        width: characters of the longest.
        even: whether numpy's texts of equal width hold them: none is over `LONGEST`, or ends with the character 0.
    """

    text: bool = False
    width: int = 1
    even: bool = True


class ArrayOutput(FileOutput):
    """`_save` writes arrays into the format's file."""

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        arrays = flat(vectors, len(rows), made)
        ids, facts = _id_arrays(rows.ids)
        with part.open("wb") as file:
            tensors.write(file, [whole(name, array) for name, array in {**arrays, **ids}.items()], facts)

    def plan(self, parts: Seq[Path]) -> Ids:
        ids = Ids()
        for part in parts:
            stored, facts = tensors.read(part)
            width = int(facts["width"])
            ids = Ids(ids.text or ("ids" not in stored), max(ids.width, width), ids.even and facts["even"] == "yes")
        return ids


def vector_arrays(parts: Seq[dict[str, Stored]], made: Made) -> list[Array]:
    """The parts' vectors, joined."""

    def joined(name: str, dtype: np.dtype[Any]) -> Array:
        rows = sum(part[name].shape[0] for part in parts)
        shape = (rows, width_of(made)) if name == "vectors" else (rows,)
        return Array(name, dtype, shape, lambda: (some for part in parts for some in part[name].chunks()))

    return [joined(name, dtype) for name, dtype in types_of(made).items()]


def id_arrays(parts: Seq[dict[str, Stored]], ids: Ids, *, even: bool) -> list[Array]:
    """The parts' ids: `ids` int64 [rows]; or, for texts, `ids` of equal width [rows] where `even` is allowed and holds
    them; or `ids_utf8` uint8 [bytes] with `ids_offsets` int64 [rows + 1], between two of which an id's bytes are."""
    rows = sum((part["ids"] if "ids" in part else part["ids_lengths"]).shape[0] for part in parts)
    if not ids.text:
        return [Array("ids", number("int64"), (rows,), lambda: (c for part in parts for c in part["ids"].chunks()))]
    if even and ids.even:
        dtype = np.dtype(f"<U{ids.width}")
        return [Array("ids", dtype, (rows,), lambda: (np.array(_texts(part), dtype).tobytes() for part in parts))]
    size = sum(int(lengths.sum()) for lengths in _lengths(parts))
    return [
        Array("ids_offsets", number("int64"), (rows + 1,), lambda: _offsets(parts)),
        Array("ids_utf8", number("uint8"), (size,), lambda: ("".join(_texts(part)).encode(*_UTF8) for part in parts)),
    ]


# The ids of some inputs have halves of surrogate pairs.
_UTF8 = ("utf-8", "surrogatepass")


def _id_arrays(ids: Seq[Id]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """A part's ids, and its metadata."""
    width = max((len(str(one)) for one in ids), default=1)
    if all(isinstance(one, int) and _INT64.min <= one <= _INT64.max for one in ids):
        return {"ids": np.array(ids, number("int64"))}, {"width": str(width), "even": "yes"}
    encoded = [str(one).encode(*_UTF8) for one in ids]
    even = width <= LONGEST and not any(one.endswith(b"\0") for one in encoded)
    return {
        "ids_lengths": np.array([len(one) for one in encoded], number("int32")),
        "ids_utf8": np.frombuffer(b"".join(encoded), number("uint8")),
    }, {"width": str(max(width, 1)), "even": "yes" if even else "no"}


def _texts(part: dict[str, Stored]) -> list[str]:
    if "ids" in part:
        return [str(one) for one in part["ids"].load().tolist()]
    data, ends = part["ids_utf8"].load().tobytes(), np.cumsum(part["ids_lengths"].load(), dtype=np.int64).tolist()
    return [data[start:end].decode(*_UTF8) for start, end in zip([0, *ends], ends, strict=False)]


def _lengths(parts: Iterable[dict[str, Stored]]) -> Iterator[NDArray[Any]]:
    """Bytes of each id, a part at a time."""
    for part in parts:
        if "ids" in part:
            yield np.array([len(text) for text in _texts(part)], np.int64)
        else:
            yield part["ids_lengths"].load().astype(np.int64)


def _offsets(parts: Iterable[dict[str, Stored]]) -> Iterator[bytes]:
    at = 0
    yield bytes(8)
    for lengths in _lengths(parts):
        ends = np.cumsum(lengths, dtype=number("int64")) + at
        if len(ends):
            at = int(ends[-1])
        yield ends.tobytes()
