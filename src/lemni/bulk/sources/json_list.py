"""A JSON file that is a list of texts or of objects, one object, or an object whose values are the texts.

Up to `WHOLE_BYTES` it is parsed at once; over that it streams through ijson, and a row at a time is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, BinaryIO, cast

import orjson

from lemni.bulk.rows import Broken
from lemni.bulk.sources.cells import Record, kind_of
from lemni.bulk.sources.lines import LONG_NUMBER, json_record, without_bom
from lemni.bulk.sources.records import Records
from lemni.errors import InvalidRequest, missing_extra

WHOLE_BYTES = 64 << 20


class JsonList(Records):
    format = "json"

    def records(self, handle: BinaryIO, name: str) -> Iterator[Record]:
        head = without_bom(_fill(handle, WHOLE_BYTES + 1), name)
        if len(head) <= WHOLE_BYTES:
            return self._whole(head, name)
        return self._streamed(cast(BinaryIO, _Joined(head, handle)), head.lstrip()[:1], name)

    def _whole(self, data: bytes, name: str) -> Iterator[Record]:
        checked = True
        try:
            value = orjson.loads(data)
            if LONG_NUMBER.search(data):
                value = json.loads(data)
        except ValueError as strict:
            checked = False
            try:
                value = json.loads(data.decode())  # NaN, and halves of characters, which break their row only
            except UnicodeDecodeError as error:
                raise InvalidRequest(f"{name}: is not UTF-8: {error}") from None
            except (ValueError, RecursionError):
                lines = " It looks like JSON lines: name the format jsonl." if data[:1] == b"{" else ""
                raise InvalidRequest(f"{name}: is not JSON: {strict}.{lines}") from None
        if isinstance(value, list):
            for number, row in enumerate(value):
                yield json_record(row, f"item {number}", checked)
        elif isinstance(value, dict):
            if self.columns.text in value:
                yield json_record(value, "the object", checked)
                return
            for key, row in value.items():
                yield self._named(key, row, checked)
        else:
            raise InvalidRequest(f"{name}: is {kind_of(value)}, neither a list nor an object")

    def _streamed(self, handle: BinaryIO, start: bytes, name: str) -> Iterator[Record]:
        try:
            import ijson
        except ImportError:
            raise missing_extra("ijson", "bulk", f"reading {name}, which has over {WHOLE_BYTES} bytes,") from None
        try:
            if start == b"[":
                for number, row in enumerate(ijson.items(handle, "item")):
                    yield json_record(_plain(row), f"item {number}")
            elif start == b"{":
                for key, row in ijson.kvitems(handle, ""):
                    if key == self.columns.text:
                        raise InvalidRequest(f"{name}: is one object of over {WHOLE_BYTES} bytes with {key!r}")
                    yield self._named(key, _plain(row), True)
            else:
                raise InvalidRequest(f"{name}: is neither a list nor an object")
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{name}: is not JSON: {error}") from None

    def _named(self, key: str, value: Any, checked: bool) -> Record:
        """A value of an object: the key is its id."""
        row = value if isinstance(value, dict) else {self.columns.text: value}
        found = json_record({**row, self.columns.id or "id": key} if self.columns.text != "id" else row, "", checked)
        return Broken(f"{key!a}{found.reason}") if isinstance(found, Broken) else found


def _plain(value: Any) -> Any:
    """With floats for Decimals: ijson's own floats come with whole numbers of 64 bits."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class _Joined:
    """What was read already, and the rest of it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._rest.read(size)
        part, self._head = bytes(self._head[:size]), self._head[size:]
        return part


def _fill(handle: BinaryIO, size: int) -> bytes:
    """`size` bytes, or all that there are, from a stream that may give fewer at a time."""
    parts = []
    while size and (part := handle.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
