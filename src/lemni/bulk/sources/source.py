"""Files of one format as a source: what every format shares. A format is a `Reader`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lemni.bulk.rows import Rows
from lemni.bulk.sources.base import Columns, Shard
from lemni.bulk.sources.files import File
from lemni.errors import InvalidRequest

_LISTED = 1000  # files that an identity names one by one


class Reader(Protocol):
    """One format. Picklable: it travels inside the shards.

    Attributes:
        format: its name.
    """

    format: str

    def check(self, files: Seq[File]) -> None:
        """Look at the files' headers or schemas and decide the columns. Called once, before everything else.

        Raises:
            InvalidRequest: a file cannot be read or lacks a column.
        """
        ...

    def random(self, file: File) -> bool:
        """Whether `cut` and `read` work for it; else it is read by `stream`, from front to end."""
        ...

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, Any]]:
        """Number of rows of each shard, `rows` but for the last, and where they are: small, picklable."""
        ...

    def read(self, file: File, where: Any, first: int, count: int) -> Rows:
        """The rows that are there; `first` is the number of the first one in the whole input."""
        ...

    def stream(self, file: File, rows: int, first: int) -> Iterator[Rows]:
        """All rows of a file, `rows` at a time."""
        ...

    def count(self, file: File) -> int | None:
        """Number of rows, if that is cheap."""
        ...


@dataclass(slots=True)
class FileShard:
    """Rows of a file that are read when they are wanted.

    Attributes:
        index: number of the shard in the input.
        first: number of its first row in the input.
        count: rows.
        where: in the file; known to the reader.
        portable: another process can load it.
    """

    index: int
    first: int
    count: int
    file: File
    where: Any
    reader: Reader
    portable: bool = True

    def load(self) -> Rows:
        rows = self.reader.read(self.file, self.where, self.first, self.count)
        if len(rows) != self.count:
            raise InvalidRequest(
                f"{self.file.name}: {self.count} rows were there, from row {self.first} on, and now {len(rows)} are; "
                "it has changed since the job began reading it"
            )
        return rows


@dataclass(slots=True)
class HeldShard:
    """Rows that were read already, because their source can only be read from front to end."""

    index: int
    first: int
    count: int
    rows: Rows
    portable: bool = False

    def load(self) -> Rows:
        return self.rows


class FileSource:
    """One or several files of one format, one after the other."""

    def __init__(self, files: Seq[File], columns: Columns, reader: Reader) -> None:
        self.files = tuple(files)
        self.columns = columns
        self.reader = reader
        self.name = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
        reader.check(self.files)
        self.random_access = all(reader.random(file) for file in self.files)

    def identity(self) -> dict[str, Any]:
        listed = [file.identity() for file in self.files]
        return {
            "format": self.reader.format,
            "files": listed if len(listed) <= _LISTED else {"count": len(listed), "sha256": _digest(listed)},
            "columns": identity_of(self.columns),
        }

    def count(self) -> int | None:
        total = 0
        for file in self.files:
            count = self.reader.count(file)
            if count is None:
                return None
            total += count
        return total

    def size(self) -> int | None:
        """Bytes; None if some are compressed, which says nothing of their rows."""
        sizes = [None if file.compression else file.size for file in self.files]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    def shards(self, rows: int) -> Iterator[Shard]:
        index = first = 0
        for file in self.files:
            if self.reader.random(file):
                for count, where in self.reader.cut(file, rows):
                    yield FileShard(index, first, count, file, where, self.reader)
                    index += 1
                    first += count
            else:
                for held in self.reader.stream(file, rows, first):
                    yield HeldShard(index, first, len(held), held)
                    index += 1
                    first += len(held)


def identity_of(columns: Columns) -> dict[str, Any]:
    """As JSON gives it back."""
    return {**asdict(columns), "carry": None if columns.carry is None else list(columns.carry)}


def _digest(listed: Seq[dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for file in listed:
        digest.update(f"{file['path']}\0{file['size']}\0{file['stamp']}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
