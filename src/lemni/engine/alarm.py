"""Calls functions at given times, from one thread that sleeps until the next of them: no polling.

Used for requests' deadlines and for forward passes that take too long. Functions must be short.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from itertools import count

from lemni.engine.failures import log

MANY_CANCELLED = 256
"""Cancelled entries that are left in the heap before it is cleaned, if they are also more than half of it."""


class Entry:
    __slots__ = ("ring",)

    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring: Callable[[], None] | None = ring


class Alarm:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Entry]] = []
        self._numbers = count()
        self._cancelled = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lemni-alarm", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def after(self, seconds: float, ring: Callable[[], None]) -> Entry:
        entry = Entry(ring)
        turn = (time.monotonic() + seconds, next(self._numbers), entry)
        with self._changed:
            heapq.heappush(self._heap, turn)
            if self._heap[0] is turn:
                self._changed.notify()
        return entry

    def cancel(self, entry: Entry) -> None:
        """Idempotent. The function may be running at this moment."""
        with self._changed:
            if entry.ring is None:
                return
            entry.ring = None
            self._cancelled += 1
            if self._cancelled > MANY_CANCELLED and 2 * self._cancelled > len(self._heap):
                self._heap = [turn for turn in self._heap if turn[2].ring is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """One alarm. A method of its own, so that a thread that waits holds nothing of the last request."""
        ring = self._next()
        if ring is None:
            return False
        try:
            ring()
        except BaseException:
            log.exception("an alarm failed")
        return True

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                if not self._heap:
                    self._changed.wait()
                    continue
                when, _, entry = self._heap[0]
                left = when - time.monotonic()
                if entry.ring is not None and left > 0:
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                    continue
                heapq.heappop(self._heap)
                ring, entry.ring = entry.ring, None
                if ring is not None:
                    return ring
                self._cancelled -= 1
            return None
