"""Requests straight to a server, on kept connections, for threads: httpcore's streams and httptools' parser.

A third of the CPU time that a call takes through httpx, whose parsing and bookkeeping are Python (`python -m benchmarks
client`). `transport.py` calls it for what needs no proxy. `async_direct.py` is its twin.
"""

from __future__ import annotations

import contextlib
import functools
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import httpcore
import httpx

from lemni.client.conversation import Send
from lemni.client.errors import ClientError
from lemni.client.failures import FAILURES, failed
from lemni.client.wire.http import HttpReply
from lemni.client.wire.http1 import Opening, Reading, opening_of, request_headers

MOST_IN_USE = 128
# Below uvicorn's 5 s: a connection that the server is about to close is not used.
LONGEST_IDLE_S = 4.0
CHUNK = 1 << 18  # bytes read at once

Origin = tuple[str, str, int]

StreamT = TypeVar("StreamT")


class Idle(Generic[StreamT]):
    """Connections that wait for the next request; the one that was used last goes first. Thread-safe."""

    def __init__(self, is_good: Callable[[StreamT], bool]) -> None:
        self._is_good = is_good
        self._lock = threading.Lock()
        self._waiting: list[tuple[Origin, float, StreamT]] = []
        self._closed = False

    def take(self, origin: Origin) -> tuple[StreamT | None, list[StreamT]]:
        """A connection to `origin`, if there is a good one, and those that should be closed."""
        oldest = time.monotonic() - LONGEST_IDLE_S
        with self._lock:
            stale = [stream for _, since, stream in self._waiting if since < oldest]
            self._waiting = [entry for entry in self._waiting if entry[1] >= oldest]
            for place in range(len(self._waiting) - 1, -1, -1):
                if self._waiting[place][0] == origin:
                    stream = self._waiting.pop(place)[2]
                    if self._is_good(stream):
                        return stream, stale
                    stale.append(stream)
        return None, stale

    def give(self, origin: Origin, stream: StreamT) -> bool:
        """Keep a connection; False if it should be closed instead."""
        with self._lock:
            if self._closed:
                return False
            self._waiting.append((origin, time.monotonic(), stream))
            return True

    def close(self) -> list[StreamT]:
        """Keep none any more. Returns those that are to be closed."""
        with self._lock:
            self._closed = True
            streams = [stream for _, _, stream in self._waiting]
            self._waiting = []
            return streams


class Prepared:
    """What is made once for all requests of a client: how they begin, and whom they trust."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._openings = functools.lru_cache(64)(self._write)

    def opening(self, send: Send) -> Opening:
        """The opening of this request. Raises InvalidRequest."""
        return self._openings(send.url, send.request.accept, send.request.body is not None)

    @functools.cached_property
    def tls(self) -> ssl.SSLContext:
        """What httpx trusts, `SSL_CERT_FILE` included."""
        context = httpx.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _write(self, url: str, accept: str, has_body: bool) -> Opening:
        return opening_of(url, "POST" if has_body else "GET", request_headers(accept, has_body, self._headers))


class Direct:
    """Connections for threads."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._prepared = Prepared(headers)
        self._backend = httpcore.SyncBackend()
        # Before a request there is nothing to read but the end.
        self._idle: Idle[httpcore.NetworkStream] = Idle(lambda stream: not stream.get_extra_info("is_readable"))
        self._free = threading.BoundedSemaphore(MOST_IN_USE)

    def exchange(self, send: Send) -> HttpReply | ClientError:
        """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
        deadline = time.monotonic() + send.timeout_s
        opening = self._prepared.opening(send)
        reading = Reading()
        stream = None
        if not self._free.acquire(timeout=send.timeout_s):
            return failed(httpcore.PoolTimeout(), send)
        try:
            stream, stale = self._idle.take(opening.origin)
            for one in stale:
                one.close()
            if stream is None:
                stream = self._connect(opening.origin, deadline)
            with contextlib.suppress(httpcore.WriteError):  # who refuses a body may answer before it is sent
                stream.write(message(opening, send), left_s(deadline))
            while not reading.whole:
                reading.feed(stream.read(CHUNK, left_s(deadline)))
            return reading.reply()
        except FAILURES as error:
            return failed(error, send)
        finally:
            if stream is not None and not (reading.reusable and self._idle.give(opening.origin, stream)):
                stream.close()
            self._free.release()

    def close(self) -> None:
        """Close what is idle now, and the others when they are done."""
        for stream in self._idle.close():
            stream.close()

    def _connect(self, origin: Origin, deadline: float) -> httpcore.NetworkStream:
        scheme, host, port = origin
        stream = self._backend.connect_tcp(host, port, left_s(deadline))
        if scheme == "https":
            try:
                return stream.start_tls(self._prepared.tls, host, left_s(deadline))
            except BaseException:
                stream.close()
                raise
        return stream


def left_s(deadline: float) -> float:
    """Seconds until time.monotonic() is `deadline`. Raises httpcore.ReadTimeout."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left


def message(opening: Opening, send: Send) -> bytes:
    """The bytes of a request."""
    body = send.request.body or b""
    return b"%b%d\r\n\r\n%b" % (opening.head, len(body), body)
