"""Results as rows: JSON lines into a file or on standard output, or a form of their own on a terminal.

A writer is called once per chunk of results and in order. Called by `lemni rerank` and `lemni classify`, and for its
JSON lines by `lemni embed`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lemni.cli.drafts import Draft
from lemni.cli.texts import Given

ENDINGS = (".jsonl", ".ndjson")

Row = Mapping[str, Any]


def id_of(given: Given) -> dict[str, Any]:
    """The field `id` of a text's row, if it has one: any JSON, as it was read."""
    import orjson

    # By the library that read it: orjson refuses numbers over 64 bits and lone surrogates.
    return {} if given.id is None else {"id": orjson.Fragment(json.dumps(given.id))}


class RowWriter(Protocol):
    """One destination."""

    def write(self, rows: Iterable[Row]) -> None:
        """Take the next rows; numpy's arrays and numbers are values as well."""
        ...

    def close(self) -> None:
        """All rows have come."""
        ...


class JsonLines:
    """One object per row. The stream stays open unless it is `owned`."""

    def __init__(self, stream: BinaryIO, *, owned: bool = False) -> None:
        self._stream = stream
        self._owned = owned

    def write(self, rows: Iterable[Row]) -> None:
        import orjson

        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        for row in rows:
            self._stream.write(orjson.dumps(row, option=options))
        self._stream.flush()

    def close(self) -> None:
        if self._owned:
            self._stream.close()


def destination(output: Path | None, terminal: RowWriter, *, as_json: bool) -> AbstractContextManager[RowWriter]:
    """The file, if one is named (`check_place` has seen it); else `terminal`, if there is one; else JSON lines.

    Raises:
        click.UsageError: the file cannot be written.
    """
    if output is not None:
        return Draft(output, lambda draft: JsonLines(draft.open("wb"), owned=True))
    return nullcontext(terminal if sys.stdout.isatty() and not as_json else JsonLines(sys.stdout.buffer))
