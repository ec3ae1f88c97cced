"""Fetches images and audio from URLs that strangers chose, without becoming their tool (SSRF).

Below HTTP sits a network backend of our own: it resolves a name once, asks `Policy` about the addresses, and connects
to one that passed. So redirects, odd spellings of addresses and names that change their address meet the same check,
and TLS still sees the name. Size, time, redirects and concurrency are bounded; no proxies, cookies or credentials.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import TypeAlias

import httpcore
import httpx

from lemni import __version__
from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media import Kind
from lemni.media.addresses import Address, Policy

MAX_REDIRECTS = 5
_MAX_URL_CHARACTERS = 8192
_SHOWN_CHARACTERS = 100
_ADDRESSES_TRIED = 4
_CONNECT_S = 5.0  # per address, so that one that swallows packets leaves time for the next
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]
"""From a host name or a spelled address and a port to addresses, best first; OSError if it is unknown."""


class _Failure(Exception):
    """Why a URL cannot be had, in words for the client."""


class Fetcher:
    """Gets URLs, each over a connection of its own. For one event loop, shared by its tasks."""

    def __init__(self, settings: MediaSettings, *, resolve: Resolve | None = None) -> None:
        """`resolve` replaces the system's name lookup."""
        self._settings = settings
        self._max_bytes = int(settings.max_media_mib * 2**20)
        self._slots = asyncio.Semaphore(settings.max_media_downloads)
        # Lookups block. In threads of their own, so that slow name servers hold up nothing else.
        self._lookups = ThreadPoolExecutor(settings.max_media_downloads, thread_name_prefix="lemni-dns")
        self._backend = _CheckedNetwork(Policy(settings), resolve or self._look_up)
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def fetch(self, url: str, kind: Kind) -> bytes:
        """The file at an http or https URL. `kind` is a word for messages.

        Raises:
            InvalidRequest: it is not allowed, not there, over `max_media_mib`, or took over `media_timeout_s`.
        """
        shown = url if len(url) <= _SHOWN_CHARACTERS else url[:_SHOWN_CHARACTERS] + "..."
        try:
            if self._settings.media_urls == "none":
                raise _Failure("this server fetches no URLs; send the file itself, as base64")
            if len(url) > _MAX_URL_CHARACTERS:
                raise _Failure(f"the URL has {len(url)} characters, the limit is {_MAX_URL_CHARACTERS}")
            target = _target(url)
            async with self._slots:
                return await asyncio.wait_for(self._follow(target), self._settings.media_timeout_s)
        except asyncio.TimeoutError:
            reason = f"it did not arrive within {self._settings.media_timeout_s:g} s"
        except _Failure as failure:
            reason = str(failure)
        except (httpcore.NetworkError, httpcore.TimeoutException) as error:
            reason = "the connection failed"
            # httpcore raises "from None", so that the cause is in the context alone.
            if isinstance(error.__context__, ssl.SSLCertVerificationError):
                reason = f"the certificate is wrong: {error.__context__.verify_message}"
        except httpcore.ProtocolError:
            # Its text would quote what was received.
            reason = "the answer is not valid HTTP, or ended too early"
        raise InvalidRequest(f"the {kind} at {shown!r} cannot be fetched: {reason}")

    async def close(self) -> None:
        """Free the threads of the name lookups, and the connections. Call it when no fetch is running."""
        self._lookups.shutdown(wait=False, cancel_futures=True)
        if self._pool is not None:
            await self._pool.aclose()

    async def _follow(self, target: httpx.URL) -> bytes:
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=httpx.create_ssl_context(),  # certifi's authorities, or those of SSL_CERT_FILE
                max_connections=self._settings.max_media_downloads,
                # A kept connection may be closed by the server just when it is used again, and is not checked again.
                max_keepalive_connections=0,
                network_backend=self._backend,
            )
        for _ in range(MAX_REDIRECTS + 1):
            url = httpcore.URL(scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path)
            headers = [
                (b"Host", target.netloc),
                (b"User-Agent", f"lemni/{__version__}".encode()),
                (b"Accept", b"*/*"),
                (b"Accept-Encoding", b"identity"),
                (b"Connection", b"close"),
            ]
            async with self._pool.stream("GET", url, headers=headers) as response:
                if response.status not in _REDIRECTS:
                    return await self._body(response)
                location = _header(response, b"location")
            if location is None:
                raise _Failure("the server redirects to nowhere")
            target = _target(location, target)
        raise _Failure(f"more than {MAX_REDIRECTS} redirects")

    async def _body(self, response: httpcore.Response) -> bytes:
        if response.status != 200:
            raise _Failure(f"the server answered with status {response.status}")
        encoding = _header(response, b"content-encoding") or "identity"
        if encoding.strip().lower() != "identity":
            raise _Failure("the server sent it compressed (Content-Encoding), which is not accepted")
        too_large = _Failure(f"it is larger than {self._settings.max_media_mib:g} MiB")
        length = _header(response, b"content-length")
        if length is not None and int(length) > self._max_bytes:
            raise too_large
        chunks, size = [], 0
        async for chunk in response.aiter_stream():
            size += len(chunk)
            if size > self._max_bytes:
                raise too_large
            chunks.append(chunk)
        return b"".join(chunks)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._lookups, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [ip_address(address[0]) for *_, address in found]


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's network, for checked addresses only."""

    def __init__(self, policy: Policy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a part of the name is too long to be one
            raise _Failure("its host is unknown") from error
        allowed = [address for address in found if self._policy.allows(host, address)]
        if not allowed:
            # Which address it is would tell about the network inside.
            raise _Failure("this server does not fetch from its host (media_urls, media_allow_hosts)")
        failure: Exception | None = None
        for address in allowed[:_ADDRESSES_TRIED]:
            try:
                return await self._network.connect_tcp(str(address), port, _CONNECT_S, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure


def _target(url: str, base: httpx.URL | None = None) -> httpx.URL:
    """A URL that may be asked for, as far as its text tells; relative to `base`. Raises _Failure."""
    try:
        target = httpx.URL(url) if base is None else base.join(url)
        # httpx encodes the host when it is asked for.
        host = target.raw_host
        if target.port is not None and not 0 < target.port < 65536:
            raise ValueError
    except (httpx.InvalidURL, ValueError) as error:
        raise _Failure("the URL is not valid") from error
    where = "" if base is None else "the server redirects, but "
    if target.scheme not in ("http", "https"):
        raise _Failure(where + "only http and https URLs are fetched")
    if not host:
        raise _Failure(where + "the URL has no host")
    if target.userinfo:
        raise _Failure(where + "a URL with user or password is not fetched")
    return target


def _header(response: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("utf-8", "replace") for key, value in response.headers if key.lower() == name), None)
