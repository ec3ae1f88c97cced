"""A bound on the memory of prepared images and sounds that wait for their batch.

A page is some kilobytes as a file and tens of megabytes as a model's pixels, and tokenising runs ahead of computing.
What is over the budget keeps its file only, and is prepared again when its batch is computed. Thread-safe.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

BUDGET_BYTES = 1 << 30
"""Of one model."""


class FeatureMemory:
    """What one model's arrays may take, and do."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._used = 0
        self._lock = threading.RLock()  # an array may be freed by the collector of cycles while the lock is held

    @property
    def used_bytes(self) -> int:
        return self._used

    def keep(self, arrays: Arrays, again: Callable[[], Arrays]) -> Arrays:
        """The arrays; or, where there is no room for them, a mapping that makes them by `again` at the first look."""
        size = sum(array.nbytes for array in arrays.values())
        with self._lock:
            if self._used + size > self._budget:
                return _Later(again)
            self._used += size
        for array in arrays.values():
            weakref.finalize(array, self._release, array.nbytes).atexit = False
        return arrays

    def _release(self, size: int) -> None:
        with self._lock:
            self._used -= size


class _Later(Mapping[str, NDArray[Any]]):
    """Arrays that are made when they are looked at, and then stay."""

    def __init__(self, make: Callable[[], Arrays]) -> None:
        self._make = make
        self._made: Arrays | None = None

    def _arrays(self) -> Arrays:
        if self._made is None:
            self._made = self._make()
        return self._made

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays())

    def __len__(self) -> int:
        return len(self._arrays())
