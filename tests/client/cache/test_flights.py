"""Callers at the same time, in threads, tasks and both: equal misses are computed once, and all get an answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.client.cache import EmbeddingCache, MemoryStore, Usage
from tests.client.cache.flying import PATIENCE_S, Array, Slow, anever, auntil, joined, keys, never, until, vectors


def test_threads_compute_once(cache: EmbeddingCache) -> None:
    slow = Slow([1, 2])
    with ThreadPoolExecutor(9) as threads:
        owner = threads.submit(cache.through, keys([1, 2]), slow)
        assert slow.begun.wait(PATIENCE_S)
        waiters = [threads.submit(cache.through, keys([2, 1, 2]), never) for _ in range(8)]
        until(joined(cache, 1, 8))
        slow.go.set()
        np.testing.assert_array_equal(owner.result(PATIENCE_S), vectors([1, 2]))
        for waiter in waiters:
            np.testing.assert_array_equal(waiter.result(PATIENCE_S), vectors([2, 1, 2]))
    now = cache.statistics
    assert (slow.asked, now.misses, now.waited, now.hits, now.stored) == ([[1, 2]], 2, 16, 0, 2)
    assert now.hit_rate == 16 / 18


async def test_tasks_compute_once(cache: EmbeddingCache) -> None:
    slow = Slow([1])
    owner = asyncio.create_task(cache.athrough(keys([1]), slow.aio))
    await auntil(slow.begun.is_set)
    waiters = [asyncio.create_task(cache.athrough(keys([1]), anever)) for _ in range(50)]
    await auntil(joined(cache, 1, 50))
    slow.go.set()
    for rows in await asyncio.gather(owner, *waiters):
        np.testing.assert_array_equal(rows, vectors([1]))
    assert (slow.asked, cache.statistics.waited) == ([[1]], 50)


async def test_threads_wait_for_a_task(cache: EmbeddingCache) -> None:
    slow = Slow([1])
    owner = asyncio.create_task(cache.athrough(keys([1]), slow.aio))
    await auntil(slow.begun.is_set)
    with ThreadPoolExecutor(3) as threads:
        waiters = [threads.submit(cache.through, keys([1]), never) for _ in range(3)]
        await auntil(joined(cache, 1, 3))
        slow.go.set()
        await owner
        for waiter in waiters:
            np.testing.assert_array_equal(await asyncio.wrap_future(waiter), vectors([1]))


async def test_tasks_wait_for_a_thread(cache: EmbeddingCache) -> None:
    slow = Slow([1])
    with ThreadPoolExecutor(1) as threads:
        owner = threads.submit(cache.through, keys([1]), slow)
        await auntil(slow.begun.is_set)
        waiters = [asyncio.create_task(cache.athrough(keys([1]), anever)) for _ in range(3)]
        await auntil(joined(cache, 1, 3))
        slow.go.set()
        for rows in await asyncio.gather(*waiters):
            np.testing.assert_array_equal(rows, vectors([1]))
        owner.result(PATIENCE_S)


def test_two_event_loops(cache: EmbeddingCache) -> None:
    slow = Slow([1])
    with ThreadPoolExecutor(2) as threads:
        owner = threads.submit(lambda: asyncio.run(cache.athrough(keys([1]), slow.aio)))
        assert slow.begun.wait(PATIENCE_S)
        waiter = threads.submit(lambda: asyncio.run(cache.athrough(keys([1]), anever)))
        until(joined(cache, 1, 1))
        slow.go.set()
        np.testing.assert_array_equal(owner.result(PATIENCE_S), waiter.result(PATIENCE_S))


def test_waiters_have_arrays_of_their_own(cache: EmbeddingCache) -> None:
    """The owner may change his at once, even before the others wake up."""
    slow = Slow([1])
    with ThreadPoolExecutor(4) as threads:

        def own() -> None:
            (row,) = cache.through(keys([1]), slow)
            row[:] = -1

        def wait() -> Array:
            (row,) = cache.through(keys([1]), never)
            seen = row.copy()
            row[:] = -2
            return seen

        threads.submit(own)
        assert slow.begun.wait(PATIENCE_S)
        waiters = [threads.submit(wait) for _ in range(3)]
        until(joined(cache, 1, 3))
        slow.go.set()
        for waiter in waiters:
            np.testing.assert_array_equal(waiter.result(PATIENCE_S), [1])


def test_the_own_part_comes_first(cache: EmbeddingCache) -> None:
    """Both are in `compute` at the same time, though one needs the other's result: else the barrier would break."""
    both = threading.Barrier(2)
    begun = threading.Event()

    def first(_: list[int]) -> list[Array]:
        begun.set()
        both.wait(PATIENCE_S)
        return vectors([1])

    def second(positions: list[int]) -> list[Array]:
        assert positions == [1]
        both.wait(PATIENCE_S)
        return vectors([2])

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(cache.through, keys([1]), first)
        assert begun.wait(PATIENCE_S)
        two = threads.submit(cache.through, keys([1, 2]), second)
        np.testing.assert_array_equal(one.result(PATIENCE_S), vectors([1]))
        np.testing.assert_array_equal(two.result(PATIENCE_S), vectors([1, 2]))


class Meeting(MemoryStore):
    """Its readers look, and go on only when all of them have looked."""

    def __init__(self, readers: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(readers)
        self.blocking = True  # so that an event loop is not stopped at the barrier

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values = super().get_many(keys)
        self.barrier.wait(PATIENCE_S)
        return values


@pytest.mark.parametrize("kinds", ["tt", "aa", "ta"])
def test_crosswise(kinds: str) -> None:
    """Two want 1 and 2, in opposite order, and have both seen that they are missing; each also has one of its own."""
    cache = EmbeddingCache(Meeting(2))
    both = threading.Barrier(2)
    asked: list[int] = []
    wanted = ([1, 2, 3], [2, 1, 4])

    def call(numbers: list[int], kind: str) -> list[Array]:
        def compute(positions: list[int]) -> list[Array]:
            both.wait(PATIENCE_S)
            asked.extend(numbers[position] for position in positions)
            return vectors([numbers[position] for position in positions])

        async def acompute(positions: list[int]) -> list[Array]:
            return compute(positions)

        if kind == "t":
            return cache.through(keys(numbers), compute)
        return asyncio.run(cache.athrough(keys(numbers), acompute))

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(call, numbers, kind) for numbers, kind in zip(wanted, kinds, strict=True)]
        for numbers, future in zip(wanted, calls, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_S), vectors(numbers))
    assert sorted(asked) == [1, 2, 3, 4]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 5), max_size=6)), min_size=2, max_size=8))
def test_any_overlap_ends_and_is_right(calls: list[tuple[bool, list[int]]]) -> None:
    """In threads and tasks at once, some of which fail at first: every one gets its vectors or its own error."""
    cache = EmbeddingCache(MemoryStore())
    start = threading.Barrier(len(calls))

    def call(asynchronous: bool, numbers: list[int]) -> None:
        def compute(positions: list[int]) -> list[Array]:
            time.sleep(0.001)
            if 5 in (numbers[position] for position in positions) and asynchronous:
                raise LookupError("five")
            return vectors([numbers[position] for position in positions])

        async def acompute(positions: list[int]) -> list[Array]:
            await asyncio.sleep(0.001)
            return compute(positions)

        start.wait(PATIENCE_S)
        try:
            if asynchronous:
                rows = asyncio.run(cache.athrough(keys(numbers), acompute))
            else:
                rows = cache.through(keys(numbers), compute)
        except LookupError:
            assert asynchronous
            assert 5 in numbers
        else:
            assert [row.tolist() for row in rows] == [[number] for number in numbers]

    with ThreadPoolExecutor(len(calls)) as threads:
        for future in [threads.submit(call, *arguments) for arguments in calls]:
            future.result(PATIENCE_S)
    assert not cache._flights._flying
    assert not cache._flights._looking


class Forgetful:
    """A store that holds nothing, as a Redis that is down; one reader at a time can be kept back."""

    blocking = False

    def __init__(self) -> None:
        self.kept_back = threading.Event()
        self.looked = threading.Event()
        self.kept_back.set()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if threading.current_thread().name == "kept back":
            self.looked.set()
            assert self.kept_back.wait(PATIENCE_S)
        return [None] * len(keys)

    def set_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        return 0

    def clear(self) -> None:
        pass

    def usage(self) -> Usage:
        return Usage()

    def close(self) -> None:
        pass


def test_what_ends_between_two_looks_is_not_computed_again() -> None:
    """One has looked into the store and found nothing; before he says that he will compute, another is done with it."""
    store = Forgetful()
    store.kept_back.clear()
    cache = EmbeddingCache(store)
    rows: list[Array] = []
    late = threading.Thread(target=lambda: rows.extend(cache.through(keys([1]), never)), name="kept back")
    late.start()
    assert store.looked.wait(PATIENCE_S)
    cache.through(keys([1, 2]), lambda _: vectors([1, 2]))
    store.kept_back.set()
    late.join(PATIENCE_S)
    np.testing.assert_array_equal(rows, vectors([1]))
    assert cache.statistics.waited == 1


@pytest.mark.timeout(60)
async def test_a_thread_does_not_wait_for_its_own_event_loop(cache: EmbeddingCache) -> None:
    """A synchronous call inside a coroutine would stop the very task that it waits for: it computes alone."""
    slow = Slow([1])
    owner = asyncio.create_task(cache.athrough(keys([1]), slow.aio))
    await auntil(slow.begun.is_set)
    np.testing.assert_array_equal(cache.through(keys([1]), lambda _: vectors([1])), vectors([1]))
    slow.go.set()
    np.testing.assert_array_equal(await owner, vectors([1]))
    assert cache.statistics.misses == 2


@pytest.mark.timeout(60)
def test_a_computation_may_use_the_cache_itself(cache: EmbeddingCache) -> None:
    def inner(_: list[int]) -> list[Array]:
        return vectors([1])

    async def ainner(_: list[int]) -> list[Array]:
        return vectors([1])

    rows = cache.through(keys([1]), lambda _: cache.through(keys([1]), inner))
    np.testing.assert_array_equal(rows, vectors([1]))
    cache.clear()
    rows = cache.through(keys([1]), lambda _: asyncio.run(cache.athrough(keys([1]), ainner)))
    np.testing.assert_array_equal(rows, vectors([1]))


FORK = """
import os, sys, threading
import numpy as np
from lemni.client.cache import EmbeddingCache, MemoryStore

cache = EmbeddingCache(MemoryStore())
begun, go = threading.Event(), threading.Event()
def slow(positions):
    begun.set()
    go.wait()
    return [np.ones(2, np.float32)]
owner = threading.Thread(target=cache.through, args=([bytes(32)], slow))
owner.start()
begun.wait()
child = os.fork()
if child == 0:
    rows = cache.through([bytes(32)], lambda positions: [np.zeros(2, np.float32)])
    os._exit(0 if rows[0].tolist() == [0, 0] else 1)
_, status = os.waitpid(child, 0)
go.set()
owner.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_does_not_wait_for_the_parents_threads() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=30)
