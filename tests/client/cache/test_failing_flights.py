"""Whoever computes for others may be cancelled, interrupted, or fail: the others go on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lemni.client.cache import EmbeddingCache
from lemni.client.errors import RequestTimeout
from tests.client.cache.flying import PATIENCE_S, Array, Slow, anever, auntil, joined, keys, never, until, vectors


async def test_a_cancelled_owner_is_replaced(cache: EmbeddingCache) -> None:
    """One of those who waited computes, once; nobody else hears of the cancellation."""
    slow, second = Slow([1]), Slow([1])
    second.go.set()
    owner = asyncio.create_task(cache.athrough(keys([1]), slow.aio))
    await auntil(slow.begun.is_set)
    with ThreadPoolExecutor(2) as threads:
        waiters = [asyncio.create_task(cache.athrough(keys([1]), second.aio)) for _ in range(3)]
        waiters += [asyncio.wrap_future(threads.submit(cache.through, keys([1]), second)) for _ in range(2)]  # type: ignore[misc]
        await auntil(joined(cache, 1, 5))
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
        for rows in await asyncio.gather(*waiters):
            np.testing.assert_array_equal(rows, vectors([1]))
    assert second.asked == [[1]]
    assert not cache._flights._flying


async def test_a_cancelled_waiter_harms_nobody(cache: EmbeddingCache) -> None:
    slow = Slow([1])
    owner = asyncio.create_task(cache.athrough(keys([1]), slow.aio))
    await auntil(slow.begun.is_set)
    leaves, stays = (asyncio.create_task(cache.athrough(keys([1]), anever)) for _ in range(2))
    await auntil(joined(cache, 1, 2))
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    slow.go.set()
    for rows in await asyncio.gather(owner, stays):
        np.testing.assert_array_equal(rows, vectors([1]))


def test_a_coroutine_that_is_dropped_leaves_nothing(cache: EmbeddingCache) -> None:
    async def compute(_: list[int]) -> list[Array]:
        await asyncio.Event().wait()
        return []

    async def main() -> None:
        call = cache.athrough(keys([1]), compute)
        call.send(None)  # into `compute`
        assert cache._flights._flying
        call.close()

    asyncio.run(main())
    assert not cache._flights._flying
    np.testing.assert_array_equal(cache.through(keys([1]), lambda _: vectors([1])), vectors([1]))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_owner_is_replaced(cache: EmbeddingCache, interrupt: type[BaseException]) -> None:
    slow = Slow([1], interrupt())
    second = Slow([1])
    second.go.set()
    with ThreadPoolExecutor(3) as threads:
        owner = threads.submit(cache.through, keys([1]), slow)
        assert slow.begun.wait(PATIENCE_S)
        waiters = [threads.submit(cache.through, keys([1]), second) for _ in range(2)]
        until(joined(cache, 1, 2))
        slow.go.set()
        assert isinstance(owner.exception(PATIENCE_S), interrupt)
        for waiter in waiters:
            np.testing.assert_array_equal(waiter.result(PATIENCE_S), vectors([1]))
    assert second.asked == [[1]]


def test_an_owners_error_is_his_own(cache: EmbeddingCache) -> None:
    """The others compute for themselves, each at most once: with their own deadline, key and luck."""
    slow = Slow([1, 2], LookupError("the owner's"))
    fine, bad = Slow([1]), Slow([1], ValueError("the waiter's"))
    fine.go.set()
    bad.go.set()
    with ThreadPoolExecutor(3) as threads:
        owner = threads.submit(cache.through, keys([1, 2]), slow)
        assert slow.begun.wait(PATIENCE_S)
        good_waiter = threads.submit(cache.through, keys([1]), fine)
        bad_waiter = threads.submit(cache.through, keys([1]), bad)
        until(joined(cache, 1, 2))
        slow.go.set()
        with pytest.raises(LookupError, match="the owner's"):
            owner.result(PATIENCE_S)
        np.testing.assert_array_equal(good_waiter.result(PATIENCE_S), vectors([1]))
        error = bad_waiter.exception(PATIENCE_S)
    # If the other one was quicker, it is in the store already.
    assert error is None or str(error) == "the waiter's"
    assert fine.asked == [[1]]
    assert not cache._flights._flying


def test_a_failing_server_is_asked_once_by_each(cache: EmbeddingCache) -> None:
    calls = [Slow([1], LookupError(str(number))) for number in range(5)]
    with ThreadPoolExecutor(5) as threads:
        futures = [threads.submit(cache.through, keys([1]), calls[0])]
        assert calls[0].begun.wait(PATIENCE_S)
        futures += [threads.submit(cache.through, keys([1]), call) for call in calls[1:]]
        until(joined(cache, 1, 4))
        for call in calls:
            call.go.set()
        assert [str(future.exception(PATIENCE_S)) for future in futures] == list("01234")
    assert [call.asked for call in calls] == [[[1]]] * 5
    assert cache.statistics.waited == 0


class Partial(Exception):
    def __init__(self, finished: dict[int, Array]) -> None:
        self.finished = finished


def test_those_who_wait_get_the_finished_parts(cache: EmbeddingCache) -> None:
    slow = Slow([1, 2, 3], Partial({0: vectors([1])[0], 2: vectors([3])[0]}))
    asked: list[list[int]] = []

    def rest(positions: list[int]) -> list[Array]:
        asked.append(positions)
        return vectors([2])

    with ThreadPoolExecutor(2) as threads:
        owner = threads.submit(cache.through, keys([1, 2, 3]), slow)
        assert slow.begun.wait(PATIENCE_S)
        waiter = threads.submit(cache.through, keys([3, 2, 1]), rest)
        until(joined(cache, 1, 1))
        slow.go.set()
        assert isinstance(owner.exception(PATIENCE_S), Partial)
        np.testing.assert_array_equal(waiter.result(PATIENCE_S), vectors([3, 2, 1]))
    assert asked == [[1]]
    assert (cache.statistics.waited, cache.statistics.stored) == (2, 3)


async def test_waiting_has_a_limit(cache: EmbeddingCache) -> None:
    slow = Slow([1])
    owner = asyncio.create_task(cache.athrough(keys([1]), slow.aio))
    await auntil(slow.begun.is_set)
    with pytest.raises(RequestTimeout, match=r"another call computes the same input, and took longer than 0.05 s"):
        await cache.athrough(keys([1]), anever, timeout_s=0.05)
    with pytest.raises(RequestTimeout, match=r"longer than 0.05 s"):
        await asyncio.to_thread(cache.through, keys([1]), never, timeout_s=0.05)
    slow.go.set()
    np.testing.assert_array_equal(await owner, vectors([1]))
    np.testing.assert_array_equal(await cache.athrough(keys([1]), anever, timeout_s=0), vectors([1]))
