"""Sends one request, sync or async, and turns what can go wrong into the client's errors.

Requests go through httpcore, the lower half of httpx, at half of its CPU time. Through httpx itself go those that need
more: a proxy of the environment, or a client that was given.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.request import getproxies

import httpcore
import httpx

from lemni.client.conversation import Send
from lemni.client.deadlines import DeadlineBackend
from lemni.client.errors import ClientError
from lemni.client.failures import FAILURES, failed, late, no_url
from lemni.client.wire.http import HttpReply, request_headers

MOST_IN_USE = 128
# Below uvicorn's 5 s: a connection that the server is about to close is not used.
LONGEST_IDLE_S = 4.0
_POOL: Any = {"max_connections": MOST_IN_USE, "keepalive_expiry": LONGEST_IDLE_S}
_LIMITS = httpx.Limits(max_connections=MOST_IN_USE, keepalive_expiry=LONGEST_IDLE_S)


class Transport:
    """A client's connections. Thread-safe."""

    def __init__(self, headers: Mapping[str, str], http: httpx.Client | None = None) -> None:
        """
        Args:
            headers: of all requests.
            http: sends everything, and is not closed here.
        """
        self._prepared = Prepared(headers)
        self._given = http
        self._by_httpx = http is not None or _has_proxies()
        self._backend = DeadlineBackend()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._closed = False

    def exchange(self, send: Send) -> HttpReply | ClientError:
        """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
        with self._lock:
            self._in_flight += 1
        try:
            return self._through_httpx(send) if self._by_httpx else self._through_pool(send)
        except FAILURES as error:
            return failed(error, send)
        finally:
            with self._lock:
                self._in_flight -= 1
                last = self._closed and not self._in_flight
            if last:
                self._close_pools()

    def close(self) -> None:
        """Close the connections when no thread uses them any more: at once, or at the end of what is in flight.

        A socket that is closed under a thread that reads from it leaves the thread waiting, or reading from another.
        """
        with self._lock:
            self._closed = True
            idle = not self._in_flight
        if idle:
            self._close_pools()

    def _through_pool(self, send: Send) -> HttpReply:
        with self._backend.until(time.monotonic() + send.timeout_s):
            request = self._prepared.request(send)
            with self._lock:  # threads that begin together share one pool
                pool = self._secure if request.url.scheme == b"https" else self._plain
            response = pool.handle_request(request)
            try:
                chunks = list(response.iter_stream())
            finally:
                response.close()
        return _reply(response, chunks)

    def _close_pools(self) -> None:
        # What was never asked for was never made.
        for name in ("_plain", "_secure", *(() if self._given else ("_http",))):
            if name in self.__dict__:
                getattr(self, name).close()

    def _through_httpx(self, send: Send) -> HttpReply | ClientError:
        deadline = time.monotonic() + send.timeout_s
        with self._lock:
            http = self._http
        response = http.send(self._prepared.httpx_request(http, send), stream=True)
        try:
            chunks = []
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if time.monotonic() > deadline:  # httpx's own timeout begins anew with every byte
                    return late(send)
        finally:
            response.close()
        return _httpx_reply(response, chunks)

    @functools.cached_property
    def _plain(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(network_backend=self._backend, **_POOL)

    @functools.cached_property
    def _secure(self) -> httpcore.ConnectionPool:
        return httpcore.ConnectionPool(httpx.create_ssl_context(), network_backend=self._backend, **_POOL)

    @functools.cached_property
    def _http(self) -> httpx.Client:
        return self._given or httpx.Client(limits=_LIMITS)


class AsyncTransport:
    """A client's connections on one event loop."""

    def __init__(self, headers: Mapping[str, str], http: httpx.AsyncClient | None = None) -> None:
        """
        Args:
            headers: of all requests.
            http: sends everything, and is not closed here.
        """
        self._prepared = Prepared(headers)
        self._given = http
        self._by_httpx = http is not None or _has_proxies()

    async def exchange(self, send: Send) -> HttpReply | ClientError:
        """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
        talk = self._through_httpx if self._by_httpx else self._through_pool
        try:
            return await asyncio.wait_for(talk(send), send.timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            return late(send)
        except FAILURES as error:
            return failed(error, send)

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        for name in ("_plain", "_secure", *(() if self._given else ("_http",))):
            if name in self.__dict__:
                await getattr(self, name).aclose()

    async def _through_pool(self, send: Send) -> HttpReply:
        request = self._prepared.request(send)
        pool = self._secure if request.url.scheme == b"https" else self._plain
        response = await pool.handle_async_request(request)
        try:
            chunks = [chunk async for chunk in response.aiter_stream()]
        finally:
            await response.aclose()
        return _reply(response, chunks)

    async def _through_httpx(self, send: Send) -> HttpReply:
        response = await self._http.send(self._prepared.httpx_request(self._http, send), stream=True)
        try:
            chunks = [chunk async for chunk in response.aiter_bytes()]
        finally:
            await response.aclose()
        return _httpx_reply(response, chunks)

    @functools.cached_property
    def _plain(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(**_POOL)

    @functools.cached_property
    def _secure(self) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(httpx.create_ssl_context(), **_POOL)

    @functools.cached_property
    def _http(self) -> httpx.AsyncClient:
        return self._given or httpx.AsyncClient(limits=_LIMITS)


class Prepared:
    """What is the same for all requests of a client: URLs and headers as bytes, made once."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._made = functools.lru_cache(64)(self._make)

    def request(self, send: Send) -> httpcore.Request:
        """For httpcore. Raises InvalidRequest."""
        body = send.request.body
        url, headers = self._made(send.url, send.request.accept, body is not None)
        if body is not None:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        timeout = dict.fromkeys(("pool", "connect", "write", "read"), send.timeout_s)
        return httpcore.Request(
            send.request.method, url, headers=headers, content=body, extensions={"timeout": timeout}
        )

    def httpx_request(self, http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        """For httpx. Raises InvalidRequest."""
        body = send.request.body
        headers = request_headers(send.request.accept, body is not None, self._headers)
        return http.build_request(send.request.method, send.url, content=body, headers=headers, timeout=send.timeout_s)

    def _make(self, url: str, accept: str, has_body: bool) -> tuple[httpcore.URL, list[tuple[bytes, bytes]]]:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise no_url(url, error) from error
        if not parsed.raw_host:
            raise no_url(url, "it has no host")
        target = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path)
        headers = {"host": parsed.netloc.decode("ascii"), **request_headers(accept, has_body, self._headers)}
        return target, [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]


def _has_proxies() -> bool:
    # As httpx asks, but without its exceptions for some hosts: it knows them itself.
    return any(getproxies().get(scheme) for scheme in ("http", "https", "all"))


def _reply(response: httpcore.Response, chunks: list[bytes]) -> HttpReply:
    headers: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    body = _joined(chunks)
    if (coding := headers.get("content-encoding", "identity")) != "identity":  # though nobody asked for it
        body = httpx.Response(200, headers={"content-encoding": coding}, content=body).content
    return HttpReply(response.status, headers, body)


def _httpx_reply(response: httpx.Response, chunks: list[bytes]) -> HttpReply:
    return HttpReply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, _joined(chunks))


def _joined(chunks: list[bytes]) -> bytes:
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
