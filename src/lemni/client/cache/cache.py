"""The cache as the client uses it: what is held is looked up, what is missing is computed, once.

The way of a call is written once, in `_steps`, as a generator that does no I/O; `through` and `athrough` carry out its
steps, and each may wait for what the other computes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.client.cache.flights import Flight, Flights
from lemni.client.cache.stores import Store, Usage
from lemni.client.cache.values import from_bytes, to_bytes
from lemni.client.errors import RequestTimeout

Rows: TypeAlias = Sequence[NDArray[Any]]
Widen: TypeAlias = Callable[[Exception, list[int], Mapping[int, NDArray[Any]]], Exception]


@dataclass(frozen=True)
class CacheStatistics:
    """Totals since the cache was made. Equal inputs in one call count once.

    Attributes:
        hits: found in the store.
        misses: computed by the call that asked.
        waited: taken from another call that was computing them already.
        stored: values that the store took.
        entries: values that the store holds; None if it cannot say.
        bytes: what they take, overhead included; None if it cannot say.
    """

    hits: int
    misses: int
    waited: int
    stored: int
    entries: int | None
    bytes: int | None

    @property
    def hit_rate(self) -> float:
        """The share of inputs that cost no request of their own, 0 to 1; 0 before the first."""
        asked = self.hits + self.misses + self.waited
        return (self.hits + self.waited) / asked if asked else 0.0


@dataclass(frozen=True)
class _Look:
    keys: list[bytes]


@dataclass(frozen=True)
class _Compute:
    positions: list[int]


@dataclass(frozen=True)
class _Put:
    items: list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class _Wait:
    flight: Flight


_Step: TypeAlias = _Look | _Compute | _Put | _Wait
# What a step is answered with: _Look with the store's values, _Compute with the rows, _Put with how many the store
# took, _Wait with None.
_Steps: TypeAlias = Generator[_Step, Any, list[NDArray[Any]]]


class _Patience:
    """How long a call still waits for others."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    def left(self) -> float | None:
        """Seconds; None without a limit."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def error(self) -> RequestTimeout:
        """What is raised at the end of it."""
        waited = self._timeout_s or 0.0
        return RequestTimeout(f"another call computes the same input, and took longer than {waited:g} s", waited)


class EmbeddingCache:
    """Vectors by key. Thread-safe, for any number of threads and event loops of one process.

    Every array that it gives is a copy of its own: changing it changes neither the cache nor another caller's array.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._flights = Flights()
        self._lock = threading.Lock()
        self._counts = {"hits": 0, "misses": 0, "waited": 0, "stored": 0}

    def through(
        self,
        keys: Sequence[bytes],
        compute: Callable[[list[int]], Rows],
        *,
        timeout_s: float | None = None,
        widen: Widen | None = None,
    ) -> list[NDArray[Any]]:
        """The arrays of these keys, in their order.

        `compute` is called once, with the positions (in `keys`) of what is neither held nor being computed by another
        call, and returns their arrays in that order. Equal keys in one call are one. What others are computing is
        waited for, after the own part is done, so that two calls never wait for each other. If such another call is
        cancelled, one of those who waited takes over; if it fails, everybody who waited computes what he still needs
        himself, as he would have without a cache. Only then `compute` is called again.

        Errors are not cached. If the error of `compute` has a mapping `finished`, index in its list of positions ->
        array, as `PartialFailure` has, then these are stored before it is raised.

        Args:
            keys: from `Keys`.
            compute: positions -> arrays, each [dimensions] or [tokens, dimensions].
            timeout_s: the longest to wait for other calls.
            widen: makes the error to raise from (the error of `compute`, the positions it was asked for, what is known
                by now: position in `keys` -> array), so that it can speak of the whole list.

        Raises:
            RequestTimeout: another call did not finish within `timeout_s`.
            ValueError: `compute` gave another number of arrays.
            InvalidRequest: `compute` gave an array that cannot be kept.
        """
        patience = _Patience(timeout_s)
        steps = self._steps(keys, blocking=True, widen=widen)
        try:
            step = next(steps)
            while True:
                try:
                    answer = self._do(step, compute, patience)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    async def athrough(
        self,
        keys: Sequence[bytes],
        compute: Callable[[list[int]], Awaitable[Rows]],
        *,
        timeout_s: float | None = None,
        widen: Widen | None = None,
    ) -> list[NDArray[Any]]:
        """`through` for asyncio."""
        patience = _Patience(timeout_s)
        steps = self._steps(keys, blocking=False, widen=widen)
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._ado(step, compute, patience)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]

    def _do(self, step: _Step, compute: Callable[[list[int]], Rows], patience: _Patience) -> Any:
        if isinstance(step, _Look):
            return self.store.get_many(step.keys)
        if isinstance(step, _Compute):
            return compute(step.positions)
        if isinstance(step, _Put):
            return self.store.set_many(step.items)
        try:
            return step.flight.landed.result(patience.left())
        except FutureTimeout:
            raise patience.error() from None

    async def _ado(self, step: _Step, compute: Callable[[list[int]], Awaitable[Rows]], patience: _Patience) -> Any:
        if isinstance(step, _Look):
            return await self._ask(self.store.get_many, step.keys)
        if isinstance(step, _Compute):
            return await compute(step.positions)
        if isinstance(step, _Put):
            return await self._ask(self.store.set_many, step.items)
        if step.flight.landed.done():  # of which the event loop would hear a little later
            return None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(step.flight.landed), patience.left())
        except asyncio.TimeoutError:
            raise patience.error() from None

    async def _ask(self, method: Callable[[Any], Any], argument: object) -> Any:
        return await asyncio.to_thread(method, argument) if self.store.blocking else method(argument)

    def _steps(self, keys: Sequence[bytes], *, blocking: bool, widen: Widen | None) -> _Steps:
        positions: dict[bytes, list[int]] = {}
        for position, key in enumerate(keys):
            positions.setdefault(key, []).append(position)
        arrays: dict[bytes, NDArray[Any]] = {}
        alone: set[bytes] = set()
        while wanted := [key for key in positions if key not in arrays]:
            with self._flights.looking() as ended:
                held = yield _Look(wanted)
                found = _read(dict(zip(wanted, held, strict=True)))
                arrays.update(found)
                missing = [key for key in wanted if key not in found]
                own, joined = self._flights.claim(missing, ended, alone=alone, blocking=blocking)
            self._count(hits=len(found), misses=len(own.keys))
            if own.keys:
                yield from self._fly(own, positions, arrays, widen)
            for flight, shared in joined.items():
                yield _Wait(flight)
                got = _read({key: flight.values.get(key) for key in shared})
                self._count(waited=len(got))
                arrays.update(got)
                if flight.failure is not None:
                    alone.update(key for key in shared if key not in got)
        return _in_order(positions, arrays, len(keys))

    def _fly(
        self, own: Flight, positions: dict[bytes, list[int]], arrays: dict[bytes, NDArray[Any]], widen: Widen | None
    ) -> Generator[_Compute | _Put, Any, None]:
        """Compute the own keys, hand them to those who wait, and store them; adds them to `arrays`."""
        asked = [positions[key][0] for key in own.keys]
        try:
            try:
                rows: Rows = yield _Compute(asked)
                if len(rows) != len(asked):
                    raise ValueError(f"compute gave {len(rows)} arrays for {len(asked)} inputs")
                values = {key: to_bytes(row) for key, row in zip(own.keys, rows, strict=True)}
            except Exception as error:
                values = {own.keys[index]: to_bytes(row) for index, row in _finished(error).items()}
                own.land(values, error)
                yield from self._put(values)
                if widen is None:
                    raise
                arrays.update(_read(values))
                known = {position: arrays[key] for key in arrays for position in positions[key]}
                wider = widen(error, asked, known)
                if wider is error:
                    raise
                raise wider from error
            own.land(values)
            arrays.update(_read(values))
            yield from self._put(values)
        finally:
            self._flights.end(own)

    def _put(self, values: Mapping[bytes, bytes]) -> Generator[_Put, Any, None]:
        if values:
            self._count(stored=(yield _Put(list(values.items()))))

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, by in more.items():
                self._counts[name] += by

    @property
    def statistics(self) -> CacheStatistics:
        """What it has done so far; asks the store how full it is."""
        usage: Usage = self.store.usage()
        with self._lock:
            return CacheStatistics(**self._counts, entries=usage.entries, bytes=usage.bytes)

    def clear(self) -> None:
        """Forget every vector; what is being computed now is stored when it is done.

        Raises:
            Unavailable: the store cannot be reached.
        """
        self.store.clear()

    def close(self) -> None:
        """Give back what the store holds open."""
        self.store.close()


def _read(values: Mapping[bytes, bytes | None]) -> dict[bytes, NDArray[Any]]:
    """A fresh array for each value that is there and whole."""
    arrays = {}
    for key, value in values.items():
        if value is not None and (array := from_bytes(value)) is not None:
            arrays[key] = array
    return arrays


def _finished(error: Exception) -> dict[int, NDArray[Any]]:
    """The arrays that were done when it failed, by their index in what was to be computed."""
    finished = getattr(error, "finished", None)
    if not isinstance(finished, Mapping):
        return {}
    return {index: row for index, row in finished.items() if isinstance(row, np.ndarray)}


def _in_order(positions: dict[bytes, list[int]], arrays: dict[bytes, NDArray[Any]], count: int) -> list[NDArray[Any]]:
    ordered: list[Any] = [None] * count
    for key, places in positions.items():
        first, *others = places
        ordered[first] = arrays[key]
        for place in others:
            ordered[place] = arrays[key].copy()
    return ordered
