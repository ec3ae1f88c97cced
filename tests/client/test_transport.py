"""Requests and replies on real sockets, sync and async: the bytes, when a connection is used again, what breaks."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from lemni.client.conversation import Send
from lemni.client.errors import BadAnswer, ClientError, ConnectionFailed, RequestTimeout
from lemni.client.transport import MOST_IN_USE, AsyncTransport, Prepared, Transport
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.errors import InvalidRequest
from tests.client.scripted_server import END, Reply, ScriptedServer, ok, scripted

HEADERS = {"user-agent": "test", "X-Mine": "1"}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Caller:
    """One of the two transports, to be used without waiting."""

    def __init__(self, kind: type[Transport | AsyncTransport], headers: dict[str, str] = HEADERS) -> None:
        self._loop = asyncio.new_event_loop()
        self.transport: Any = self._done(_made(kind, headers))

    def __call__(self, url: str, body: bytes | None = b"{}", timeout_s: float = 20.0) -> HttpReply | ClientError:
        send = Send(HttpRequest("", body), f"{url}/embeddings", timeout_s)
        found: HttpReply | ClientError = self._done(self.transport.exchange(send))
        return found

    def body(self, url: str) -> bytes:
        reply = self(url)
        assert isinstance(reply, HttpReply), reply
        return reply.body

    def close(self) -> None:
        self._done(self.transport.close())
        self._loop.close()

    def _done(self, value: Any) -> Any:
        return self._loop.run_until_complete(value) if inspect.isawaitable(value) else value


async def _made(kind: Callable[..., Any], headers: dict[str, str]) -> Any:
    return kind(headers)


@pytest.fixture(params=[Transport, AsyncTransport])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Caller]]:
    callers = []

    def made(**options: Any) -> Caller:
        callers.append(Caller(request.param, **options))
        return callers[-1]

    yield made
    for caller in callers:
        caller.close()


@pytest.fixture
def ask(make: Callable[..., Caller]) -> Caller:
    return make()


def always(*reply: bytes | float | None) -> Callable[[bytes, bytes], Reply]:
    return lambda head, body: list(reply)


def test_the_bytes_of_a_request_and_a_kept_connection(ask: Caller) -> None:
    with scripted(always(ok(b'{"a": 1}', b"X-Two: 1", b"x-two: 2"))) as server:
        reply = ask(server.url, b'{"input": []}')
        assert ask.body(server.url) == b'{"a": 1}'
        ask(server.url, None)
    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.media_type, reply.headers["x-two"]) == (200, "application/json", "1, 2")
    assert server.connections == 1
    head, body = server.requests[0]
    assert body == b'{"input": []}'
    assert head.decode().split("\r\n") == [
        "POST /embeddings HTTP/1.1",
        f"host: 127.0.0.1:{server.port}",
        "accept: application/json",
        "accept-encoding: identity",
        "content-type: application/json",
        "user-agent: test",
        "x-mine: 1",
        "content-length: 13",
        "",
    ]
    assert server.requests[2][0].startswith(b"GET /embeddings HTTP/1.1\r\n")


_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-after: 1\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param([_CHUNKED], id="chunked"),
        pytest.param([_CHUNKED[n : n + 1] for n in range(len(_CHUNKED))], id="byte by byte"),
        pytest.param([_HINTS + ok(b"abcde")], id="after hints"),
        pytest.param([_HINTS, 0.01, ok(b"abcde")], id="some time after hints"),
        pytest.param([b"HTTP/1.1 200 OK\r\n\r\nabc", 0.01, b"de", END], id="until the connection ends"),
        pytest.param([b"HTTP/1.0 200 OK\r\n\r\nabcde", END], id="HTTP/1.0"),
        pytest.param([ok(gzip.compress(b"abcde"), b"content-encoding: gzip")], id="gzip"),
    ],
)
def test_bodies_in_every_form(ask: Caller, reply: Reply) -> None:
    with scripted(always(*reply)) as server:
        assert ask.body(server.url) == b"abcde"
        assert ask.body(server.url) == b"abcde"


def test_a_reply_without_a_body(ask: Caller) -> None:
    with scripted(always(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        assert ask.body(server.url) == b""
        assert ask.body(server.url) == b""
    assert server.connections == 1


def test_a_large_reply(ask: Caller) -> None:
    body = bytes(range(256)) * (1 << 14)
    with scripted(always(ok(body))) as server:
        assert ask.body(server.url) == body


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ([END], "without sending a response"),
        ([b"HTTP/1.1 200 OK\r\ncontent-le", END], "without sending a response"),
        ([ok(b"abcde")[:-2], END], "without sending complete message body"),
        ([_CHUNKED[:-20], END], "without sending complete message body"),
        ([_HINTS, END], "without sending a response"),
        ([b"SSH-2.0-OpenSSH\r\n", END], "without sending a response"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n", END], "illegal status line"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"], "conflicting Content-Length"),
        ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"], "_SWITCH_UPGRADE"),
    ],
)
def test_broken_replies(ask: Caller, reply: Reply, words: str) -> None:
    with scripted(always(*reply)) as server:
        error = ask(server.url)
        assert isinstance(error, ConnectionFailed)
        assert words in error.message
        assert f"{server.url}/embeddings broke" in error.message
        ask(server.url)
    assert server.connections == 2


def test_a_body_that_is_not_what_its_coding_says(ask: Caller) -> None:
    with scripted(always(ok(b"not gzip", b"content-encoding: gzip"))) as server:
        error = ask(server.url)
    assert isinstance(error, BadAnswer)
    assert "cannot be decompressed" in error.message


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param([ok(b"{}", b"connection: close")], id="says close"),
        pytest.param([b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}"], id="HTTP/1.0"),
        pytest.param([ok(), END], id="closes without a word"),
    ],
)
def test_connections_that_are_not_used_again(ask: Caller, reply: Reply) -> None:
    with scripted(always(*reply)) as server:
        for _ in range(3):
            assert ask.body(server.url) == b"{}"
            time.sleep(0.02)  # until the server's FIN is here
    assert server.connections == 3


def test_a_server_that_is_not_there(ask: Caller) -> None:
    with scripted(always(ok())) as server:
        pass
    error = ask(server.url)
    assert isinstance(error, ConnectionFailed)
    assert error.message.startswith(f"cannot connect to {server.url}/embeddings: ")


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_host_whose_name_no_host_can_have(ask: Caller, host: str) -> None:
    error = ask(f"http://{host}")
    assert isinstance(error, ConnectionFailed)
    assert error.message.startswith(f"cannot connect to http://{host}/embeddings: ")


@pytest.mark.parametrize(
    "reply", [[3.0], [b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n", *[b".", 0.02] * 150]], ids=["silent", "slow"]
)
def test_the_time_limit_is_for_the_whole_answer(ask: Caller, reply: Reply) -> None:
    with scripted(always(*reply)) as server:
        start = time.monotonic()
        error = ask(server.url, timeout_s=0.3)
        assert time.monotonic() - start < 2.0
    assert isinstance(error, RequestTimeout)
    assert error.connected


def test_a_late_answer_is_not_taken_for_the_next(ask: Caller) -> None:
    def answer(head: bytes, body: bytes) -> Reply:
        return [0.4, ok(body)] if body == b"first" else [ok(body)]

    with scripted(answer) as server:
        assert isinstance(ask(server.url, b"first", timeout_s=0.1), RequestTimeout)
        reply = ask(server.url, b"second")
    assert isinstance(reply, HttpReply)
    assert reply.body == b"second"


def test_threads_get_their_own_answers() -> None:
    wrong: list[bytes] = []
    transport = Transport(HEADERS)

    def work(server: ScriptedServer, number: int) -> None:
        for turn in range(20):
            body = b"%d of %d" % (turn, number)
            reply = transport.exchange(Send(HttpRequest("", body), server.url, 20.0))
            if not isinstance(reply, HttpReply) or reply.body != body:
                wrong.append(body)

    with scripted(lambda head, body: [ok(body)]) as server:
        threads = [threading.Thread(target=work, args=(server, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transport.close()
    assert not wrong
    assert server.connections <= 8
    assert len(server.requests) == 160


async def test_tasks_get_their_own_answers_on_a_bounded_number_of_connections() -> None:
    transport = AsyncTransport(HEADERS)
    with scripted(lambda head, body: [ok(body)]) as server:
        bodies = [b"%d" % number for number in range(3 * MOST_IN_USE)]
        sends = [Send(HttpRequest("", body), server.url, 20.0) for body in bodies]
        replies = await asyncio.gather(*map(transport.exchange, sends))
        await transport.close()
    assert [reply.body for reply in replies if isinstance(reply, HttpReply)] == bodies
    assert server.connections <= MOST_IN_USE


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    transport = AsyncTransport(HEADERS)
    came = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(head: bytes, body: bytes) -> Reply:
        loop.call_soon_threadsafe(came.set)
        return [0.2, ok(body)]

    with scripted(answer) as server:
        task = asyncio.ensure_future(transport.exchange(Send(HttpRequest("", b"first"), server.url, 20.0)))
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        reply = await transport.exchange(Send(HttpRequest("", b"second"), server.url, 20.0))
        await transport.close()
    assert isinstance(reply, HttpReply)
    assert reply.body == b"second"
    assert server.connections == 2


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment(make: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with scripted(always(ok(b"by proxy"))) as proxy, scripted(always(ok(b"straight"))) as server:
        monkeypatch.setenv(name, proxy.url)
        assert make().body("http://models.test:7997") == b"by proxy"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert make().body(server.url) == b"straight"
    head = proxy.requests[0][0].decode()
    assert head.startswith("POST http://models.test:7997/embeddings HTTP/1.1\r\n")
    assert "\r\nx-mine: 1\r\n" in head.lower()


def test_tls(make: Callable[..., Caller], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with scripted(always(ok(b"secret")), tls=context) as server:
        error = make()(server.url)
        assert isinstance(error, ConnectionFailed)
        assert "certificate verify failed" in error.message
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        trusting = make()
        assert trusting.body(server.url) == trusting.body(server.url) == b"secret"
        wrong_name = trusting(server.url.replace("127.0.0.1", "localhost"))
    assert isinstance(wrong_name, ConnectionFailed)
    assert server.connections == 3
    assert len(server.requests) == 2


@pytest.mark.parametrize("headers", [{"x-mine": "1\r\nx-other: 2"}, {"x mine": "1"}, {"x-mine": "naïve"}, {"": "1"}])
def test_headers_that_are_none(make: Callable[..., Caller], headers: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        make(headers=headers)("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["http://", "http://:80", "http://127.0.0.1:port", "http://[::1"])
def test_urls_that_are_none(ask: Caller, url: str) -> None:
    with pytest.raises(InvalidRequest, match="is no URL of a server"):
        ask(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1]:7997/v1/embeddings",
        "https://models.example/embeddings",
        "http://models.example:80/a b/ü?x=1&y=ä",
        "https://models.example:8443",
        "http://bücher.example/embeddings",
    ],
)
def test_requests_go_where_httpx_would_send_them(url: str) -> None:
    theirs = httpx.Request("POST", url)
    ours = Prepared({"Host-Like": "x"}).request(Send(HttpRequest("", b"{}"), url, 1.0))
    assert (ours.url.scheme, ours.url.host, ours.url.target) == (
        theirs.url.raw_scheme,
        theirs.url.raw_host,
        theirs.url.raw_path,
    )
    assert ours.url.port == theirs.url.port
    assert dict(ours.headers)[b"host"] == theirs.headers["host"].encode()
    assert dict(ours.headers)[b"host-like"] == b"x"


def test_closing_lets_what_is_in_flight_end() -> None:
    """A socket closed under a thread that reads from it would leave the thread waiting."""
    transport, replies = Transport(HEADERS), []
    began = threading.Event()

    def answer(head: bytes, body: bytes) -> Reply:
        began.set()
        return [0.2, ok(b"late")]

    with scripted(answer) as server:
        send = Send(HttpRequest("", b"{}"), server.url, 20.0)
        thread = threading.Thread(target=lambda: replies.append(transport.exchange(send)))
        thread.start()
        began.wait()
        transport.close()
        thread.join(5.0)
    [reply] = replies
    assert isinstance(reply, HttpReply)
    assert reply.body == b"late"
