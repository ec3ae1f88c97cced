"""What the formats without a schema share: records one after the other, from a file, or from standard input."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from itertools import islice
from typing import Any, BinaryIO

from lemni.bulk.rows import Rows
from lemni.bulk.sources.base import Columns, Shard
from lemni.bulk.sources.cells import Record, check_carry, rows_of
from lemni.bulk.sources.files import File, failed, folder_of, is_web, open_plain
from lemni.bulk.sources.source import HeldShard, identity_of
from lemni.errors import InvalidRequest, LemniError

MAX_LINE_BYTES = 256 << 20
"""Of a line of text; a longer one is no text, and would fill the memory."""

BOM = b"\xef\xbb\xbf"
_CARRY_CHECKED = 1000  # records of an input that are asked for a field


class Records:
    """A reader of records. A format says how they are found in a stream (`records`), and, if it can be cut, how
    (`cut`) and what is in a part (`part`)."""

    format = ""
    splits = False  # whether it can be cut

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def records(self, handle: BinaryIO, name: str) -> Iterator[Record]:
        """All, from a stream that is read once, from front to end."""
        raise NotImplementedError

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, Any]]:
        raise NotImplementedError

    def part(self, file: File, where: Any) -> Seq[Record]:
        """Those of a part that `cut` named."""
        raise NotImplementedError

    def check(self, files: Seq[File]) -> None:
        if not self.columns.carry:
            return
        with open_plain(files[0]) as handle:
            found = list(islice(_guarded(self.records(handle, files[0].name), files[0].path), _CARRY_CHECKED))
        check_carry(found, self.columns, files[0].name)

    def random(self, file: File) -> bool:
        """Not over HTTP: many servers send whole files only."""
        return self.splits and file.compression is None and not is_web(file.path)

    def read(self, file: File, where: Any, first: int, count: int) -> Rows:
        return rows_of(self.part(file, where), first, self.columns, folder_of(file.path))

    def stream(self, file: File, rows: int, first: int) -> Iterator[Rows]:
        with open_plain(file) as handle:
            records = _guarded(self.records(handle, file.name), file.path)
            for number, found in numbered(records, rows, first):
                yield rows_of(found, number, self.columns, folder_of(file.path))

    def count(self, file: File) -> int | None:
        return None


def numbered(records: Iterable[Record], rows: int, first: int) -> Iterator[tuple[int, list[Record]]]:
    """`rows` of them at a time, each time with the number of the first one."""
    every = iter(records)
    while found := list(islice(every, rows)):
        yield first, found
        first += len(found)


def _guarded(records: Iterator[Record], place: str) -> Iterator[Record]:
    """What a decompressor or a remote file raises, in words."""
    try:
        yield from records
    except LemniError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise failed(place, error) from None
    except Exception as error:
        if type(error).__module__.startswith(("builtins", "lemni")):  # ours
            raise
        raise failed(place, error) from None


class StreamSource:
    """Standard input, or another stream that can be read once."""

    random_access = False
    rereadable = False

    def __init__(self, handle: BinaryIO, columns: Columns, reader: Records, name: str = "standard input") -> None:
        self.name = name
        self.columns = columns
        self._handle: BinaryIO | None = handle
        self._reader = reader

    def identity(self) -> dict[str, Any]:
        return {"format": self._reader.format, "files": "-", "columns": identity_of(self.columns)}

    def count(self) -> int | None:
        return None

    def size(self) -> int | None:
        return None

    def shards(self, rows: int) -> Iterator[Shard]:
        """Raises InvalidRequest if it was read before."""
        if self._handle is None:
            raise InvalidRequest(f"{self.name}: can be read only once")
        handle, self._handle = self._handle, None
        every = _guarded(self._reader.records(handle, self.name), self.name)
        head = list(islice(every, _CARRY_CHECKED)) if self.columns.carry else []
        check_carry(head, self.columns, self.name)
        batches = numbered((record for part in (head, every) for record in part), rows, 0)
        for index, (first, found) in enumerate(batches):
            yield HeldShard(index, first, len(found), rows_of(found, first, self.columns, "."))
