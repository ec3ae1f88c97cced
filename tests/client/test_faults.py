"""The clients and a server that misbehaves: the right error with words that help, the right number of attempts, and
never a hang. Each test asks the sync and the async client."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from lemni.client import (
    ClientError,
    ConnectionFailed,
    PartialFailure,
    RequestTimeout,
    Retries,
    StatusError,
)
from tests.client import misbehaving as bad
from tests.client.asking import FAST, Asking, asking
from tests.client.misbehaving import Behaviour, misbehaving, vectors_of
from tests.server.live import free_port, wait_for

pytestmark = pytest.mark.timeout(30)

TEXTS = [f"text {number}" for number in range(9)]


def same(vectors: Any, texts: list[str]) -> None:
    np.testing.assert_array_equal(vectors, vectors_of(texts))


# What is tried again.

PASSING: dict[str, Behaviour] = {
    "reset": bad.reset,
    "reset_midway": bad.reset_midway,
    "hang_up": bad.hang_up,
    "half_body": bad.half_body,
    "cut_chunks": bad.cut_chunks,
    "no_http": bad.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", close=True),
    "broken_status_line": bad.raw(b"HTTP/1.1 abc\r\n\r\n", close=True),
    **{f"status_{code}": bad.status(code) for code in (408, 409, 429, 500, 502, 503, 504, 529)},
    "html_503": bad.content(b"<html>Bad gateway</html>", 503, "text/html"),
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_is_tried_again(ask: Callable[..., Asking], name: str) -> None:
    with misbehaving(PASSING[name], PASSING[name]) as server:
        client = ask(server)
        same(client.embed(TEXTS), TEXTS)
        assert len(server.seen) == 3
        assert server.bodies[0] == server.bodies[2]
        assert (client.statistics.requests, client.statistics.retries) == (3, 2)
        assert (client.statistics.inputs, client.statistics.tokens) == (9, 9)


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_stays_ends_after_the_retries(ask: Callable[..., Asking], name: str) -> None:
    with misbehaving(otherwise=PASSING[name]) as server:
        with pytest.raises(ClientError) as caught:
            ask(server).embed(TEXTS)
        error = caught.value
        assert f"{server.url}/embeddings" in error.message
        assert error.retryable
        assert len(server.seen) == 3
        if name.startswith("status_"):
            assert isinstance(error, StatusError)
            assert f"HTTP {name[7:]} from" in error.message
            assert error.detail == "no"
        elif name == "html_503":
            assert isinstance(error, StatusError)
            assert "Bad gateway" in error.message
        else:
            assert isinstance(error, ConnectionFailed)


@pytest.mark.parametrize("code", [301, 307, 400, 401, 403, 404, 405, 415, 422, 501, 505])
def test_what_was_refused_for_good_is_not_tried_again(ask: Callable[..., Asking], code: int) -> None:
    with misbehaving(otherwise=bad.status(code, "because of this")) as server:
        with pytest.raises(StatusError, match=f"HTTP {code} from {server.url}/embeddings: because of this") as caught:
            ask(server).embed(TEXTS)
        assert (caught.value.status, caught.value.code) == (code, f"http_{code}")
        assert len(server.seen) == 1


def test_a_redirect_names_its_target(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.content(b"", 307, Location="https://elsewhere/v1/embeddings")) as server:
        with pytest.raises(StatusError, match="redirected to https://elsewhere/v1/embeddings"):
            ask(server).embed(TEXTS)
        assert len(server.seen) == 1


def test_a_storm_of_429_passes(ask: Callable[..., Asking]) -> None:
    with misbehaving(*[bad.status(429, Retry_After="0.02")] * 12) as server:
        client = ask(server, retries=Retries(times=20, first_s=0.01), batch_size=2)
        same(client.embed(TEXTS), TEXTS)
        assert len(server.seen) == 12 + 5


def test_no_server_at_all(ask: Callable[..., Asking], sync: bool) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with asking(sync, url, retries=FAST) as client:
        with pytest.raises(ConnectionFailed, match=f"cannot connect to {url}/embeddings"):
            client.embed(TEXTS)
        assert client.health() is False
        with pytest.raises(ConnectionFailed):
            client.models()
        assert client.statistics.requests == 3 + 2


def test_a_name_that_is_not_known(sync: bool) -> None:
    with (
        asking(sync, "http://no-such-host.invalid", retries=0, timeout_s=5) as client,
        pytest.raises(ConnectionFailed, match="cannot connect to http://no-such-host"),
    ):
        client.embed("a")


# Retry-After.


@pytest.mark.parametrize("value", ["0.3", "0.3 "])
def test_retry_after_is_the_least_that_is_waited(ask: Callable[..., Asking], value: str) -> None:
    with misbehaving(bad.status(429, Retry_After=value)) as server:
        ask(server).embed("a")
        first, second = server.seen
        assert 0.3 <= second.at - first.at < 0.8


def test_retry_after_as_a_date(ask: Callable[..., Asking]) -> None:
    date = format_datetime(datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=1), usegmt=True)
    until = time.time()
    with misbehaving(bad.status(503, Retry_After=date)) as server:
        ask(server).embed("a")
        assert len(server.seen) == 2
    assert 0 <= time.time() - until < 2


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "Mon, 99 Foo 2020 00:00:00 GMT", "Mon, 01 Jan 0001 00:00:00"])
def test_a_retry_after_that_says_nothing_is_no_reason_to_wait(ask: Callable[..., Asking], value: str) -> None:
    with misbehaving(bad.status(429, Retry_After=value)) as server:
        ask(server).embed("a")
        assert len(server.seen) == 2
        assert server.seen[1].at - server.seen[0].at < 0.5


@pytest.mark.parametrize("value", ["3600", "1e999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_retry_after_that_is_too_long_is_an_error_at_once(ask: Callable[..., Asking], value: str) -> None:
    with misbehaving(bad.status(429, "wait", Retry_After=value)) as server:
        with pytest.raises(StatusError, match="wait") as caught:
            ask(server).embed("a")
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s > 60
        assert len(server.seen) == 1


def test_retry_after_ms(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.status(429, Retry_After="3600", retry_after_ms="50")) as server:
        ask(server).embed("a")
        assert len(server.seen) == 2


# Time.


@pytest.mark.parametrize("behaviour", [bad.hang, bad.drip_head, bad.drip_body], ids=lambda one: one.__name__)
def test_a_slow_answer_ends_with_its_timeout(ask: Callable[..., Asking], behaviour: Behaviour) -> None:
    with misbehaving(otherwise=behaviour) as server:
        client = ask(server, timeout_s=0.3)
        began = time.monotonic()
        with pytest.raises(RequestTimeout, match=f"no answer from {server.url}/embeddings within 0.3 s") as caught:
            client.embed(TEXTS)
        assert 0.25 <= time.monotonic() - began < 1.0
        assert caught.value.connected
        assert len(server.seen) == 1  # the server may still be at it
        wait_for(lambda: server.open == 0)


@pytest.mark.parametrize("behaviour", [bad.hang, bad.drip_body, bad.status(503)], ids=["hang", "drip", "503"])
def test_the_deadline_is_for_the_whole_call(ask: Callable[..., Asking], behaviour: Behaviour) -> None:
    with misbehaving(otherwise=behaviour) as server:
        client = ask(server, retries=Retries(times=100, first_s=0.05, longest_s=0.05), batch_size=2)
        began = time.monotonic()
        with pytest.raises(ClientError):
            client.embed(TEXTS, deadline_s=0.4)
        assert time.monotonic() - began < 1.0


def test_what_is_done_at_the_deadline_is_not_lost(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.good, bad.good, otherwise=bad.hang) as server:
        with pytest.raises(PartialFailure) as caught:
            ask(server, batch_size=2, concurrency=1).embed(TEXTS, deadline_s=0.4)
        assert sorted(caught.value.finished) == [0, 1, 2, 3]
        assert caught.value.missing == [4, 5, 6, 7, 8]
        assert all(isinstance(failure.error, RequestTimeout) for failure in caught.value.failures)


def test_no_wait_goes_beyond_the_deadline(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.status(429, "overloaded", Retry_After="30")) as server:
        began = time.monotonic()
        with pytest.raises(StatusError, match="overloaded"):
            ask(server, deadline_s=0.5).embed("a")
        assert time.monotonic() - began < 0.4
        assert len(server.seen) == 1


def test_a_slow_first_byte_is_waited_for(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.slow(0.2)) as server:
        same(ask(server).embed(TEXTS), TEXTS)


# Connections.


def test_a_connection_that_the_server_closed_is_not_used_again(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.then_close) as server:
        client = ask(server, retries=0)
        for _ in range(4):
            same(client.embed(TEXTS), TEXTS)
            wait_for(lambda: server.open == 0)
        assert server.connections == 4


def test_one_connection_is_used_again(ask: Callable[..., Asking]) -> None:
    with misbehaving() as server:
        client = ask(server)
        for _ in range(5):
            same(client.embed(TEXTS), TEXTS)
        assert server.connections == 1
        client.close()
        wait_for(lambda: server.open == 0)


@pytest.mark.parametrize("name", ["status_500", "half_body", "hang"])
def test_connections_are_not_leaked(ask: Callable[..., Asking], name: str) -> None:
    behaviour = {**PASSING, "hang": bad.hang}[name]
    with misbehaving(otherwise=behaviour) as server:
        client = ask(server, retries=0, timeout_s=0.1)
        for _ in range(5):
            with pytest.raises(ClientError):
                client.embed(TEXTS)
        wait_for(lambda: server.open <= 1)
        assert server.connections == (1 if name == "status_500" else 5)


def test_no_more_requests_at_once_than_allowed(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.slow(0.05)) as server:
        same(ask(server, batch_size=1, concurrency=3).embed(TEXTS), TEXTS)
        assert server.most_at_once == 3
        assert server.connections == 3
