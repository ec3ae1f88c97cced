"""The cache in a Redis or Valkey server, shared by many machines.

A cache that is down or slow must not be felt: reads become misses, writes are dropped, the log says so once, and the
server is left alone for a while before it is asked again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from lemni.client.cache.stores import DAY_S, Usage, check_limits
from lemni.errors import ConfigError, Unavailable, missing_extra

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

T = TypeVar("T")

# Keys in one command, so that a large batch does not hold up the server's other clients.
_CHUNK = 256
# Threads that talk to the server at once; further ones wait, no longer than for an answer.
_MAX_CONNECTIONS = 32


class RedisStore:
    """Values in a Redis or Valkey server, each with its own expiry; how much it holds is the server's `maxmemory`.

    Args:
        url: `redis://[user:password@]host:port/db`, `rediss://` for TLS, `unix://path`, or `valkey://` and `valkeys://`,
            which mean the same; or a client of the `redis` package, which stays the caller's to close, and whose
            timeouts and retries count instead of `timeout_s`.
        prefix: in front of every key, so that others can use the same database.
        ttl_s: how long a value is held after it was stored.
        timeout_s: the longest to wait for a connection, and for an answer.
        rest_s: how long a server that failed is not asked.
        clock: seconds that only rise.

    Raises:
        ConfigError: the URL is none, the client decodes answers into text, or a limit is not above zero.
        MissingExtra: the redis package is not installed.
    """

    blocking = True

    def __init__(
        self,
        url: str | Redis = "redis://localhost:6379/0",
        prefix: str = "lemni:",
        ttl_s: float = DAY_S,
        *,
        timeout_s: float = 1.0,
        rest_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_limits(ttl_s=ttl_s)
        try:
            import redis
        except ImportError:
            raise missing_extra("redis", "redis", "a cache in Redis") from None
        self._errors = (redis.RedisError, OSError)
        self._owned = isinstance(url, str)
        self._redis = _connect(url, timeout_s) if isinstance(url, str) else url
        if self._redis.get_encoder().decode_responses:
            raise ConfigError("the cache needs a Redis client that gives bytes: decode_responses=False", param="url")
        self._prefix = prefix.encode()
        self._expiry_ms = max(1, round(ttl_s * 1000))
        self._rest_s = rest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._resting_until: float | None = None

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        def read() -> list[bytes | None]:
            values: list[bytes | None] = []
            for chunk in _chunks(keys):
                values += self._redis.mget([self._prefix + key for key in chunk])
            return values

        return self._guarded(read, [None] * len(keys))

    def set_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        def write() -> int:
            for chunk in _chunks(items):
                with self._redis.pipeline(transaction=False) as pipeline:
                    for key, value in chunk:
                        pipeline.set(self._prefix + key, value, px=self._expiry_ms)
                    pipeline.execute()
            return len(items)

        return self._guarded(write, 0)

    def clear(self) -> None:
        pattern = (
            b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^-" else bytes([byte]) for byte in self._prefix) + b"*"
        )
        try:
            for chunk in _chunks(self._redis.scan_iter(match=pattern, count=1000)):
                self._redis.unlink(*chunk)
        except self._errors as error:
            raise Unavailable(f"the cache in {self} cannot be cleared: {error}") from error

    def usage(self) -> Usage:
        """Unknown: counting the keys of one prefix would go through the whole database."""
        return Usage()

    def close(self) -> None:
        if self._owned:
            self._redis.close()

    def __str__(self) -> str:
        where = self._redis.connection_pool.connection_kwargs
        place = where.get("path") or f"{where.get('host')}:{where.get('port')}"  # not the URL, which has the password
        return f"Redis at {place}"

    def _guarded(self, action: Callable[[], T], otherwise: T) -> T:
        """The result of an action, or what there is without a cache."""
        with self._lock:
            if self._resting_until is not None and self._clock() < self._resting_until:
                return otherwise
        try:
            result = action()
        except self._errors as error:
            with self._lock:
                first = self._resting_until is None
                self._resting_until = self._clock() + self._rest_s
            if first:
                log.warning(
                    "%s fails: %s. It is asked again every %g s; until then nothing is cached",
                    self,
                    str(error).rstrip(".") or type(error).__name__,
                    self._rest_s,
                )
            return otherwise
        if self._resting_until is not None:
            with self._lock:
                self._resting_until = None
            log.info("%s answers again", self)
        return result


def _connect(url: str, timeout_s: float) -> Redis:
    from redis import BlockingConnectionPool, ConnectionError, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    scheme, separator, rest = url.partition("://")
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme)
    try:
        pool = BlockingConnectionPool.from_url(
            scheme + separator + rest,
            max_connections=_MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Once more for a connection that the server has closed meanwhile; a slow answer is not asked for twice.
            retry=Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        )
    except ValueError as error:
        raise ConfigError(f"this is no URL of a Redis server ({error})", param="url") from error
    return Redis.from_pool(pool)


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
