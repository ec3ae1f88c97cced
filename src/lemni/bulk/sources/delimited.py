"""CSV and TSV with a header, as `csv.reader` reads them: quoted fields may hold line ends.

Rows are found in bytes taken for Latin-1, in which no byte is wrong and separators, quotes and line ends are what they
are in UTF-8; only then are the fields decoded. A row that is no UTF-8 breaks by itself.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any, BinaryIO, NamedTuple

from lemni.bulk.rows import Broken
from lemni.bulk.sources.cells import Record, check_columns
from lemni.bulk.sources.files import File, failed, open_plain, open_raw, read_range
from lemni.bulk.sources.lines import without_bom
from lemni.bulk.sources.records import MAX_LINE_BYTES, Records
from lemni.errors import InvalidRequest

MAX_FIELD_BYTES = 64 << 20
_END = "\x1e end of file \x1e"  # handed to csv.reader behind the last line, to see whether a quote is open


class Part(NamedTuple):
    """Bytes `start` to before `end`, which begin in line `line` of the file; the header's names."""

    start: int
    end: int
    line: int
    header: tuple[str, ...]


class Csv(Records):
    """Fields between commas."""

    format = "csv"
    delimiter = ","
    splits = True

    def check(self, files: Seq[File]) -> None:
        for file in files:
            with open_plain(file) as handle:
                try:
                    header, _ = self._header(_Lines(handle, file.name), file.name)
                except InvalidRequest:
                    raise
                except Exception as error:
                    raise failed(file.path, error) from None
            if header:
                check_columns(header, self.columns, file.name)

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, Part]]:
        with open_raw(file) as handle:
            try:
                lines = _Lines(handle, file.name)
                header, found = self._header(lines, file.name)
                begun, begun_line, have = lines.at, lines.line, 0
                for _row, _line in found:
                    have += 1
                    if have == rows:
                        yield have, Part(begun, lines.at, begun_line, header)
                        begun, begun_line, have = lines.at, lines.line, 0
                if have:
                    yield have, Part(begun, lines.at, begun_line, header)
            except InvalidRequest:
                raise
            except Exception as error:
                raise failed(file.path, error) from None

    def part(self, file: File, where: Any) -> Seq[Record]:
        lines = _Lines(io.BytesIO(read_range(file, where.start, where.end)), file.name, where.line)
        return [self._record(row, where.header, line) for row, line in table_rows(lines, self.delimiter, file.name)]

    def records(self, handle: BinaryIO, name: str) -> Iterator[Record]:
        header, found = self._header(_Lines(handle, name), name)
        if header:
            check_columns(header, self.columns, name)
        for row, line in found:
            yield self._record(row, header, line)

    def _header(self, lines: _Lines, name: str) -> tuple[tuple[str, ...], Iterator[tuple[list[str] | csv.Error, int]]]:
        """The names of the first row, and the rows behind it. None of a file without anything."""
        found = table_rows(lines, self.delimiter, name)
        first = next(found, None)
        if first is None:
            return (), found
        try:
            if isinstance(first[0], csv.Error):
                raise InvalidRequest(f"{name}: its header is not CSV: {first[0]}")
            return tuple(_decoded(first[0])), found
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"{name}: its header is not UTF-8: {error}") from None

    def _record(self, row: list[str] | csv.Error, header: tuple[str, ...], line: int) -> Record:
        if isinstance(row, csv.Error):
            return Broken(f"line {line} is not CSV: {row}")
        if len(row) > len(header):
            return Broken(f"line {line} has {len(row)} fields and the header {len(header)}")
        try:
            fields: list[str | None] = [*_decoded(row)]
        except UnicodeDecodeError as error:
            return Broken(f"line {line} is not UTF-8: byte 0x{error.object[error.start]:02x} in one of its fields")
        return dict(zip(header, fields + [None] * (len(header) - len(row)), strict=True))


class Tsv(Csv):
    """Fields between tabs."""

    format = "tsv"
    delimiter = "\t"


def _decoded(row: list[str]) -> list[str]:
    return [field if field.isascii() else field.encode("latin-1").decode() for field in row]


class _Lines:
    """The lines of a stream of bytes as Latin-1, and behind the last one `_END`.

    Attributes:
        at: place behind the line that was handed out last.
        line: number of the next one.
        ended: `_END` was handed out.
    """

    def __init__(self, handle: BinaryIO, name: str, line: int = 1) -> None:
        self._handle = handle
        self._name = name
        self._waiting: list[str] = []  # lines that end with a carriage return alone, the next one last
        self.at = 0
        self.line = line
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if not self._waiting and not self._fill():
            if self.ended:
                raise StopIteration
            self.ended = True
            return _END
        line = self._waiting.pop()
        self.at += len(line)
        self.line += 1
        return line

    def _fill(self) -> bool:
        """Read on to the next line feed."""
        line = self._handle.readline(MAX_LINE_BYTES + 1)
        if len(line) > MAX_LINE_BYTES:
            raise InvalidRequest(f"{self._name}: line {self.line} has over {MAX_LINE_BYTES} bytes, the limit of a line")
        if self.at == 0:
            plain = without_bom(line, self._name) if self.line == 1 else line
            self.at = len(line) - len(plain)
            line = plain
        text = line.decode("latin-1")
        if not text:
            return False
        alone = "\r" in text.removesuffix("\r\n")
        self._waiting = list(io.StringIO(text, newline=""))[::-1] if alone else [text]
        return True


def table_rows(lines: _Lines, delimiter: str, name: str) -> Iterator[tuple[list[str] | csv.Error, int]]:
    """Rows, or why one cannot be read, with the line that each begins in. A line without anything is no row. When a row
    has come, `lines.at` is the place behind it.

    Raises:
        InvalidRequest: a field is over the limit, or a quote is not closed.
    """
    if csv.field_size_limit() < MAX_FIELD_BYTES:
        csv.field_size_limit(MAX_FIELD_BYTES)  # of the process; 128 KiB by default
    reader = csv.reader(lines, delimiter=delimiter)
    while True:
        line, at = lines.line, lines.at
        found: list[str] | csv.Error
        try:
            found = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field limit" in str(error):
                raise InvalidRequest(
                    f"{name}: line {line} has a field of over {MAX_FIELD_BYTES} bytes; is a quote not closed?"
                ) from None
            found = error
        if lines.ended:
            if lines.at == at:
                return
            raise InvalidRequest(f"{name}: a quote is opened in the row of line {line} and not closed")
        if found:
            yield found, line
