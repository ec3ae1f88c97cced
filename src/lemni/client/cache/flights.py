"""Who computes what right now, so that equal misses are computed once. No I/O and no waiting in here.

A *flight* is one call's computation of some keys. Others who miss these keys join it: they wait on `Flight.landed`, a
`concurrent.futures.Future`, which threads and event loops of one process can both wait on. `cache.py` is the only user.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager


class Flight:
    """One call's computation.

    Attributes:
        keys: what it computes.
        landed: done as soon as there are values, or will never be.
        values: key -> bytes of what was computed; complete once landed.
        failure: the error of a computation that failed; None as well for one that was cancelled.
    """

    def __init__(self, blocking: bool) -> None:
        self.keys: list[bytes] = []
        self.values: Mapping[bytes, bytes] = {}
        self.failure: Exception | None = None
        self.landed: Future[None] = Future()
        # A running future cannot be cancelled: one waiter that is cancelled does not end the wait of the others.
        self.landed.set_running_or_notify_cancel()
        self._thread = threading.get_ident()
        self._blocking = blocking

    def land(self, values: Mapping[bytes, bytes], failure: Exception | None = None) -> None:
        """Hand the values to those who wait."""
        self.values, self.failure = values, failure
        self.landed.set_result(None)

    def may_be_awaited(self, blocking: bool) -> bool:
        """Whether waiting here can end: not if it would stop the very thread that the flight needs."""
        here = self._thread == threading.get_ident()
        return self.landed.done() or not here or not (blocking or self._blocking)


class Flights:
    """The flights of one cache. Thread-safe.

    A key is taken out of the map only when its value is in the store, and a flight that ends while somebody else looks
    into the store is shown to him: so nobody misses a value between his look into the store and his look into the map.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._flying: dict[bytes, Flight] = {}
        self._looking: dict[int, list[Flight]] = {}

    @contextmanager
    def looking(self) -> Iterator[list[Flight]]:
        """While one looks into the store; the list gets the flights that end meanwhile."""
        if self._pid != os.getpid():  # a forked child has the flights, but not the threads that would end them
            self._reset()
        ended: list[Flight] = []
        with self._lock:
            self._looking[id(ended)] = ended
        try:
            yield ended
        finally:
            with self._lock:
                self._looking.pop(id(ended), None)

    def claim(
        self, missing: Collection[bytes], ended: list[Flight], *, alone: Collection[bytes], blocking: bool
    ) -> tuple[Flight, dict[Flight, list[bytes]]]:
        """Share out the keys that the store does not have.

        Args:
            missing: those keys, each once.
            ended: what `looking` gave.
            alone: those of them that are not to be waited for.
            blocking: whether the caller waits with its thread.

        Returns:
            The caller's own flight, which it must `end`, and the others' flights with the keys to take from each.
        """
        own = Flight(blocking)
        joined: dict[Flight, list[bytes]] = {}
        left = dict.fromkeys(missing)
        with self._lock:
            for flight in ended:
                for key in flight.values.keys() & left.keys():
                    del left[key]
                    joined.setdefault(flight, []).append(key)
            for key in left:
                flight = self._flying.setdefault(key, own)
                if flight is own or key in alone or not flight.may_be_awaited(blocking):
                    own.keys.append(key)
                else:
                    joined.setdefault(flight, []).append(key)
        return own, joined

    def end(self, flight: Flight) -> None:
        """Take a flight out of the map, however it went."""
        if not flight.landed.done():
            flight.land({})
        with self._lock:
            for key in flight.keys:
                if self._flying.get(key) is flight:
                    del self._flying[key]
            for ended in self._looking.values():
                ended.append(flight)
