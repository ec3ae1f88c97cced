"""Writes what `lemni embed` made: .npy, .npz, .jsonl, .parquet, or lines on standard output. Knows no model.

Vectors are dense (an array with a row per text), sparse (a `SparseVector` per text) or multi-vectors (a matrix per
text); which files hold which is said in one table. A writer gets them once per chunk and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import click
import numpy as np
from numpy.typing import NDArray

from lemni.cli.drafts import Draft
from lemni.cli.rows import JsonLines, RowWriter
from lemni.cli.terminal import shortened
from lemni.errors import missing_extra
from lemni.types import SparseVector, Task

Vectors: TypeAlias = NDArray[Any] | Sequence[SparseVector] | Sequence[NDArray[Any]]
"""[texts, dimensions], or a vector of the other kinds for each text."""

_SHOWN_VALUES = 4
_SHOWN_CELLS = 40


class Writer(Protocol):
    """One destination."""

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Take the next chunk."""
        ...

    def close(self) -> None:
        """All chunks have come."""
        ...


class VectorRows:
    """A row per text, `{"text": ..., "embedding": ...}`: numbers, lists of them, or `{"indices": [], "values": []}`."""

    def __init__(self, rows: RowWriter) -> None:
        self._rows = rows

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        self._rows.write({"text": t, "embedding": _json(vector)} for t, vector in zip(texts, vectors, strict=True))

    def close(self) -> None:
        self._rows.close()


def _json(vector: NDArray[Any] | SparseVector) -> Any:
    return vector._asdict() if isinstance(vector, SparseVector) else vector


class Preview:
    """For a terminal: the text's beginning, the vector's size, its first values."""

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        for text, vector in zip(texts, vectors, strict=True):
            click.echo(f"{shortened(text, _SHOWN_CELLS)}  {_size(vector)}  [{_beginning(vector)}]")

    def close(self) -> None:
        pass


def _size(vector: NDArray[Any] | SparseVector) -> str:
    if isinstance(vector, SparseVector):
        return f"{len(vector.indices)} terms"
    if vector.ndim == 2:
        return f"{vector.shape[0]} vectors of {vector.shape[1]} dimensions"
    return f"{len(vector)} {'integers' if vector.dtype.kind in 'iu' else 'dimensions'}"


def _beginning(vector: NDArray[Any] | SparseVector) -> str:
    if isinstance(vector, SparseVector):
        # The heaviest terms say more than the first ones.
        order = np.argsort(-vector.values, kind="stable")
        values = [f"{vector.indices[i]}: {vector.values[i]:.4f}" for i in order[:_SHOWN_VALUES]]
    elif vector.dtype.kind in "iu":
        values = [str(value) for value in vector[:_SHOWN_VALUES]]
    else:
        values = [f"{value:+.4f}" for value in vector.reshape(-1)[:_SHOWN_VALUES]]
    size = vector.indices.size if isinstance(vector, SparseVector) else vector.size
    return ", ".join([*values, *(["…"] if size > _SHOWN_VALUES else [])])


class _Npy:
    """[count, dimensions], filled in place on disk."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count, self._filled = path, count, 0
        self._array: Any = None

    def write(self, texts: Sequence[str], vectors: Any) -> None:
        if self._array is None:
            shape = (self._count, vectors.shape[1])
            self._array = np.lib.format.open_memmap(self._path, mode="w+", dtype=vectors.dtype, shape=shape)
        self._array[self._filled : self._filled + len(vectors)] = vectors
        self._filled += len(vectors)

    def close(self) -> None:
        if self._array is not None:
            self._array.flush()


class _Parquet:
    """Columns `text` and `embedding` (a list of fixed size, of numbers of the vectors' type)."""

    def __init__(self, path: Path, count: int) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise missing_extra("pyarrow", "parquet", "Writing .parquet files") from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path = path
        self._writer: Any = None

    def write(self, texts: Sequence[str], vectors: Any) -> None:
        values = self._arrow.array(np.ascontiguousarray(vectors).reshape(-1))
        lists = self._arrow.FixedSizeListArray.from_arrays(values, vectors.shape[1])
        table = self._arrow.table({"text": self._arrow.array(texts, self._arrow.string()), "embedding": lists})
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class _Npz:
    """Arrays laid end to end, written at the end; `lengths` int32 [texts] tells where each text's begin.

    Sparse: `indices`, `values`; multi-vectors: `vectors` [all tokens, dimensions].
    """

    def __init__(self, path: Path, count: int) -> None:
        self._file = path.open("wb")
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._lengths: list[int] = []

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        for vector in vectors:
            arrays = vector._asdict() if isinstance(vector, SparseVector) else {"vectors": vector}
            for name, array in arrays.items():
                self._parts.setdefault(name, []).append(array)
            self._lengths.append(len(next(iter(arrays.values()))))

    def close(self) -> None:
        with self._file:
            joined: dict[str, Any] = {name: np.concatenate(parts) for name, parts in self._parts.items()}
            np.savez(self._file, lengths=np.array(self._lengths, dtype=np.int32), **joined)


def _json_lines(path: Path, count: int) -> Writer:
    return VectorRows(JsonLines(path.open("wb"), owned=True))


_FILES: dict[str, Callable[[Path, int], Writer]] = {
    ".npy": _Npy,
    ".npz": _Npz,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _Parquet,
}
ENDINGS = tuple(_FILES)

# What a model makes -> its name in messages, and the files that hold it.
_HELD: dict[Task, tuple[str, tuple[str, ...]]] = {
    "embed": ("dense vectors", (".npy", ".jsonl", ".ndjson", ".parquet")),
    "sparse": ("sparse vectors", (".npz", ".jsonl", ".ndjson")),
    "multi_vector": ("a vector per token", (".npz", ".jsonl", ".ndjson")),
}


def check_holds(path: Path, task: Task, model: str) -> None:
    """Raises click.UsageError where a file of this ending does not hold what the model gives."""
    what, endings = _HELD[task]
    if path.suffix.lower() not in endings:
        raise click.UsageError(f"{path}: {model} gives {what}, which are written to {', '.join(endings)}")


def file_writer(path: Path, count: int) -> Draft[Writer]:
    """Writes the vectors of `count` texts into a file whose name says how.

    Raises:
        click.UsageError: a folder that cannot be written to.
        MissingExtra: pyarrow is needed.
    """
    return Draft(path, lambda draft: _FILES[path.suffix.lower()](draft, count))
