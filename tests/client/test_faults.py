"""The clients and a server that misbehaves: the right error with words that help, the right number of attempts, and
never a hang. Each test asks the sync and the async client."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from lemni.client import (
    BadAnswer,
    ClientError,
    ConnectionFailed,
    PartialFailure,
    RequestTimeout,
    Retries,
    StatusError,
)
from tests.client import misbehaving as bad
from tests.client.asking import Asking, asking
from tests.client.misbehaving import Behaviour, Server, misbehaving, vectors_of
from tests.server.live import free_port, wait_for

pytestmark = pytest.mark.timeout(30)

FAST = Retries(times=2, first_s=0.01, longest_s=0.02)
TEXTS = [f"text {number}" for number in range(9)]


@pytest.fixture(params=[True, False], ids=["sync", "async"])
def sync(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def ask(sync: bool) -> Iterator[Callable[..., Asking]]:
    """Makes clients that are closed with the test."""
    made: list[Asking] = []

    def make(*servers: Server, **settings: Any) -> Asking:
        made.append(Asking(sync, [server.url for server in servers], **{"retries": FAST, "model": "toy", **settings}))
        return made[-1]

    yield make
    for client in made:
        client.end()


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


# Answers that are not what was asked for.


def change_first(**fields: Any) -> Behaviour:
    return bad.changed(lambda answer: answer["data"][0].update(fields))


def tensors(**named: Any) -> Behaviour:
    return bad.content(bad.safetensors(named), kind="application/x-safetensors")


ROWS = vectors_of(TEXTS[:3])
FILE = bad.safetensors({"embeddings": ROWS})
RAW = "application/x-safetensors"
WRONG: dict[str, tuple[Behaviour, str]] = {
    "no_json": (bad.content(b"{"), "not JSON"),
    "html": (bad.content(b"<html>hello</html>", kind="text/html"), "not JSON.*hello"),
    "empty": (bad.content(b""), "not JSON"),
    "another_form": (bad.content({"vectors": []}), "no list `data`"),
    "a_list": (bad.content([1]), "no list `data`"),
    "null": (bad.content(None), "no list `data`"),
    "too_few": (bad.changed(lambda answer: answer["data"].pop()), "2 entries; 3 were asked for"),
    "too_many": (bad.changed(lambda answer: answer["data"].append(answer["data"][0])), "4 entries"),
    "same_index": (change_first(index=1), "indices"),
    "index_out_of_range": (change_first(index=3), "indices"),
    "negative_index": (change_first(index=-1), "indices"),
    "no_number_as_index": (change_first(index="0"), "indices"),
    "one_index_missing": (change_first(index=None), "indices"),
    "no_vector": (change_first(embedding=None), r"data\[0\].embedding"),
    "no_base64": (change_first(embedding="äöü"), r"data\[0\].embedding"),
    "half_a_float": (change_first(embedding="AAAA"), r"data\[0\].embedding"),
    "text_as_vector": (change_first(embedding=["a", "b"]), r"data\[0\].embedding"),
    "object_as_vector": (change_first(embedding={"a": 1}), r"data\[0\].embedding"),
    "number_as_vector": (change_first(embedding=1.5), r"data\[0\].embedding"),
    "ragged": (change_first(embedding=[0.5, 0.5]), "different shapes"),
    "nested": (change_first(embedding=[[0.5, 0.5], [0.5, 0.5]]), r"data\[0\].embedding"),
    "null_in_a_vector": (change_first(embedding=[None, 1.0, 1.0, 1.0]), "input 0 has NaN"),
    "nan_in_base64": (change_first(embedding=bad._base64(np.float32([1, np.nan, 1, 1]))), "input 0 has NaN"),
    "infinity_in_base64": (change_first(embedding=bad._base64(np.float32([1, np.inf, 1, 1]))), "input 0 has NaN"),
    "empty_vectors": (
        bad.changed(lambda answer: [entry.update(embedding="") for entry in answer["data"]]),
        "shape",
    ),
    "raw_nan": (tensors(embeddings=np.where(ROWS > 1e9, 0, np.float32("nan"))), "input 0 has NaN"),
    "raw_infinity": (tensors(embeddings=np.full((3, 4), np.float32("inf"))), "input 0 has NaN"),
    "raw_too_few": (tensors(embeddings=ROWS[:2]), r"shape \(2, 4\); 3 vectors"),
    "raw_flat": (tensors(embeddings=ROWS.ravel()), "shape"),
    "raw_no_columns": (tensors(embeddings=ROWS[:, :0]), "shape"),
    "raw_other_name": (tensors(vectors=ROWS), "no embeddings, but vectors"),
    "raw_empty": (bad.content(b"", kind=RAW), "not a safetensors file"),
    "raw_cut_off": (bad.content(FILE[:-8], kind=RAW), "not a safetensors file"),
    "raw_header_cut_off": (bad.content(FILE[:20], kind=RAW), "not a safetensors file"),
    "raw_huge_header": (bad.content(struct.pack("<Q", 1 << 62) + FILE[8:], kind=RAW), "not a safetensors file"),
    "raw_no_header": (bad.content(b"\x02" + b"\0" * 7 + b"[]", kind=RAW), "not a safetensors file"),
    "raw_json": (bad.content({"data": []}, kind=RAW), "not a safetensors file"),
    "broken_gzip": (bad.content(b"no gzip", Content_Encoding="gzip"), "decompress"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_named_and_not_tried_again(ask: Callable[..., Asking], name: str) -> None:
    behaviour, words = WRONG[name]
    with misbehaving(otherwise=behaviour) as server:
        with pytest.raises(BadAnswer, match=words) as caught:
            ask(server).embed(TEXTS[:3])
        assert f"{server.url}/embeddings" in caught.value.message
        assert len(server.seen) == 1


WRONG_SCORES: dict[str, Any] = {
    "another_form": {"scores": [1, 2]},
    "a_number": {"results": 7},
    "numbers": {"results": [1, 2]},
    "missing": {"results": [{"index": 0, "relevance_score": 1.0}]},
    "twice": {"results": [{"index": 0, "relevance_score": 1.0}, {"index": 0, "relevance_score": 2.0}]},
    "out_of_range": {"results": [{"index": 2, "relevance_score": 1.0}]},
    "fraction": {"results": [{"index": 0.5, "relevance_score": 1.0}]},
    "null": {"results": [{"index": 0, "relevance_score": None}, {"index": 1, "relevance_score": 1.0}]},
    "text": {"results": [{"index": 0, "relevance_score": "high"}]},
}


@pytest.mark.parametrize("name", WRONG_SCORES)
def test_wrong_scores_are_named(ask: Callable[..., Asking], name: str) -> None:
    with misbehaving(otherwise=bad.content(WRONG_SCORES[name])) as server:
        with pytest.raises(BadAnswer, match=f"{server.url}/rerank: the server's answer"):
            ask(server).rerank("query", ["one", "two"])
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"data": [[{"label": "a", "score": 1.0}]]},
        {"data": [[{"label": "a"}], []]},
        {"data": [["a"], ["b"]]},
        {"data": 3},
        {"data": [[{"label": "a", "score": None}], []]},
        [],
    ],
)
def test_wrong_labels_are_named(ask: Callable[..., Asking], answer: Any) -> None:
    with (
        misbehaving(otherwise=bad.content(answer)) as server,
        pytest.raises(BadAnswer, match=f"{server.url}/classify"),
    ):
        ask(server).classify(["one", "two"])


@pytest.mark.parametrize("answer", [{}, {"data": [{"name": "x"}]}, {"data": {}}, [], b"", {"data": [{"id": 3}]}])
def test_a_wrong_list_of_models_is_named(ask: Callable[..., Asking], answer: Any) -> None:
    with (
        misbehaving(otherwise=bad.content(answer)) as server,
        pytest.raises(BadAnswer, match=f"{server.url}/models"),
    ):
        ask(server).models()


ODD_BUT_RIGHT: dict[str, Behaviour] = {
    "chunked": bad.chunked,
    "until_the_end": bad.until_the_end,
    "zipped": bad.zipped,
    "shuffled": bad.changed(lambda answer: answer["data"].reverse()),
    "without_index": bad.changed(lambda answer: [entry.pop("index") for entry in answer["data"]]),
    "without_usage": bad.changed(lambda answer: answer.pop("usage")),
    "endless_usage": bad.changed(lambda answer: answer.update(usage={"total_tokens": 1e300})),
    "early_hints": bad.slow(
        0, lambda turn: (turn.send(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"), bad.good(turn))[1]
    ),
}


@pytest.mark.parametrize("name", ODD_BUT_RIGHT)
def test_an_odd_answer_that_is_right_is_taken(ask: Callable[..., Asking], name: str) -> None:
    with misbehaving(ODD_BUT_RIGHT[name], ODD_BUT_RIGHT[name]) as server:
        client = ask(server)
        for _ in range(2):
            same(client.embed(TEXTS), TEXTS)
        assert len(server.seen) == 2


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


def test_what_follows_an_answer_is_not_taken_for_the_next(ask: Callable[..., Asking]) -> None:
    """An answer that nobody asked for must not become that of the next request."""
    stranger = bad.reply(b'{"data": [{"index": 0, "embedding": [9, 9, 9, 9]}]}')

    def twice(turn: bad.Turn) -> None:
        bad.good(turn)
        turn.send(stranger)

    with misbehaving(twice, twice) as server:
        client = ask(server)
        for text in TEXTS:
            same(client.embed([text]), [text])
            time.sleep(0.01)


def test_no_more_requests_at_once_than_allowed(ask: Callable[..., Asking]) -> None:
    with misbehaving(otherwise=bad.slow(0.05)) as server:
        same(ask(server, batch_size=1, concurrency=3).embed(TEXTS), TEXTS)
        assert server.most_at_once == 3
        assert server.connections == 3


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
    with misbehaving(otherwise=bad.failing("text 2", by=change_first(embedding=[None] * 4))) as server:
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
