"""The store in memory against a plain model of least recently used with an age limit."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lemni.client.cache import MemoryStore
from lemni.client.cache.memory import ENTRY_BYTES
from lemni.errors import ConfigError

KEYS = [bytes([index]) * 32 for index in range(6)]


class AgainstModel(RuleBasedStateMachine):
    """Every answer of the store is that of an ordered dictionary that is written to be obvious."""

    @initialize(room=st.integers(1, 4), ttl_s=st.sampled_from([1.0, 5.0]))
    def start(self, room: int, ttl_s: float) -> None:
        self.now = 0.0
        self.limit = room * (ENTRY_BYTES + 100)
        self.ttl_s = ttl_s
        self.store = MemoryStore(self.limit, ttl_s, clock=lambda: self.now)
        self.model: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()  # least recently used first

    def expire(self) -> None:
        for key, (_, end) in list(self.model.items()):
            if end <= self.now:
                del self.model[key]

    def taken(self) -> int:
        return sum(ENTRY_BYTES + len(value) for value, _ in self.model.values())

    @rule(key=st.sampled_from(KEYS), size=st.sampled_from([0, 50, 100, 300, 2500]))
    def put(self, key: bytes, size: int) -> None:
        value = os.urandom(size)
        self.store.set_many([(key, value)])
        self.expire()
        self.model.pop(key, None)
        if ENTRY_BYTES + size <= self.limit:
            while self.taken() + ENTRY_BYTES + size > self.limit:
                self.model.popitem(last=False)
            self.model[key] = (value, self.now + self.ttl_s)

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=4))
    def get(self, keys: list[bytes]) -> None:
        self.expire()
        expected = []
        for key in keys:
            expected.append(self.model[key][0] if key in self.model else None)
            if key in self.model:
                self.model.move_to_end(key)
        assert self.store.get_many(keys) == expected

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    @invariant()
    def as_full_as_the_model(self) -> None:
        self.expire()
        usage = self.store.usage()
        assert (usage.entries, usage.bytes) == (len(self.model), self.taken())
        assert usage.bytes is not None
        assert usage.bytes <= self.limit


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_putting_a_larger_value_may_throw_out_others_but_not_itself() -> None:
    store = MemoryStore(3 * (ENTRY_BYTES + 100))
    store.set_many([(key, bytes(100)) for key in KEYS[:3]])
    assert store.set_many([(KEYS[0], bytes(400)), (b"z" * 32, bytes(10_000))]) == 1
    assert store.get_many(KEYS[:3]) == [bytes(400), None, bytes(100)]


def test_the_limit_is_what_python_really_takes() -> None:
    """Never over it; and not so far under it that the cache is smaller than what was asked for."""
    limit = 8 * 2**20
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        store = MemoryStore(limit)
        for _ in range(8192):
            store.set_many([(os.urandom(32), os.urandom(1552))])  # 384 float32 and their head
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.85 * limit < taken <= limit


def test_many_threads() -> None:
    store = MemoryStore(50 * (ENTRY_BYTES + 32))
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        for step in range(300):
            key = bytes([(seed * 7 + step) % 100]) * 32
            (value,) = store.get_many([key])
            if value not in (None, key):
                wrong.append(key)
            store.set_many([(key, key)])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.usage().entries == 50


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_bytes": -1}, {"ttl_s": 0}, {"ttl_s": float("nan")}])
def test_limits_that_hold_nothing(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        MemoryStore(**limits)  # type: ignore[arg-type]
