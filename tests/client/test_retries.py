"""What is tried again, when, and where: the decisions by themselves, with no sleep and no socket."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lemni.client import BadAnswer, ClientError, ConnectionFailed, RequestTimeout, Retries, StatusError
from lemni.client.conversation import Send, Wait, converse
from lemni.client.retries import Servers, elsewhere
from lemni.client.statistics import Counters
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.errors import InvalidRequest

A, B, C = "http://a", "http://b", "http://c"
REQUEST = HttpRequest("/embeddings", b"{}")


def refused(status: int, retry_after_s: float | None = None) -> StatusError:
    return StatusError(f"HTTP {status}", status, detail="no", retry_after_s=retry_after_s)


# Retries.


@given(
    tries=st.integers(1, 5000),
    first=st.floats(0, 1e6),
    longest=st.floats(0, 1e6),
)
def test_a_wait_is_between_half_and_all_of_the_back_off(tries: int, first: float, longest: float) -> None:
    retries = Retries(times=5000, first_s=first, longest_s=longest)
    wait = retries.wait_s(tries, refused(503))
    most = min(longest, first * 2.0 ** min(tries - 1, 64))
    assert wait is not None
    assert most / 2 <= wait <= most


def test_waits_vary() -> None:
    assert len({Retries().wait_s(1, refused(503)) for _ in range(20)}) > 10
    assert len({Retries().wait_s(1, refused(503, 2.0)) for _ in range(20)}) > 10


@given(asked=st.floats(0, 60), first=st.floats(0, 10))
def test_retry_after_is_the_least_and_a_little_more_the_most(asked: float, first: float) -> None:
    wait = Retries(first_s=first).wait_s(1, refused(429, asked))
    assert wait is not None
    assert asked <= wait <= asked + min(first, 0.1 * asked)


@pytest.mark.parametrize("asked", [60.1, 1e12, math.inf])
def test_a_retry_after_over_the_limit_gives_up(asked: float) -> None:
    assert Retries().wait_s(1, refused(429, asked)) is None
    assert Retries(longest_retry_after_s=math.inf, times=1).wait_s(1, refused(429, asked)) is not None


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_statuses_that_are_tried_again(status: int) -> None:
    error = refused(status)
    assert error.retryable
    assert elsewhere(error)
    assert Retries(times=3).wait_s(3, error) is not None
    assert Retries(times=3).wait_s(4, error) is None
    assert Retries(times=0).wait_s(1, error) is None


@pytest.mark.parametrize("status", [300, 304, 400, 401, 403, 404, 405, 413, 422, 501, 505])
def test_statuses_that_are_not(status: int) -> None:
    assert Retries().wait_s(1, refused(status)) is None
    assert elsewhere(refused(status)) is (status == 404)


def test_other_errors() -> None:
    assert Retries().wait_s(1, ConnectionFailed("x")) is not None
    assert Retries().wait_s(1, BadAnswer("x")) is None
    assert not elsewhere(BadAnswer("x"))
    assert Retries().wait_s(1, RequestTimeout("x", 1.0)) is None
    assert elsewhere(RequestTimeout("x", 1.0))
    assert Retries().wait_s(1, ClientError("closed")) is None


@pytest.mark.parametrize(
    "wrong",
    [{"times": -1}, {"times": 1.5}, {"times": "3"}, {"first_s": -0.1}, {"longest_s": math.nan}, {"first_s": None}],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(wrong))} is "):
        Retries(**wrong)


# Servers.


def test_the_first_server_is_kept_while_it_works() -> None:
    servers = Servers([A, B])
    assert servers.choose(0) == A
    servers.good(A)
    assert servers.choose(1) == A


def test_a_failed_server_rests_and_comes_back() -> None:
    servers = Servers([A, B], rest_s=30)
    servers.failed(A, ConnectionFailed("x"), now=100)
    assert servers.choose(101) == B
    assert servers.choose(129) == B
    assert servers.choose(130) == A  # B was never said to be good
    servers.failed(A, ConnectionFailed("x"), now=130)
    servers.good(B)
    assert servers.choose(1000) == B  # the last good one is kept
    servers.failed(B, ConnectionFailed("x"), now=1000)
    assert servers.choose(1001) == A


def test_an_overloaded_server_rests_as_long_as_it_says() -> None:
    servers = Servers([A, B], rest_s=30)
    servers.failed(A, refused(429, 2.0), now=0)
    assert (servers.choose(1), servers.choose(2)) == (B, A)
    servers.failed(A, refused(429, 1e9), now=10)
    assert (servers.choose(39), servers.choose(40)) == (B, A)


def test_those_that_were_tried_are_not_chosen_while_others_are_left() -> None:
    servers = Servers([A, B, C])
    assert servers.choose(0, frozenset([A])) == B
    servers.failed(B, refused(503), now=0)
    assert servers.choose(1, frozenset([A])) == C
    assert servers.choose(1, frozenset([A, C])) == B  # resting, but not tried
    assert servers.choose(1, frozenset([A, B, C])) in (A, C)


def test_when_all_rest_the_first_that_wakes_is_chosen() -> None:
    servers = Servers([A, B, C], rest_s=30)
    for url, asked in ((A, None), (B, 5.0), (C, 20.0)):
        servers.failed(url, refused(503, asked), now=0)
    assert servers.choose(1) == B
    assert servers.choose(1, frozenset([B])) == C


@given(
    st.lists(st.tuples(st.sampled_from(["good", "failed", "choose"]), st.sampled_from([A, B, C]), st.floats(0, 100)))
)
def test_a_server_is_always_chosen(steps: list[tuple[str, str, float]]) -> None:
    servers, now = Servers([A, B, C]), 0.0
    for what, url, later in steps:
        now += later
        if what == "good":
            servers.good(url)
        elif what == "failed":
            servers.failed(url, refused(503), now)
        assert servers.choose(now, frozenset([url])) in {A, B, C} - {url}


# Conversations.

Steps = Generator[Send | Wait, HttpReply | ClientError | None, HttpReply]
FINE = HttpReply(200, {}, b"{}")
NO = Retries(times=0)


def start(urls: list[str], retries: Retries, **more: Any) -> tuple[Steps, Counters]:
    counters = Counters()
    return converse(REQUEST, Servers(urls), retries, counters, **{"timeout_s": 60.0, **more}), counters


def end(steps: Steps, *outcomes: HttpReply | ClientError) -> tuple[list[Send | Wait], HttpReply | ClientError]:
    """All steps, and the result or the error."""
    seen: list[Send | Wait] = []
    remaining = list(outcomes)
    try:
        step = next(steps)
        while True:
            seen.append(step)
            step = steps.send(None if isinstance(step, Wait) else remaining.pop(0))
    except StopIteration as stop:
        assert not remaining
        return seen, stop.value
    except ClientError as error:
        assert not remaining
        return seen, error


def urls(seen: list[Send | Wait]) -> list[str]:
    return [step.url.removesuffix("/embeddings") if isinstance(step, Send) else "wait" for step in seen]


def test_a_reply_is_the_result_and_knows_its_url() -> None:
    steps, counters = start([A], NO)
    seen, result = end(steps, FINE)
    assert isinstance(result, HttpReply)
    assert (result.url, result.body) == ("http://a/embeddings", b"{}")
    assert seen == [Send(REQUEST, "http://a/embeddings", 60.0)]
    assert (counters.read().requests, counters.read().retries) == (1, 0)


def test_a_server_is_asked_again_after_a_wait() -> None:
    steps, counters = start([A], Retries(times=2, first_s=4, longest_s=100))
    seen, error = end(steps, HttpReply(503, {}, b"1"), ConnectionFailed("2"), HttpReply(500, {}, b"3"))
    assert urls(seen) == [A, "wait", A, "wait", A]
    waits = [step.seconds for step in seen if isinstance(step, Wait)]
    assert 2 <= waits[0] <= 4 <= waits[1] <= 8
    assert isinstance(error, StatusError)
    assert error.detail == "3"
    assert (counters.read().requests, counters.read().retries) == (3, 2)


def test_all_servers_are_asked_before_a_wait() -> None:
    steps, _ = start([A, B, C], Retries(times=1))
    down = ConnectionFailed("down")
    seen, result = end(steps, down, down, down, down, FINE)
    assert urls(seen) == [A, B, C, "wait", A, B]
    assert isinstance(result, HttpReply)


def test_the_wait_is_what_an_overloaded_server_asked_for() -> None:
    steps, _ = start([A, B], Retries(times=1, first_s=0.1))
    busy = HttpReply(429, {"retry-after": "7"}, b"")
    seen, result = end(steps, busy, ConnectionFailed("down"), FINE)
    assert isinstance(seen[2], Wait)
    assert seen[2].seconds >= 7
    assert isinstance(result, HttpReply)


def test_hope_is_not_lost_by_a_server_that_lacks_the_model() -> None:
    steps, _ = start([A, B], Retries(times=1))
    seen, _ = end(steps, HttpReply(503, {}, b""), HttpReply(404, {}, b""), FINE)
    assert urls(seen)[:3] == [A, B, "wait"]


def test_a_model_that_nobody_has_is_the_error() -> None:
    steps, _ = start([A, B], Retries(times=3))
    seen, error = end(steps, HttpReply(404, {}, b"a"), HttpReply(404, {}, b"b"))
    assert urls(seen) == [A, B]
    assert isinstance(error, StatusError)
    assert error.status == 404


def test_a_refusal_for_good_ends_it() -> None:
    steps, _ = start([A, B], Retries(times=3))
    seen, error = end(steps, HttpReply(503, {}, b""), HttpReply(401, {}, b"key"))
    assert urls(seen) == [A, B]
    assert isinstance(error, StatusError)
    assert error.status == 401


def test_each_send_has_what_is_left_of_the_deadline() -> None:
    steps, _ = start([A], Retries(times=5, first_s=0), deadline=time.monotonic() + 10)
    step = next(steps)
    assert isinstance(step, Send)
    assert 9 < step.timeout_s <= 10
    steps.close()
    steps, _ = start([A], NO, timeout_s=3.0, deadline=time.monotonic() + 10)
    step = next(steps)
    assert isinstance(step, Send)
    assert step.timeout_s == 3.0


def test_after_the_deadline_nothing_is_sent() -> None:
    steps, counters = start([A], Retries(times=5), deadline=time.monotonic() - 1)
    seen, error = end(steps)
    assert not seen
    assert isinstance(error, RequestTimeout)
    assert "http://a/embeddings" in error.message
    assert not error.connected
    assert counters.read().requests == 0


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    steps, _ = start([A], Retries(times=5), deadline=time.monotonic() + 5)
    seen, error = end(steps, HttpReply(429, {"retry-after": "6"}, b"busy"))
    assert urls(seen) == [A]
    assert isinstance(error, StatusError)
