"""Sends one request, sync or async, and turns what can go wrong into the client's errors.

Requests go straight to the server (`direct.py`, `async_direct.py`). Through httpx go those that need more: a proxy of
the environment, or a client that was given. (URLs have no passwords: `connection.py` refuses them.)
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping
from urllib.request import getproxies

import httpx

from lemni.client.async_direct import AsyncDirect
from lemni.client.conversation import Send
from lemni.client.direct import LONGEST_IDLE_S, MOST_IN_USE, Direct
from lemni.client.errors import ClientError
from lemni.client.failures import FAILURES, failed, late
from lemni.client.wire.http import HttpReply
from lemni.client.wire.http1 import request_headers

_LIMITS = httpx.Limits(max_connections=MOST_IN_USE, keepalive_expiry=LONGEST_IDLE_S)


class Transport:
    """A client's connections. Thread-safe."""

    def __init__(self, headers: Mapping[str, str], http: httpx.Client | None = None) -> None:
        """
        Args:
            headers: of all requests.
            http: sends everything, and is not closed here.
        """
        self._headers = headers
        self._given = http
        self._direct = Direct(headers) if http is None and not _has_proxies() else None

    def exchange(self, send: Send) -> HttpReply | ClientError:
        """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
        if self._direct is not None:
            return self._direct.exchange(send)
        deadline = time.monotonic() + send.timeout_s
        try:
            response = self._http.send(_request(self._http, send, self._headers), stream=True)
            try:
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    if time.monotonic() > deadline:  # httpx's own timeout begins anew with every byte
                        return late(send)
            finally:
                response.close()
        except FAILURES as error:
            return failed(error, send)
        return _reply(response, chunks)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._direct is not None:
            self._direct.close()
        if self._given is None and "_http" in self.__dict__:
            self._http.close()

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
        self._headers = headers
        self._given = http
        self._direct = AsyncDirect(headers) if http is None and not _has_proxies() else None

    async def exchange(self, send: Send) -> HttpReply | ClientError:
        """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
        if self._direct is not None:
            return await self._direct.exchange(send)

        async def talk() -> HttpReply:
            response = await self._http.send(_request(self._http, send, self._headers), stream=True)
            try:
                chunks = [chunk async for chunk in response.aiter_bytes()]
            finally:
                await response.aclose()
            return _reply(response, chunks)

        try:
            return await asyncio.wait_for(talk(), send.timeout_s)
        except (asyncio.TimeoutError, TimeoutError):
            return late(send)
        except FAILURES as error:
            return failed(error, send)

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._direct is not None:
            await self._direct.close()
        if self._given is None and "_http" in self.__dict__:
            await self._http.aclose()

    @functools.cached_property
    def _http(self) -> httpx.AsyncClient:
        return self._given or httpx.AsyncClient(limits=_LIMITS)


def _has_proxies() -> bool:
    # As httpx asks, but without its exceptions for some hosts: it knows them itself.
    return any(getproxies().get(scheme) for scheme in ("http", "https", "all"))


def _request(http: httpx.Client | httpx.AsyncClient, send: Send, own: Mapping[str, str]) -> httpx.Request:
    body = send.request.body
    headers = request_headers(send.request.accept, body is not None, own)
    return http.build_request(send.request.method, send.url, content=body, headers=headers, timeout=send.timeout_s)


def _reply(response: httpx.Response, chunks: list[bytes]) -> HttpReply:
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return HttpReply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)
