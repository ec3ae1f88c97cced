"""Several servers, and long lists in parts: who is asked next, what fails alone, and what is not lost. Each test asks
the sync and the async client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lemni.client import (
    BadAnswer,
    ConnectionFailed,
    PartialFailure,
    RequestTimeout,
    Retries,
    StatusError,
)
from tests.client import misbehaving as bad
from tests.client.asking import Asking, asking
from tests.client.misbehaving import Behaviour, misbehaving, vectors_of
from tests.server.live import free_port

pytestmark = pytest.mark.timeout(30)

TEXTS = [f"text {number}" for number in range(9)]


def same(vectors: Any, texts: list[str]) -> None:
    np.testing.assert_array_equal(vectors, vectors_of(texts))


# Several servers.


def test_a_dead_server_is_passed_over(sync: bool) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with misbehaving() as server, asking(sync, [dead, server.url], retries=0) as client:
        for _ in range(3):
            same(client.embed(TEXTS), TEXTS)
        assert (client.statistics.requests, client.statistics.retries) == (4, 1)
        assert client.base_url == dead


@pytest.mark.parametrize("behaviour", [bad.status(503), bad.status(429), bad.hang_up, bad.status(404)])
def test_the_next_server_is_asked_at_once(ask: Callable[..., Asking], behaviour: Behaviour) -> None:
    with misbehaving(otherwise=behaviour) as first, misbehaving() as second:
        client = ask(first, second, retries=Retries(times=1, first_s=10))
        same(client.embed(TEXTS), TEXTS)
        same(client.embed(TEXTS), TEXTS)
        assert (len(first.seen), len(second.seen)) == (1, 2)


def test_a_slow_server_is_passed_over(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.hang) as first, misbehaving() as second:
        client = ask(first, second, timeout_s=0.2)
        same(client.embed(TEXTS), TEXTS)
        same(client.embed(TEXTS), TEXTS)
        assert (len(first.seen), len(second.seen)) == (1, 2)


def test_a_caller_s_deadline_says_nothing_about_a_server(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.slow(0.3)) as first, misbehaving() as second:
        client = ask(first, second)
        with pytest.raises(RequestTimeout, match=first.url):
            client.embed(TEXTS, deadline_s=0.1)
        same(client.embed(TEXTS), TEXTS)
        assert (len(first.seen), len(second.seen)) == (2, 0)


def test_when_all_fail_the_one_that_may_come_back_is_waited_for(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.status(503, Retry_After="0.2")) as first, misbehaving(otherwise=bad.status(404)) as second:
        same(ask(first, second).embed(TEXTS), TEXTS)
        assert first.seen[1].at - first.seen[0].at >= 0.2


def test_what_one_server_refuses_for_good_no_other_is_asked(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.status(400)) as first, misbehaving() as second:
        with pytest.raises(StatusError):
            ask(first, second).embed(TEXTS)
        assert not second.seen


# Parts.


def test_too_large_a_request_goes_in_halves(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.at_most(2)) as server:
        same(ask(server).embed(TEXTS), TEXTS)
        assert server.sizes == [9, 4, 2, 2, 5, 2, 3, 1, 2]


def test_an_input_that_is_too_large_alone_is_named(ask: Callable[..., Asking]) -> None:
    too_large = bad.failing("text 4", by=bad.status(413, "too large"))
    with misbehaving(otherwise=too_large) as server:
        with pytest.raises(PartialFailure, match="1 of 9 inputs failed: input 4: HTTP 413") as caught:
            ask(server).embed(TEXTS)
        assert caught.value.missing == [4]


@pytest.mark.parametrize("code", [400, 422])
def test_guilty_inputs_of_a_long_list_fail_alone(ask: Callable[..., Asking], code: int) -> None:
    with misbehaving(otherwise=bad.blaming("text 1", "text 3", "text 8", code=code)) as server:
        with pytest.raises(PartialFailure) as caught:
            ask(server, batch_size=4).embed(TEXTS)
        error = caught.value
        assert error.missing == [1, 3, 8]
        assert [list(failure.positions) for failure in error.failures] == [[1], [3], [8]]
        assert [failure.error.item for failure in error.failures] == [1, 3, 8]
        assert "[input 8 of the whole list]" in str(error.failures[2].error)
        for place, vector in error.finished.items():
            np.testing.assert_array_equal(vector, bad.vector_of(TEXTS[place]))
        assert (error.total, error.item) == (9, 1)
        assert "3 of 9 inputs failed" in error.message


def test_of_a_short_list_the_guilty_input_is_the_error(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.blaming("text 3")) as server:
        with pytest.raises(StatusError, match=r"input\[3\] is bad") as caught:
            ask(server).embed(TEXTS)
        assert (caught.value.item, caught.value.param) == (3, "input[3]")
        assert len(server.seen) == 1


def test_only_so_many_guilty_inputs_are_looked_for(ask: Callable[..., Asking]) -> None:
    texts = [f"text {number}" for number in range(60)]
    with misbehaving(otherwise=bad.blaming(*texts[:40])) as server:
        with pytest.raises(PartialFailure) as caught:
            ask(server, batch_size=40).embed(texts)
        assert sorted(caught.value.finished) == list(range(40, 60))
        assert len(server.seen) == 17 + 1


def test_one_bad_part_does_not_end_the_others(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.failing("text 2", by=bad.status(500, "no luck"))) as server:
        with pytest.raises(PartialFailure, match="2 of 9 inputs failed: inputs 2 to 3: HTTP 500") as caught:
            ask(server, batch_size=2, retries=0).embed(TEXTS)
        (failure,) = caught.value.failures
        assert list(failure.positions) == [2, 3]
        assert isinstance(failure.error, StatusError)
        assert isinstance(caught.value.__cause__, StatusError)
        assert caught.value.missing == [2, 3]


def test_a_bad_answer_to_one_part_does_not_end_the_others(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.failing("text 2", by=bad.change_first(embedding=[None] * 4))) as server:
        with pytest.raises(PartialFailure) as caught:
            ask(server, batch_size=2).embed(TEXTS)
        (failure,) = caught.value.failures
        assert isinstance(failure.error, BadAnswer)
        assert failure.error.item == 2
        assert caught.value.missing == [2, 3]


@pytest.mark.parametrize("code", [401, 404, 422])
def test_an_error_that_meets_all_parts_ends_the_call_early(ask: Callable[..., Asking], code: int) -> None:
    with misbehaving(bad.good, otherwise=bad.status(code)) as server:
        with pytest.raises(PartialFailure) as caught:
            ask(server, batch_size=1, concurrency=1).embed(TEXTS)
        assert len(server.seen) == 2
        assert caught.value.missing == list(range(1, 9))
        assert all(failure.error is caught.value.failures[0].error for failure in caught.value.failures)


def test_nothing_finished_is_the_error_itself(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.status(401, "wrong key")) as server:
        with pytest.raises(StatusError, match="wrong key"):
            ask(server, batch_size=2).embed(TEXTS)
        assert len(server.seen) <= 4


def test_halves_stop_at_an_error_that_meets_all(ask: Callable[..., Asking]) -> None:
    with misbehaving(bad.status(413), otherwise=bad.hang_up) as server:
        with pytest.raises(ConnectionFailed):
            ask(server).embed(TEXTS)
        assert len(server.seen) == 1 + 3


def test_parts_of_different_models_are_not_joined(ask: Callable[..., Asking]) -> None:
    short = bad.changed(lambda answer: [entry.update(embedding=[1.0, 2.0]) for entry in answer["data"]])
    with (
        misbehaving(otherwise=bad.failing("text 0", by=short)) as server,
        pytest.raises(BadAnswer, match="different lengths"),
    ):
        ask(server, batch_size=3).embed(TEXTS)


# The cache and what fails.


def test_what_a_failed_call_has_finished_is_in_the_cache(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.blaming("text 3", "text 7")) as server:
        client = ask(server, batch_size=2, cache="memory")
        client.embed(TEXTS[2:3])  # is held: the positions of the rest are not those of the list
        with pytest.raises(PartialFailure) as caught:
            client.embed(TEXTS)
        error = caught.value
        assert error.missing == [3, 7]
        assert [list(failure.positions) for failure in error.failures] == [[3], [7]]
        assert [failure.error.item for failure in error.failures] == [3, 7]
        assert "[input 7 of the whole list]" in error.failures[1].error.message
        for place, vector in error.finished.items():
            np.testing.assert_array_equal(vector, bad.vector_of(TEXTS[place]))
        server.otherwise = bad.good
        before = len(server.seen)
        same(client.embed(TEXTS), TEXTS)
        assert [one.inputs for one in server.seen[before:]] == [["text 3", "text 7"]]


def test_the_deadline_holds_with_a_cache_too(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.hang) as server:
        client = ask(server, cache="memory")
        began = time.monotonic()
        with pytest.raises(RequestTimeout):
            client.embed(TEXTS, deadline_s=0.3)
        assert time.monotonic() - began < 1.0
