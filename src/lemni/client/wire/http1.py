"""HTTP/1.1 as bytes (RFC 9112): the head of a request, and a reply as it comes in. No I/O; httptools parses, in C.

`direct.py` sends and receives. What is rare (proxies, passwords in URLs) is httpx's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import httptools
import httpx

from lemni.client.wire.http import JSON, HttpReply


class Opening(NamedTuple):
    """How requests to one URL begin.

    Attributes:
        origin: scheme, host and port: what a connection can be used again for.
        head: request line and headers, up to the value of `content-length`, which is the last.
    """

    origin: tuple[str, str, int]
    head: bytes


def opening_of(url: str, method: str, headers: Mapping[str, str]) -> Opening:
    """The opening of requests with these headers. Raises httpx.InvalidURL."""
    parsed = httpx.URL(url)
    host, port = parsed.raw_host.decode("ascii"), parsed.port or (443 if parsed.scheme == "https" else 80)
    if not host:
        raise httpx.InvalidURL("it has no host")
    lines = [f"{method} {parsed.raw_path.decode('ascii')} HTTP/1.1"]
    every = {"host": parsed.netloc.decode("ascii"), **headers}
    lines += [f"{name}: {value}" for name, value in every.items()]
    return Opening((parsed.scheme, host, port), "\r\n".join([*lines, "content-length: "]).encode("ascii"))


def request_headers(accept: str, has_body: bool, own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request, with the caller's own, names in lower case."""
    # Vectors do not shrink: decompressing them would be the client's dearest step.
    headers = {"accept": accept, "accept-encoding": "identity"}
    if has_body:
        headers["content-type"] = JSON
    return {**headers, **{name.lower(): value for name, value in own.items()}}


class BrokenReply(Exception):
    """What came is no HTTP, or ended too early."""


class Reading:
    """A reply that comes in piece by piece."""

    def __init__(self) -> None:
        self.whole = False
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._has_head = False
        self.reusable = False
        """Whether the connection may carry another request."""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take what was received; nothing means that the server has closed the connection. Raises BrokenReply."""
        if not data:
            # Without a length the end of the connection is the end of the body.
            if not self._has_head or self._headers.keys() & {"content-length", "transfer-encoding"}:
                raise BrokenReply("the server closed it before the answer was whole")
            self.whole = True
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BrokenReply(f"the answer is no HTTP: {error or type(error).__name__}") from error

    def reply(self) -> HttpReply:
        """The whole reply, decompressed if it is not what was asked for. Raises httpx.DecodingError."""
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if (coding := self._headers.get("content-encoding", "identity")) != "identity":
            body = httpx.Response(200, headers={"content-encoding": coding}, content=body).content
        return HttpReply(self._parser.get_status_code(), self._headers, body)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self.reusable = False  # after a whole reply this is what nobody has asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:  # the real answer follows
            self._headers, self._has_head = {}, False
        else:
            self.whole, self.reusable = True, self._parser.should_keep_alive()
