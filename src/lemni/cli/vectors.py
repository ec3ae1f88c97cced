"""Writes the vectors of `lemni embed`: .npy, .jsonl, .parquet, or lines on standard output. Knows no model.

A writer is a context manager with `write(texts, vectors)`, called once per chunk and in order. Files are written
beside their place and moved there at the end, so that an interrupted run leaves none that looks complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import click
import numpy as np
from numpy.typing import NDArray

from lemni.errors import missing_extra

Vectors = NDArray[np.float32]
_SHOWN_VALUES = 4
_SHOWN_CHARACTERS = 40


class Writer(Protocol):
    """One destination."""

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Take the next chunk: float32 [texts, dimensions]."""
        ...

    def close(self) -> None:
        """All chunks have come."""
        ...


class JsonLines:
    """One object per text: `{"text": ..., "embedding": [...]}`. The stream stays open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        import orjson

        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        for text, vector in zip(texts, vectors, strict=True):
            self._stream.write(orjson.dumps({"text": text, "embedding": vector}, option=options))
        self._stream.flush()

    def close(self) -> None:
        pass


class Preview:
    """For a terminal: the text's beginning, the number of dimensions, the first values."""

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        for text, vector in zip(texts, vectors, strict=True):
            line = " ".join(text.split())
            shown = line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"
            values = ", ".join(f"{value:+.4f}" for value in vector[:_SHOWN_VALUES])
            more = ", …" if len(vector) > _SHOWN_VALUES else ""
            click.echo(f"{shown}  {len(vector)} dimensions  [{values}{more}]")

    def close(self) -> None:
        pass


class _JsonLinesFile(JsonLines):
    def __init__(self, path: Path, count: int) -> None:
        super().__init__(path.open("wb"))

    def close(self) -> None:
        self._stream.close()


class _Npy:
    """float32 [count, dimensions], filled in place on disk."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count, self._filled = path, count, 0
        self._array: Any = None

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        if self._array is None:
            shape = (self._count, vectors.shape[1])
            self._array = np.lib.format.open_memmap(self._path, mode="w+", dtype=np.float32, shape=shape)
        self._array[self._filled : self._filled + len(vectors)] = vectors
        self._filled += len(vectors)

    def close(self) -> None:
        if self._array is not None:
            self._array.flush()


class _Parquet:
    """Columns `text` and `embedding` (a list of fixed size of float32)."""

    def __init__(self, path: Path, count: int) -> None:
        try:
            import pyarrow.parquet
        except ImportError:
            raise missing_extra("pyarrow", "parquet", "Writing .parquet files") from None
        self._arrow, self._parquet = pyarrow, pyarrow.parquet
        self._path = path
        self._writer: Any = None

    def write(self, texts: Sequence[str], vectors: Vectors) -> None:
        values = self._arrow.array(np.ascontiguousarray(vectors).reshape(-1))
        lists = self._arrow.FixedSizeListArray.from_arrays(values, vectors.shape[1])
        table = self._arrow.table({"text": self._arrow.array(texts, self._arrow.string()), "embedding": lists})
        if self._writer is None:
            self._writer = self._parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


_FILES: dict[str, Callable[[Path, int], Writer]] = {
    ".npy": _Npy,
    ".jsonl": _JsonLinesFile,
    ".ndjson": _JsonLinesFile,
    ".parquet": _Parquet,
}


class FileWriter:
    """Writes `count` texts into a file whose name says how; nothing is left of it if the block fails.

    Raises:
        click.UsageError: an unknown ending, or a folder that cannot be written to.
        MissingExtra: pyarrow is needed.
    """

    def __init__(self, path: Path, count: int) -> None:
        if path.suffix.lower() not in _FILES:
            raise click.UsageError(f"{path}: the name must end in one of {', '.join(_FILES)}")
        if path.is_dir() or not path.parent.is_dir():
            raise click.UsageError(
                f"{path}: is a folder" if path.is_dir() else f"{path.parent}: there is no such folder"
            )
        self._path = path
        self._draft = path.with_name(f".{path.name}.part")
        try:
            self._writer: Writer = _FILES[path.suffix.lower()](self._draft, count)
        except OSError as error:
            raise click.UsageError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Writer:
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._writer.close()
        if kind is None:
            self._draft.replace(self._path)
        else:
            self._draft.unlink(missing_ok=True)
