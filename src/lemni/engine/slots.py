"""The compute budget that models on one device share: forward passes take turns, first come, first served."""

from __future__ import annotations

import threading
from collections import deque


class Slot:
    """The right to run one forward pass."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True

    def release(self) -> None:
        """Idempotent and from any thread: the watchdog gives back what a stuck pass holds."""
        self._slots._release(self)


class Slots:
    """A semaphore that is fair: whoever asked first goes first."""

    def __init__(self, free: int) -> None:
        self._lock = threading.Lock()
        self._free = free
        self._queue: deque[threading.Lock] = deque()
        self._open = True

    def acquire(self) -> Slot:
        with self._lock:
            if not self._open or self._free > 0:
                self._free -= 1
                return Slot(self)
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        turn.acquire()
        return Slot(self)

    def close(self) -> None:
        """Let everybody through: the threads end now."""
        with self._lock:
            self._open = False
            while self._queue:
                self._queue.popleft().release()

    def _release(self, slot: Slot) -> None:
        with self._lock:
            if not slot._held:
                return
            slot._held = False
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1
