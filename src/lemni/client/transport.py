"""Sends one request with httpx, sync or async, and turns what can go wrong into the client's errors."""

from __future__ import annotations

import asyncio
import time

import httpx

from lemni.client.conversation import Send
from lemni.client.errors import BadAnswer, ClientError, ConnectionFailed, RequestTimeout
from lemni.client.wire.http import JSON, HttpReply
from lemni.errors import InvalidRequest

# Below uvicorn's 5 s: a connection that the server is about to close is not used.
_LIMITS = httpx.Limits(max_connections=128, max_keepalive_connections=32, keepalive_expiry=4.0)


def new_client() -> httpx.Client:
    """A pool of connections."""
    return httpx.Client(limits=_LIMITS)


def new_async_client() -> httpx.AsyncClient:
    """The same for async code."""
    return httpx.AsyncClient(limits=_LIMITS)


def exchange(http: httpx.Client, send: Send, headers: dict[str, str]) -> HttpReply | ClientError:
    """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
    deadline = time.monotonic() + send.timeout_s
    try:
        request = _request(http, send, headers)
        response = http.send(request, stream=True)
        try:
            chunks = []
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if time.monotonic() > deadline:  # httpx's own timeout begins anew with every byte
                    return _late(send)
        finally:
            response.close()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _named(error, send)
    return _reply(response, chunks)


async def aexchange(http: httpx.AsyncClient, send: Send, headers: dict[str, str]) -> HttpReply | ClientError:
    """`exchange` for async code."""

    async def talk() -> HttpReply:
        response = await http.send(_request(http, send, headers), stream=True)
        try:
            chunks = [chunk async for chunk in response.aiter_bytes()]
        finally:
            await response.aclose()
        return _reply(response, chunks)

    try:
        return await asyncio.wait_for(talk(), send.timeout_s)
    except (asyncio.TimeoutError, TimeoutError):
        return _late(send)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _named(error, send)


def _request(http: httpx.Client | httpx.AsyncClient, send: Send, headers: dict[str, str]) -> httpx.Request:
    # Vectors do not shrink: decompressing them would be the client's dearest step.
    own = {"accept": send.request.accept, "accept-encoding": "identity", **headers}
    if send.request.body is not None:
        own["content-type"] = JSON
    return http.build_request(
        send.request.method, send.url, content=send.request.body, headers=own, timeout=send.timeout_s
    )


def _reply(response: httpx.Response, chunks: list[bytes]) -> HttpReply:
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return HttpReply(response.status_code, {k.lower(): v for k, v in response.headers.items()}, body)


def _late(send: Send) -> RequestTimeout:
    return RequestTimeout(f"no answer from {send.url} within {send.timeout_s:g} s", send.timeout_s)


def _named(error: httpx.HTTPError | httpx.InvalidURL, send: Send) -> ClientError:
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        message = f"could not connect to {send.url} within {send.timeout_s:g} s"
        return RequestTimeout(message, send.timeout_s, connected=False)
    if isinstance(error, httpx.TimeoutException):
        return _late(send)
    if isinstance(error, httpx.DecodingError):
        return BadAnswer(f"the answer of {send.url} cannot be decompressed: {error}")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        raise InvalidRequest(f"{send.url!r} is no URL of a server: {error}", param="base_url") from error
    words = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError):
        return ConnectionFailed(f"cannot connect to {send.url}: {words}")
    return ConnectionFailed(f"the connection to {send.url} broke: {words}")
