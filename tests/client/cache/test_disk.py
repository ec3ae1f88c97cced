"""The store on disk: several processes, limits, and files that others have written to."""

from __future__ import annotations

import logging
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import diskcache
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.client.cache import EmbeddingCache, open_cache
from lemni.client.cache.disk import DiskStore
from lemni.client.cache.disk_rows import RowsOnly
from lemni.errors import ConfigError

# From 3.13 on Python says so when SQLite's connections end with their threads, as diskcache's do.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")

A, B, C = (bytes([index]) * 32 for index in range(3))
MIB = 2**20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    store = DiskStore(tmp_path / "cache")
    yield store
    store.close()


def change(store_folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(store_folder / "cache.db")) as connection, connection:
        connection.execute(statement, values)


def test_there_and_back(store: DiskStore) -> None:
    large = os.urandom(3 * MIB)
    store.set_many([(A, b""), (B, large), (A, b"\0\xff newer")])
    assert store.get_many([B, C, A, B]) == [large, None, b"\0\xff newer", large]
    assert store.usage().entries == 2
    assert (store.usage().bytes or 0) > 3 * MIB
    store.clear()
    assert store.get_many([A, B]) == [None, None]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.binary(max_size=200)), max_size=8))
def test_like_a_dictionary(tmp_path_factory: pytest.TempPathFactory, items: list[tuple[bytes, bytes]]) -> None:
    store = DiskStore(tmp_path_factory.mktemp("cache"))
    store.set_many(items[:4])
    store.set_many(items[4:])
    assert store.get_many([A, B, C]) == [dict(items).get(key) for key in (A, B, C)]
    store.close()


def test_it_outlives_the_process(tmp_path: Path) -> None:
    first = DiskStore(tmp_path)
    first.set_many([(A, b"a")])
    first.close()
    second = DiskStore(tmp_path)
    assert second.get_many([A]) == [b"a"]
    second.close()


def test_values_expire_and_leave_the_file(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, ttl_s=0.1)
    store.set_many([(A, b"a"), (B, b"b")])
    assert store.get_many([A, B]) == [b"a", b"b"]
    time.sleep(0.15)
    assert store.get_many([A, B]) == [None, None]
    store.set_many([(C, b"c")])
    assert store.usage().entries == 1
    store.close()
    time.sleep(0.15)
    store = DiskStore(tmp_path)
    assert store.usage().entries == 0
    store.close()


def test_the_oldest_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, max_bytes=MIB)
    keys = [os.urandom(32) for _ in range(1200)]
    for start in range(0, 1200, 400):
        store.set_many([(key, os.urandom(1552)) for key in keys[start : start + 400]])
        assert (store.usage().bytes or 0) <= MIB
    held = [value is not None for value in store.get_many(keys)]
    assert held == sorted(held)  # none before the first that is held
    assert (store.usage().bytes or 0) > 0.85 * MIB
    store.close()  # which writes SQLite's log into the file
    assert (tmp_path / "cache.db").stat().st_size <= MIB


def test_a_value_over_the_limit_is_not_stored(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, max_bytes=MIB)
    store.set_many([(A, b"a"), (B, b"old")])
    assert store.set_many([(B, bytes(MIB)), (C, b"c")]) == 1
    assert store.get_many([A, B]) == [b"a", None]
    store.close()


def test_a_lower_limit_counts_at_once(tmp_path: Path) -> None:
    large = DiskStore(tmp_path)
    large.set_many([(os.urandom(32), os.urandom(10_000)) for _ in range(300)])
    assert (large.usage().bytes or 0) > 2 * MIB
    large.close()
    small = DiskStore(tmp_path, max_bytes=MIB)
    assert (small.usage().bytes or 0) <= MIB
    small.close()


WORKER = """
import sys
import numpy as np
from lemni.client.cache import open_cache

folder, seed = sys.argv[1], int(sys.argv[2])
cache = open_cache("disk:" + folder)
computed = 0
def compute(positions):
    global computed
    computed += len(positions)
    return [np.full(64, numbers[position], np.float32) for position in positions]
for round in range(20):
    numbers = [(seed * 10 + round * 7 + step) % 200 for step in range(20)]
    rows = cache.through([number.to_bytes(32, "big") for number in numbers], compute)
    for number, row in zip(numbers, rows):
        assert (row == number).all(), (number, row)
print(computed)
"""


def test_several_processes_at_once(tmp_path: Path) -> None:
    """Each gets right vectors, nobody is told of a locked file, and what one has computed serves the others."""
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(seed)], stdout=-1, stderr=-1, text=True)
        for seed in range(3)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert (worker.returncode, errors) == (0, "")
    late = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path), "0"], capture_output=True, text=True, check=True
    )
    assert late.stdout.strip() == "0"
    store = DiskStore(tmp_path)
    assert store.usage().entries == 153 + 20  # the numbers 0..152 and 180..199 are those that the seeds ask for
    store.close()


def test_many_threads(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    wrong: list[bytes] = []

    def work(seed: int) -> None:
        for step in range(40):
            key = bytes([(seed * 7 + step) % 50]) * 32
            if store.get_many([key])[0] not in (None, key):
                wrong.append(key)
            store.set_many([(key, key)])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.usage().entries == 50
    store.close()


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_foreign_pickle_is_a_miss_and_does_not_run(tmp_path: Path) -> None:
    """With diskcache itself it does run: the row is a real one."""
    attacker = diskcache.Cache(str(tmp_path / "cache"))
    attacker[A] = Malicious(tmp_path / "ran")  # in the row
    attacker[B] = [Malicious(tmp_path / "ran"), "x" * 100_000]  # in a file of its own
    attacker.close()

    store = DiskStore(tmp_path / "cache")
    assert store.get_many([A, B]) == [None, None]
    rows = EmbeddingCache(store).through([A], lambda positions: [np.ones(3, np.float32) for _ in positions])
    np.testing.assert_array_equal(rows, np.ones((1, 3)))
    assert store.get_many([A])[0] is not None
    store.clear()
    store.close()
    assert not (tmp_path / "ran").exists()

    victim = diskcache.Cache(str(tmp_path / "cache"))
    victim[A] = Malicious(tmp_path / "ran")
    victim.get(A)
    victim.close()
    assert (tmp_path / "ran").is_dir()


def test_a_pickled_key_does_not_run(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "cache")
    store.set_many([(A, b"a")])
    change(tmp_path / "cache", "UPDATE Cache SET key = ?, raw = 0", pickle.dumps(Malicious(tmp_path / "ran")))
    assert store.get_many([A]) == [None]
    assert store.usage().entries == 1
    store.clear()
    store.close()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("expired", [False, True])
def test_a_row_that_names_a_file_neither_reads_nor_deletes_it(tmp_path: Path, expired: bool) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    store = DiskStore(tmp_path / "cache")
    store.set_many([(A, b"a")])
    end = time.time() + (-10 if expired else 100)
    statement = "UPDATE Cache SET mode = 2, filename = ?, value = NULL, expire_time = ?"
    change(tmp_path / "cache", statement, "../secret", end)
    assert store.get_many([A]) == [None]
    store.set_many([(B, b"b")])
    store.set_many([(A, b"new")])
    store.clear()
    store.close()
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize("value", ["text", 1, 2.5, None])
def test_rows_of_other_types_are_misses(store: DiskStore, tmp_path: Path, value: object) -> None:
    store.set_many([(A, b"a")])
    change(tmp_path / "cache", "UPDATE Cache SET value = ?", value)
    assert store.get_many([A]) == [None]


@pytest.mark.parametrize("value", ["text", 1, [b"a"], bytearray(b"a")])
def test_nothing_but_bytes_is_ever_written(tmp_path: Path, value: object) -> None:
    cache = diskcache.Cache(str(tmp_path), disk=RowsOnly)
    with pytest.raises(TypeError, match="only bytes are stored"):
        cache.set(A, value)
    with pytest.raises(TypeError, match="only bytes are stored"):
        cache.set(value, b"a")
    assert len(cache) == 0
    cache.close()


def test_a_damaged_value_is_a_miss(store: DiskStore, tmp_path: Path) -> None:
    cache = EmbeddingCache(store)
    cache.through([A], lambda _: [np.arange(8, dtype=np.float32)])
    (value,) = store.get_many([A])
    assert value is not None
    change(tmp_path / "cache", "UPDATE Cache SET value = ?", value[:-5] + b"\x01" + value[-4:])
    (row,) = cache.through([A], lambda _: [np.full(8, 2, np.float32)])
    np.testing.assert_array_equal(row, np.full(8, 2))
    assert cache.statistics.misses == 2


@pytest.mark.parametrize(
    ("content", "deletable"),
    [
        (b"this is no database, but a text of some length" * 100, False),
        (b"SQLite format 3\0" + b"\xff" * 4080, True),
    ],
    ids=["text", "header-only"],
)
def test_a_corrupt_file_is_said_at_open(tmp_path: Path, content: bytes, deletable: bool) -> None:
    (tmp_path / "cache.db").write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot be opened .* choose another folder") as error:
        open_cache(f"disk:{tmp_path}")
    assert (f"delete {tmp_path}/cache.db*" in str(error.value)) is deletable
    assert (tmp_path / "cache.db").read_bytes() == content


def test_another_database_is_said_at_open(tmp_path: Path) -> None:
    change(tmp_path, "CREATE TABLE Settings (wrong)")
    with pytest.raises(ConfigError, match="cannot be opened") as error:
        DiskStore(tmp_path)
    assert "delete" not in str(error.value)


@pytest.mark.parametrize(("name", "why"), [("cache", "it is a file"), ("cache/below", "Not a directory")])
def test_a_folder_that_cannot_be(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(ConfigError) as error:
        DiskStore(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name} cannot be the cache's folder: {why}"


def test_a_file_that_breaks_later_costs_hits_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    store = DiskStore(tmp_path)
    store.set_many([(os.urandom(32), os.urandom(2000)) for _ in range(200)] + [(A, b"a")])
    store.close()
    file = tmp_path / "cache.db"
    content = bytearray(file.read_bytes())
    store = DiskStore(tmp_path)
    store.close()
    content[4096 * 2 :] = os.urandom(len(content) - 4096 * 2)
    file.write_bytes(content)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"cache.db{suffix}").unlink(missing_ok=True)
    assert store.get_many([A, B]) == [None, None]
    store.set_many([(A, b"a")])
    assert store.get_many([A]) == [None]
    assert len(caplog.records) == 1
    assert str(tmp_path) in caplog.text
    store.close()


def test_a_folder_is_the_owners_alone(store: DiskStore, tmp_path: Path) -> None:
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("limits", [{"max_bytes": 1000}, {"ttl_s": -1.0}])
def test_limits_that_hold_nothing(tmp_path: Path, limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"max_bytes of at least|ttl_s must be above 0"):
        DiskStore(tmp_path, **limits)
