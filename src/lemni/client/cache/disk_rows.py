"""How diskcache keeps our values: bytes in a row of SQLite, nothing else. Needs diskcache; `disk.py` imports it.

diskcache's own class pickles what it does not know, unpickles what a row says is a pickle, and reads and deletes the
files that a row names. A cache's folder is often writable by others, so none of that is left.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import diskcache
from diskcache.core import MODE_RAW


class RowsOnly(diskcache.Disk):  # type: ignore[misc]
    """Keys and values are bytes, in the database itself."""

    def put(self, key: Any) -> tuple[Any, bool]:
        return _blob(key), True

    def get(self, key: Any, raw: bool) -> bytes:
        return _row(MODE_RAW if raw else None, key)

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, Any]:
        return 0, MODE_RAW, None, _blob(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        return _row(mode, value)

    def remove(self, file_path: str) -> None:
        """Values have no files, so a row that names one is not ours, and the file may be anybody's."""


def _blob(data: Any) -> Any:
    if type(data) is not bytes:
        raise TypeError(f"only bytes are stored, not {type(data).__name__}")
    return sqlite3.Binary(data)


def _row(mode: int | None, value: Any) -> bytes:
    if mode != MODE_RAW or type(value) is not bytes:
        raise OSError("a row that this cache did not write")  # diskcache takes it for a value that is gone: a miss
    return value
