"""The cache of one caller: what is asked of `compute`, what comes back, what is counted, what an error leaves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.client.cache import EmbeddingCache, MemoryStore, open_cache
from lemni.client.cache.disk import DiskStore
from lemni.client.cache.redis import RedisStore
from lemni.errors import ConfigError, InvalidRequest

Array = np.ndarray[Any, Any]


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def vector(number: int) -> Array:
    return np.array([number, number + 0.5], np.float32)


class Computer:
    """Gives the vector of each number, and remembers what it was asked for."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers
        self.asked: list[list[int]] = []

    def __call__(self, positions: list[int]) -> list[Array]:
        self.asked.append([self.numbers[position] for position in positions])
        return [vector(self.numbers[position]) for position in positions]


def synchronous(cache: EmbeddingCache, numbers: Sequence[int], compute: Callable[[list[int]], Any]) -> list[Array]:
    return cache.through([key(number) for number in numbers], compute)


def asynchronous(cache: EmbeddingCache, numbers: Sequence[int], compute: Callable[[list[int]], Any]) -> list[Array]:
    async def acompute(positions: list[int]) -> Any:
        await asyncio.sleep(0)
        return compute(positions)

    return asyncio.run(cache.athrough([key(number) for number in numbers], acompute))


through = pytest.mark.parametrize("through", [synchronous, asynchronous])
Through = Callable[[EmbeddingCache, Sequence[int], Callable[[list[int]], Any]], list[Array]]


@through
def test_only_misses_are_computed_once_and_in_order(cache: EmbeddingCache, through: Through) -> None:
    first = Computer([3, 1])
    np.testing.assert_array_equal(through(cache, [3, 1], first), [vector(3), vector(1)])
    second = Computer([1, 2, 3, 2, 4])
    rows = through(cache, [1, 2, 3, 2, 4], second)
    np.testing.assert_array_equal(rows, [vector(number) for number in (1, 2, 3, 2, 4)])
    assert (first.asked, second.asked) == ([[3, 1]], [[2, 4]])


@through
def test_nothing_to_compute(cache: EmbeddingCache, through: Through) -> None:
    assert through(cache, [], lambda _: pytest.fail("asked")) == []
    through(cache, [1], Computer([1]))
    np.testing.assert_array_equal(through(cache, [1, 1], lambda _: pytest.fail("asked")), [vector(1), vector(1)])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=6), st.sampled_from([synchronous, asynchronous]))
def test_like_a_set_of_what_was_asked_before(batches: list[list[int]], through: Through) -> None:
    cache = EmbeddingCache(MemoryStore())
    known: set[int] = set()
    for numbers in batches:
        compute = Computer(numbers)
        rows = through(cache, numbers, compute)
        assert [row.tolist() for row in rows] == [vector(number).tolist() for number in numbers]
        new = [number for number in dict.fromkeys(numbers) if number not in known]
        assert compute.asked == ([new] if new else [])
        known.update(numbers)
    assert cache.statistics.misses == cache.statistics.stored == cache.statistics.entries == len(known)


@through
def test_a_caller_who_changes_his_array_changes_only_his(cache: EmbeddingCache, through: Through) -> None:
    mine = vector(1)
    computed = through(cache, [1, 1], lambda _: [mine])
    computed[0][:] = 7
    mine[:] = 8
    np.testing.assert_array_equal(computed[1], vector(1))
    hit = through(cache, [1, 1], lambda _: pytest.fail("held"))
    hit[0][:] = 9
    np.testing.assert_array_equal(hit[1], vector(1))
    np.testing.assert_array_equal(through(cache, [1], lambda _: pytest.fail("held")), [vector(1)])


@through
def test_a_hit_is_what_the_miss_was(cache: EmbeddingCache, through: Through) -> None:
    given: list[Array] = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(3, dtype=np.int8),
        np.arange(3, dtype=np.float16)[::-1],
        np.frombuffer(b"\x01\x02", np.uint8),
        np.zeros((0, 4), np.float32),
    ]
    misses = through(cache, range(5), lambda _: given)
    hits = through(cache, range(5), lambda _: pytest.fail("held"))
    for original, miss, hit in zip(given, misses, hits, strict=True):
        for array in (miss, hit):
            assert array.dtype == original.dtype
            assert array.flags.writeable
            np.testing.assert_array_equal(array, original)


@through
def test_a_matrix_is_a_list_of_vectors(cache: EmbeddingCache, through: Through) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(through(cache, [1, 2, 3], lambda _: matrix), matrix)


class Partial(Exception):
    """Of a list of three, two were done."""

    def __init__(self, finished: Mapping[int, Array]) -> None:
        super().__init__("the second failed")
        self.finished = finished


@through
def test_finished_parts_are_kept_and_errors_are_not(cache: EmbeddingCache, through: Through) -> None:
    def compute(_: list[int]) -> list[Array]:
        raise Partial({0: vector(1), 2: vector(3)})

    with pytest.raises(Partial):
        through(cache, [1, 2, 3], compute)
    again = Computer([1, 2, 3])
    np.testing.assert_array_equal(through(cache, [1, 2, 3], again), [vector(1), vector(2), vector(3)])
    assert again.asked == [[2]]


@pytest.mark.parametrize("finished", [None, "all", {}, {0: "no array"}])
def test_other_things_called_finished(cache: EmbeddingCache, finished: Any) -> None:
    def compute(_: list[int]) -> list[Array]:
        raise Partial(finished)

    with pytest.raises(Partial):
        synchronous(cache, [1], compute)
    assert cache.statistics.stored == 0


def test_an_error_may_be_widened_to_the_whole_list(cache: EmbeddingCache) -> None:
    """The caller learns of what was held and of equal inputs too, at their places in his own list."""
    synchronous(cache, [9], Computer([9]))
    seen: dict[str, Any] = {}

    def compute(_: list[int]) -> list[Array]:
        raise Partial({1: vector(2)})

    def widen(error: Exception, positions: list[int], known: Mapping[int, Array]) -> Exception:
        seen.update(error=error, positions=positions, known={place: row.tolist() for place, row in known.items()})
        return LookupError("wider")

    keys = [key(number) for number in (1, 9, 2, 9, 2)]
    with pytest.raises(LookupError, match="wider") as raised:
        cache.through(keys, compute, widen=widen)
    assert raised.value.__cause__ is seen["error"]
    assert isinstance(seen["error"], Partial)
    assert seen["positions"] == [0, 2]
    nine, two = vector(9).tolist(), vector(2).tolist()
    assert seen["known"] == {1: nine, 2: two, 3: nine, 4: two}

    with pytest.raises(Partial) as same:
        cache.through([key(1), key(5)], compute, widen=lambda error, *_: error)
    assert same.value.__cause__ is None


@through
def test_a_wrong_number_of_arrays(cache: EmbeddingCache, through: Through) -> None:
    with pytest.raises(ValueError, match="compute gave 1 arrays for 2 inputs"):
        through(cache, [1, 2], lambda _: [vector(1)])
    with pytest.raises(InvalidRequest, match="the cache keeps float32"):
        through(cache, [1], lambda _: [np.array(["text"])])
    assert cache.statistics.stored == 0
    np.testing.assert_array_equal(through(cache, [1], Computer([1])), [vector(1)])


@through
def test_a_value_that_does_not_fit_is_computed_again(through: Through) -> None:
    cache = EmbeddingCache(MemoryStore(max_bytes=1000))
    for _ in range(2):
        (row,) = through(cache, [1], lambda _: [np.ones(1000, np.float32)])
        assert row.shape == (1000,)
    assert (cache.statistics.misses, cache.statistics.entries) == (2, 0)


@through
def test_a_damaged_value_is_a_miss(cache: EmbeddingCache, through: Through) -> None:
    cache.store.set_many([(key(1), b"damaged")])
    np.testing.assert_array_equal(through(cache, [1], Computer([1])), [vector(1)])
    np.testing.assert_array_equal(through(cache, [1], lambda _: pytest.fail("mended")), [vector(1)])


def test_statistics(cache: EmbeddingCache) -> None:
    assert cache.statistics.hit_rate == 0.0
    synchronous(cache, [1, 2, 2], Computer([1, 2, 2]))
    asynchronous(cache, [1, 2, 3, 3], Computer([1, 2, 3, 3]))
    now = cache.statistics
    assert (now.hits, now.misses, now.waited, now.stored, now.entries) == (2, 3, 0, 3, 3)
    assert now.hit_rate == 0.4
    assert now.bytes == cache.store.usage().bytes
    cache.clear()
    assert cache.statistics.entries == cache.statistics.bytes == 0
    assert cache.statistics.hits == 2
    np.testing.assert_array_equal(synchronous(cache, [1], Computer([1])), [vector(1)])
    cache.close()


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # see test_disk.py
async def test_a_blocking_store_leaves_the_event_loop_free(tmp_path: Path) -> None:
    """Reads and writes of the disk happen in another thread than the loop's."""
    cache = open_cache(f"disk:{tmp_path}")
    assert cache is not None

    async def compute(_: list[int]) -> list[Array]:
        return [vector(1)]

    # SQLite's connections belong to the thread that uses them: the loop's own has none but the one of opening.
    cache.close()
    await cache.athrough([key(1)], compute)
    await cache.athrough([key(1)], compute)
    assert getattr(cache.store._cache._local, "con", None) is None  # type: ignore[attr-defined]
    assert (cache.statistics.hits, cache.statistics.misses) == (1, 1)
    cache.close()


def test_words(tmp_path: Path) -> None:
    assert open_cache(None) is None
    assert open_cache("memory", ttl_s=0) is None
    opened = {
        "memory": MemoryStore,
        f"disk:{tmp_path}": DiskStore,
        "redis://localhost:6379/0": RedisStore,
        "rediss://localhost": RedisStore,
        "valkey://localhost": RedisStore,
        "valkeys://localhost": RedisStore,
        "unix:///run/redis.sock": RedisStore,
    }
    for word, kind in opened.items():
        cache = open_cache(word, ttl_s=60)
        assert cache is not None
        assert type(cache.store) is kind
        cache.close()
    assert (tmp_path / "cache.db").exists()


@pytest.mark.parametrize(
    ("word", "limits", "message"),
    [
        ("", {}, "unknown cache '': choose"),
        ("memcached://user:password@localhost", {}, "unknown cache 'memcached': choose"),
        ("disk", {}, "names no folder"),
        ("disk:", {}, "names no folder"),
        ("memory:1GB", {}, "takes nothing after its name"),
        ("memory", {"ttl_s": -1}, "ttl_s must be above 0"),
        ("memory", {"max_bytes": 0}, "max_bytes must be above 0"),
        ("redis://localhost", {"max_bytes": 10}, "limits its memory itself"),
    ],
)
def test_words_that_are_wrong(word: str, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_cache(word, **limits)


BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("diskcache", "redis", "httpx"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
import lemni.client.cache
from lemni.client.cache import open_cache
from lemni.errors import MissingExtra
for word in ("disk:/nowhere", "redis://localhost"):
    try:
        open_cache(word)
    except MissingExtra as error:
        print(error)
heavy = {"diskcache", "redis", "httpx", "openvino", "torch", "tokenizers", "pydantic", "PIL"}
print(sorted(heavy & set(sys.modules)))
"""


def test_without_the_extras_the_message_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    disk, redis, loaded = done.stdout.splitlines()
    assert disk.endswith("pip install 'lemni[disk-cache]'")
    assert redis.endswith("pip install 'lemni[redis]'")
    assert loaded == "[]"


def test_compute_may_be_any_awaitable(cache: EmbeddingCache) -> None:
    async def main() -> list[Array]:
        def compute(_: list[int]) -> Awaitable[list[Array]]:
            future: asyncio.Future[list[Array]] = asyncio.get_running_loop().create_future()
            future.set_result([vector(1)])
            return future

        return await cache.athrough([key(1)], compute)

    np.testing.assert_array_equal(asyncio.run(main()), [vector(1)])
