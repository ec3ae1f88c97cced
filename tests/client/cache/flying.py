"""Computations that can be held up, and ways to wait until others wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lemni.client.cache import EmbeddingCache

Array = np.ndarray[Any, Any]
PATIENCE_S = 20.0


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def keys(numbers: Sequence[int]) -> list[bytes]:
    return [key(number) for number in numbers]


def vectors(numbers: Sequence[int]) -> list[Array]:
    return [np.array([number], np.float32) for number in numbers]


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


async def auntil(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.002)


def joined(cache: EmbeddingCache, number: int, count: int) -> Callable[[], bool]:
    """Whether so many callers wait for the flight of this key: each has a callback or a waiter at its future."""

    def enough() -> bool:
        flight = cache._flights._flying.get(key(number))
        if flight is None:
            return False
        landed: Any = flight.landed
        return len(landed._condition._waiters) + len(landed._done_callbacks) >= count  # threads, and event loops

    return enough


class Slow:
    """A computation that waits to be let go, and counts how often each number was computed."""

    def __init__(self, numbers: Sequence[int], error: BaseException | None = None) -> None:
        self.numbers = numbers
        self.error = error
        self.begun = threading.Event()
        self.go = threading.Event()
        self.asked: list[list[int]] = []

    def _answer(self, positions: list[int]) -> list[Array]:
        if self.error is not None:
            raise self.error
        return vectors([self.numbers[position] for position in positions])

    def __call__(self, positions: list[int]) -> list[Array]:
        self.asked.append([self.numbers[position] for position in positions])
        self.begun.set()
        assert self.go.wait(PATIENCE_S)
        return self._answer(positions)

    async def aio(self, positions: list[int]) -> list[Array]:
        self.asked.append([self.numbers[position] for position in positions])
        self.begun.set()
        await auntil(self.go.is_set)
        return self._answer(positions)


def never(_: list[int]) -> list[Array]:
    raise AssertionError("computed, though somebody else does")


async def anever(positions: list[int]) -> list[Array]:
    return never(positions)
