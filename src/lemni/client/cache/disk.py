"""The cache in a folder: SQLite through diskcache, for several processes at once and for the next start.

A folder that somebody else can write to is not trusted: values are rows of bytes, never pickles and never files of
their own (`disk_rows.py`), so a foreign row is at worst a miss. What goes wrong after opening, such as a full disk or a
lock that is held too long, costs hits and is logged once.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from lemni.client.cache.stores import DAY_S, Usage, check_limits
from lemni.errors import ConfigError, Unavailable, missing_extra

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long to wait for another process that writes.
_LOCK_TIMEOUT_S = 5.0
# What every SQLite database begins with: https://www.sqlite.org/fileformat.html#magic_header_string
_SQLITE_HEAD = b"SQLite format 3\0"
# SQLite's tables and indexes alone take some pages.
_LEAST_BYTES = 2**20


class DiskStore:
    """Values in the SQLite file of a folder, `cache.db`; made when it is missing.

    Over the limit, what was stored first goes first: unlike the order of use, that needs no write for a read.

    Args:
        folder: where; processes that share it should agree on the limits.
        max_bytes: the most that the file may take; at least 1 MiB. SQLite's log of recent writes comes on top.
        ttl_s: how long a value is held after it was stored.

    Raises:
        ConfigError: the folder cannot be used, its file is damaged or no cache, or a limit is too small.
        MissingExtra: diskcache is not installed.
    """

    blocking = True

    def __init__(self, folder: str | Path, max_bytes: int = 2**30, ttl_s: float = DAY_S) -> None:
        check_limits(ttl_s=ttl_s)
        if max_bytes < _LEAST_BYTES:
            raise ConfigError(
                f"a cache on disk needs max_bytes of at least {_LEAST_BYTES}, not {max_bytes}", param="max_bytes"
            )
        self._folder = Path(folder).expanduser()
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._failing = False
        self._cache = self._open()
        # What a lower limit, or the time, has made too much since the last start.
        self._guarded("cleaning up", self._cache.cull, None)

    def _open(self) -> Any:
        try:
            import diskcache
        except ImportError:
            raise missing_extra("diskcache", "disk-cache", "a cache on disk") from None
        from lemni.client.cache.disk_rows import RowsOnly

        self._errors = (sqlite3.Error, OSError, diskcache.Timeout)
        try:
            # Vectors tell much about their texts: nobody else's to read, unless the folder was made otherwise.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            why = "it is a file" if self._folder.exists() else error.strerror or str(error)
            raise ConfigError(f"{self._folder} cannot be the cache's folder: {why}", param="folder") from error
        try:
            # diskcache fails late, and in words of its own, over a file that is no database.
            with closing(sqlite3.connect(self._folder / "cache.db", timeout=_LOCK_TIMEOUT_S)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return diskcache.Cache(
                str(self._folder),
                timeout=_LOCK_TIMEOUT_S,
                disk=RowsOnly,
                eviction_policy="least-recently-stored",
                size_limit=self._max_bytes,
                cull_limit=0,  # see set_many
                statistics=0,
                sqlite_cache_size=1024,  # pages; each thread has a connection with a cache of its own
            )
        except (*self._errors, TypeError, ValueError) as error:
            advice = "choose another folder"
            if self._is_damaged(error):
                advice = f"if it is an old cache, delete {self._folder / 'cache.db'}*, else choose another folder"
            raise ConfigError(
                f"the cache in {self._folder} cannot be opened ({error}); {advice}", param="folder"
            ) from error

    def _is_damaged(self, error: Exception) -> bool:
        """Whether the file was a database once; nobody should be told to delete something else."""
        if type(error) is not sqlite3.DatabaseError:  # a subclass: it is locked, not ours to read, or has other tables
            return False
        with (self._folder / "cache.db").open("rb") as file:
            return file.read(len(_SQLITE_HEAD)) == _SQLITE_HEAD

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        def read() -> list[bytes | None]:
            return [self._cache.get(key) for key in keys]

        return self._guarded("reading", read, [None] * len(keys))

    def set_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        def write() -> int:
            taken = 0
            with self._cache.transact():
                for key, value in items:
                    if len(value) < self._max_bytes:
                        self._cache.set(key, value, expire=self._ttl_s)
                        taken += 1
                    else:
                        self._cache.delete(key)
            # Not row by row inside the transaction, as diskcache would: there the file does not shrink before the end,
            # so each row over the limit would throw out ten others.
            self._cache.cull()
            return taken

        return self._guarded("writing", write, 0)

    def clear(self) -> None:
        try:
            self._cache.clear(retry=True)
        except self._errors as error:
            raise Unavailable(f"the cache in {self._folder} cannot be cleared: {error}") from error

    def usage(self) -> Usage:
        def ask() -> Usage:
            return Usage(entries=len(self._cache), bytes=self._cache.volume())

        return self._guarded("reading", ask, Usage())

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with their threads."""
        self._cache.close()

    def _guarded(self, doing: str, action: Callable[[], T], otherwise: T) -> T:
        """The result of an action, or what there is without a cache."""
        try:
            result = action()
        except self._errors as error:
            if not self._failing:
                log.warning("%s the cache in %s fails: %s", doing, self._folder, str(error) or type(error).__name__)
            self._failing = True
            return otherwise
        self._failing = False
        return result
