"""What a store is: a place for bytes under 32-byte keys.

A new store is a file beside this one and a row in `opening.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lemni.errors import ConfigError

DAY_S = 86400.0


@dataclass(frozen=True)
class Usage:
    """How full a store is; None where it cannot say cheaply.

    Attributes:
        entries: values held; some may have expired already.
        bytes: what they take, overhead included.
    """

    entries: int | None = None
    bytes: int | None = None


class Store(Protocol):
    """Thread-safe. A store forgets when it likes, and never raises because of what it holds or cannot reach.

    Attributes:
        blocking: whether it does I/O, so that asynchronous callers ask it from a thread.
    """

    blocking: bool

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values in the order of the keys; None for what is not held or has expired."""

    def set_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Hold these pairs of key and value, if there is room; how many were taken."""

    def clear(self) -> None:
        """Forget everything that was put in through this kind of store.

        Raises:
            Unavailable: it cannot be reached.
        """

    def usage(self) -> Usage:
        """How full it is."""

    def close(self) -> None:
        """Give back connections and memory."""


def check_limits(*, ttl_s: float, max_bytes: int | None = None) -> None:
    """Refuse limits with which nothing could be held.

    Raises:
        ConfigError: a limit is not above zero.
    """
    if not ttl_s > 0:
        raise ConfigError(f"the cache's ttl_s must be above 0 seconds, not {ttl_s}", param="ttl_s")
    if max_bytes is not None and max_bytes <= 0:
        raise ConfigError(f"the cache's max_bytes must be above 0, not {max_bytes}", param="max_bytes")
