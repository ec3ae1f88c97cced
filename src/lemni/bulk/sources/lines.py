"""Text with a row in each line, and JSON lines.

A file is cut where its lines end, in one pass over its bytes, a block at a time; a shard is a range of bytes. Lines end
with "\\n" or "\\r\\n". A byte order mark is no part of the first line; the last line may lack its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson

from lemni.bulk.rows import Broken
from lemni.bulk.sources.base import Columns
from lemni.bulk.sources.cells import Record, kind_of
from lemni.bulk.sources.files import File, failed, open_raw, read_range
from lemni.bulk.sources.records import BOM, MAX_LINE_BYTES, Records
from lemni.errors import InvalidRequest

_BLOCK = 1 << 20
LONG_NUMBER = re.compile(rb"\d{20}")
"""What may be a whole number of over 64 bits, of which orjson makes a rounded one."""


class Part(NamedTuple):
    """Bytes `start` to before `end`; the first line there is number `line` of the file, from 1."""

    start: int
    end: int
    line: int


class Txt(Records):
    """A row in each line; an empty line is an empty text."""

    format = "txt"
    splits = True
    blank_lines = True

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns)
        self._check_columns()

    def _check_columns(self) -> None:
        for role, names in (("id", self.columns.id), ("carry", self.columns.carry)):
            if names:
                name = names if isinstance(names, str) else names[0]
                raise InvalidRequest(f"lines of text have no column {name!r}", param=role)

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, Part]]:
        with open_raw(file) as handle:
            try:
                yield from cut_lines(handle, rows, self.blank_lines, file.name)
            except InvalidRequest:
                raise
            except Exception as error:
                raise failed(file.path, error) from None

    def part(self, file: File, where: Any) -> Seq[Record]:
        lines = read_range(file, where.start, where.end).split(b"\n")
        if not lines[-1]:
            lines.pop()  # behind the last end
        return [
            self.record(line, number)
            for number, line in enumerate(lines, where.line)
            if self.blank_lines or line not in (b"", b"\r")
        ]

    def records(self, handle: BinaryIO, name: str) -> Iterator[Record]:
        number = 0
        while line := handle.readline(MAX_LINE_BYTES + 1):
            if number == 0 and not (line := without_bom(line, name)):
                return
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise _too_long(name, number)
            line = line.removesuffix(b"\n")
            if self.blank_lines or line not in (b"", b"\r"):
                yield self.record(line, number)

    def record(self, line: bytes, number: int) -> Record:
        try:
            return line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            return _not_utf8(number, error)


class JsonLines(Txt):
    """An object or a text in each line; a line without anything is no row."""

    format = "jsonl"
    blank_lines = False

    def _check_columns(self) -> None:
        pass

    def record(self, line: bytes, number: int) -> Record:
        where = f"line {number}"
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _leniently(line, where, number, str(error.msg))
        if LONG_NUMBER.search(line):
            return _leniently(line, where, number, "a number is too long")
        return json_record(found, where)


def _leniently(line: bytes, where: str, number: int, strict: str) -> Record:
    """NaN as Python writes it, whole numbers of any length, and what is worth its own words: bytes that are not UTF-8,
    halves of a character."""
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return _not_utf8(number, error)
    except (ValueError, RecursionError):
        return Broken(f"{where} is not JSON: {strict}")
    return json_record(found, where, checked=False)


def json_record(value: object, where: str, checked: bool = True) -> Record:
    """A value of JSON as a row.

    Args:
        checked: its texts are known to be Unicode.
    """
    if not checked and (reason := lone_surrogate(value)):
        return Broken(f"{where} {reason}")
    if isinstance(value, (dict, str)):
        return value
    return Broken(f"{where} is {kind_of(value)}, neither an object nor a text")


def lone_surrogate(value: object) -> str | None:
    """Why a value of JSON cannot be written as UTF-8, if it cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"holds half of a character ({error.object[error.start]!a}) without the other half"
    return None


def _not_utf8(number: int, error: UnicodeDecodeError) -> Broken:
    return Broken(f"line {number} is not UTF-8: byte 0x{error.object[error.start]:02x} at place {error.start}")


def without_bom(start: bytes, name: str) -> bytes:
    """The first bytes of a text without UTF-8's byte order mark.

    Raises:
        InvalidRequest: it begins like UTF-16 or UTF-32.
    """
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InvalidRequest(f"{name}: is UTF-16 or UTF-32; convert it to UTF-8")
    return start.removeprefix(BOM)


def _too_long(name: str, line: int) -> InvalidRequest:
    return InvalidRequest(f"{name}: line {line} has over {MAX_LINE_BYTES} bytes, the limit of a line")


def cut_lines(handle: BinaryIO, rows: int, blank_lines: bool, name: str) -> Iterator[tuple[int, Part]]:
    """Ranges of `rows` lines each, the last one of fewer.

    Args:
        blank_lines: whether lines without anything count.
    """
    block = handle.read(_BLOCK)
    at = len(block) - len(without_bom(block[:3], name)) - len(block[3:])  # place of the block in the file
    block = block[at:] or handle.read(_BLOCK)
    begun, begun_line, have = at, 1, 0  # of the shard that is being filled
    line_start, line, before = at, 1, b""  # of the line that is being read; the byte before the block
    while block:
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 10)
        if len(ends):
            kept = ends if blank_lines else ends[~_blank(block, ends, line_start - at, before)]
            taken = 0
            while len(kept) - taken >= rows - have:
                taken += rows - have
                end = int(kept[taken - 1])
                yield rows, Part(begun, at + end + 1, begun_line)
                begun, begun_line, have = at + end + 1, line + int(np.searchsorted(ends, end, "right")), 0
            have += len(kept) - taken
            line += len(ends)
            line_start = at + int(ends[-1]) + 1
        at += len(block)
        if at - line_start > MAX_LINE_BYTES:
            raise _too_long(name, line)
        before = block[-1:]
        block = handle.read(_BLOCK)
    if at > line_start and (blank_lines or at - line_start > 1 or before != b"\r"):
        have += 1
    if have:
        yield have, Part(begun, at, begun_line)


def _blank(block: bytes, ends: Any, start: int, before: bytes) -> Any:
    """bool [lines]: which of the lines that end at `ends` have nothing but their end.

    Args:
        start: where the first of them begins; under 0 in an earlier block.
        before: the byte before this block.
    """
    lengths = np.diff(ends, prepend=start - 1) - 1
    array = np.frombuffer(block, np.uint8)
    last = array[np.maximum(ends - 1, 0)]
    if ends[0] == 0:
        last[0] = before[0] if before else 0
    return (lengths == 0) | ((lengths == 1) & (last == 13))
