"""HTTP/1.1 as bytes (RFC 9112): the head of a request, and a reply as it comes in. No I/O; httptools parses, in C.

`direct.py` sends and receives. What is rare (proxies) is httpx's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import httptools
import httpx

from lemni.client.wire.http import JSON, HttpReply
from lemni.errors import InvalidRequest

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Opening(NamedTuple):
    """How requests to one URL begin.

    Attributes:
        origin: scheme, host and port: what a connection can be used again for.
        head: request line and headers, up to the value of `content-length`, which is the last.
    """

    origin: tuple[str, str, int]
    head: bytes


def opening_of(url: str, method: str, headers: Mapping[str, str]) -> Opening:
    """The opening of requests with these headers, which are checked. Raises InvalidRequest for a URL that is none."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise no_url(url, error) from error
    host, port = parsed.raw_host.decode("ascii"), parsed.port or (443 if parsed.scheme == "https" else 80)
    if not host or port > 65535:
        raise no_url(url, f"the port is {port}" if host else "it has no host")
    lines = [f"{method} {parsed.raw_path.decode('ascii')} HTTP/1.1"]
    every = {"host": parsed.netloc.decode("ascii"), **headers}
    lines += [f"{name}: {value}" for name, value in every.items()]
    return Opening((parsed.scheme, host, port), "\r\n".join([*lines, "content-length: "]).encode("ascii"))


def request_headers(accept: str, has_body: bool, own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request, with the caller's own, names in lower case. Raises InvalidRequest for what is none."""
    for name, value in own.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidRequest(f"the header {name!r} holds characters that HTTP does not allow", param="headers")
    # Vectors do not shrink: decompressing them would be the client's dearest step.
    headers = {"accept": accept, "accept-encoding": "identity"}
    if has_body:
        headers["content-type"] = JSON
    return {**headers, **{name.lower(): value for name, value in own.items()}}


def no_url(url: str, why: object) -> InvalidRequest:
    """What is raised for a base URL that is none."""
    return InvalidRequest(f"{url!r} is no URL of a server: {why}", param="base_url")


class BrokenReply(Exception):
    """What came is no HTTP, or ended too early."""


class Reading:
    """A reply that comes in piece by piece."""

    def __init__(self) -> None:
        self.whole = False
        self.reusable = False
        """Whether the connection may carry another request."""
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._has_head = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take what was received; nothing means that the server has closed the connection. Raises BrokenReply."""
        if not data:
            # Without a length the end of the connection is the end of the body.
            if not self._has_head or self._headers.keys() & {"content-length", "transfer-encoding"}:
                raise BrokenReply("the server closed it before the answer was whole")
            self._finish()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BrokenReply(f"the answer is no HTTP: {error or type(error).__name__}") from error

    def reply(self) -> HttpReply:
        """The whole reply, decompressed if it is not what was asked for. Raises httpx.DecodingError."""
        status, headers, chunks = self._found
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if (coding := headers.get("content-encoding", "identity")) != "identity":
            body = httpx.Response(200, headers={"content-encoding": coding}, content=body).content
        return HttpReply(status, headers, body)

    def _finish(self) -> None:
        self.whole, self._found = True, (self._parser.get_status_code(), self._headers, self._chunks)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self.reusable = False  # after a whole reply, this one was not asked for
        self._headers, self._chunks, self._has_head = {}, [], False

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # the real answer follows
            self._has_head = False
        elif not self.whole:
            self._finish()
            self.reusable = self._parser.should_keep_alive()
