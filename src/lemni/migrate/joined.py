"""Texts from a file, for a store that keeps none: looked up by id, in an SQLite file so that memory stays bounded."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from lemni.bulk.sources import open_source
from lemni.bulk.sources.base import Columns
from lemni.errors import InvalidRequest

_ROWS = 4096


class JoinedTexts:
    """Ids are compared as texts: 17 in a store is "17" in the file.

    Args:
        path: any file that `lemni embed` reads, with columns for the id and the text.

    Raises:
        InvalidRequest: the file cannot be read or lacks a column, or an id stands there twice with two texts.
    """

    def __init__(self, path: str, *, text: str = "text", id: str = "id") -> None:
        self._source = open_source([path], Columns(text, id, ()))
        self.name = self._source.name
        self._folder = tempfile.TemporaryDirectory(prefix="lemni-texts-")
        self._lock = threading.Lock()
        self._texts = sqlite3.connect(Path(self._folder.name) / "texts.sqlite", check_same_thread=False)
        self._texts.execute("PRAGMA synchronous = OFF")
        self._texts.execute("CREATE TABLE texts (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID")
        try:
            for shard in self._source.shards(_ROWS):
                rows = shard.load()
                known = [
                    (str(name), item)
                    for name, item in zip(rows.ids, rows.items, strict=True)
                    if isinstance(item, str) and item.strip()
                ]
                self._add(known)
        except BaseException:
            self.close()
            raise

    def identity(self) -> dict[str, Any]:
        return self._source.identity()

    def of(self, ids: Seq[str | int]) -> list[str | None]:
        with self._lock:
            ask = self._texts.execute
            rows = [ask("SELECT text FROM texts WHERE id = ?", (str(name),)).fetchone() for name in ids]
        return [None if row is None else row[0] for row in rows]

    def close(self) -> None:
        with self._lock:
            self._texts.close()
        self._folder.cleanup()

    def _add(self, known: list[tuple[str, str]]) -> None:
        with self._texts:
            self._texts.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", known)
        for (name, text), kept in zip(known, self.of([name for name, _ in known]), strict=True):
            if kept != text:
                raise InvalidRequest(f"{self.name}: the id {name!r:.100} stands there twice, with two texts")
