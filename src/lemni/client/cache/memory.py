"""The cache in this process: least recently used out first, limited by bytes and by age. The default."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from cachetools import TTLCache

from lemni.client.cache.keys import KEY_BYTES
from lemni.client.cache.stores import DAY_S, Usage, check_limits

# What an entry takes beside the value's bytes: the key, two bytes objects, and its places in cachetools' two
# dictionaries, ordered dictionary and linked list, at their worst filling. Measured on 64-bit CPython; a test compares.
ENTRY_BYTES = KEY_BYTES + 560


class MemoryStore:
    """Values in memory.

    Args:
        max_bytes: the most that all entries may take, keys and Python's objects included.
        ttl_s: how long a value is held after it was put in, read or not.
        clock: seconds that only rise.

    Raises:
        ConfigError: a limit is not above zero.
    """

    blocking = False

    def __init__(
        self,
        max_bytes: int = 256 * 2**20,
        ttl_s: float = DAY_S,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_limits(ttl_s=ttl_s, max_bytes=max_bytes)
        self._lock = threading.Lock()
        self._values: TTLCache[bytes, bytes] = TTLCache(max_bytes, ttl_s, clock, getsizeof=_size)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._lock:
            return [self._values.get(key) for key in keys]

    def set_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        taken = 0
        with self._lock:
            for key, value in items:
                if _size(value) <= self._values.maxsize:
                    self._values[key] = value
                    taken += 1
                else:  # the old value is out of date all the same
                    self._values.pop(key, None)
        return taken

    def clear(self) -> None:
        with self._lock:
            self._values.clear()

    def usage(self) -> Usage:
        with self._lock:
            return Usage(entries=len(self._values), bytes=int(self._values.currsize))

    def close(self) -> None:
        self.clear()


def _size(value: bytes) -> int:
    return ENTRY_BYTES + len(value)
