"""`InfinityEmbeddings` and servers that fail, break off, or answer something else."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lemni.client import InfinityEmbeddings
from lemni.client.errors import BadAnswer, ConnectionFailed, PartialFailure, RequestTimeout, StatusError
from tests.client.late_interaction_server import COLQWEN
from tests.client.scripted_server import END, Reply, ScriptedServer

PAIR = [[1.0, 2.0]]


class Answers(ScriptedServer):
    """Answers, one request after another, with JSON, with (status, headers, JSON), or not at all (None)."""

    def __init__(self, *answers: Any) -> None:
        left = iter(answers)

        def answer(head: bytes, body: bytes) -> Reply:
            one = next(left)
            if one is None:
                return [END]
            status, lines, content = one if isinstance(one, tuple) else (200, {}, one)
            body = json.dumps(content).encode()
            lines = {"content-type": "application/json", "content-length": len(body), **lines}
            lines = [f"HTTP/1.1 {status} words", *(f"{name}: {value}" for name, value in lines.items()), "", ""]
            return ["\r\n".join(lines).encode() + body]

        super().__init__(answer)

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


@contextlib.contextmanager
def talking(*answers: Any, **settings: Any) -> Iterator[tuple[Answers, InfinityEmbeddings]]:
    """A server that answers so, and a client for it."""
    server = Answers(*answers)
    try:
        with InfinityEmbeddings(server.url, **{"hidden_dim": 2, **settings}) as embeddings:
            yield server, embeddings
    finally:
        server.close()


def flat(*counts: int) -> dict[str, Any]:
    """An answer as Infinity's, with so many numbers for each input: 1, 2, 3 ..."""
    coded = [base64.b64encode(np.arange(1, count + 1, dtype="<f4").tobytes()).decode() for count in counts]
    return {"data": [{"embedding": one, "index": index} for index, one in enumerate(coded)]}


def floats(*vectors: Any) -> dict[str, Any]:
    return {"data": [{"embedding": vector, "index": index} for index, vector in enumerate(vectors)]}


def numbers(count: int, width: int) -> list[list[float]]:
    return [[float(place + one + 1) for one in range(width)] for place in range(0, count, width)]


@pytest.mark.parametrize(
    "failures",
    [
        [(500, {}, {}), (503, {"retry-after": "0"}, {})],
        [None, (429, {"retry-after": "0"}, {})],
        [(408, {"retry-after-ms": "1"}, {}), (409, {"retry-after-ms": "1"}, {})],
    ],
)
def test_two_failures_and_a_success_are_three_attempts(failures: list[Any]) -> None:
    with talking(*failures, floats(PAIR)) as (server, embeddings):
        assert embeddings.embed_text("a") == PAIR
    assert len(server.asked) == 3
    assert server.asked[0] == server.asked[1] == server.asked[2]


@pytest.mark.parametrize("attempts", [1, 2])
def test_max_retries_counts_the_first_attempt(attempts: int) -> None:
    failures = [(500, {"retry-after": "0"}, {"detail": "out of memory"})] * 3
    with talking(*failures, max_retries=attempts) as (server, embeddings):
        with pytest.raises(StatusError, match="out of memory"):
            embeddings.embed_text("a")
        assert len(server.asked) == attempts


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_the_caller_got_wrong_is_sent_once(status: int) -> None:
    with talking((status, {}, {"detail": "no"})) as (server, embeddings):
        with pytest.raises(StatusError) as caught:
            embeddings.embed_text("a")
        assert (caught.value.status, len(server.asked)) == (status, 1)


def test_nobody_listens() -> None:
    embeddings = InfinityEmbeddings("http://127.0.0.1:1", max_retries=1)
    with embeddings, pytest.raises(ConnectionFailed, match=r"http://127\.0\.0\.1:1/embeddings"):
        embeddings.embed_text("a")


def test_the_server_is_too_slow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        embeddings = InfinityEmbeddings(f"http://127.0.0.1:{deaf.getsockname()[1]}", timeout=0.05)
        with embeddings, pytest.raises(RequestTimeout) as caught:
            embeddings.embed_text("a")
    assert caught.value.timeout_s == 0.05


def test_the_key_is_sent() -> None:
    with talking(floats(PAIR), api_key="sk-secret") as (server, embeddings):
        embeddings.embed_text("a")
    assert b"authorization: bearer sk-secret" in server.requests[0][0].lower()
    with talking(floats(PAIR)) as (server, embeddings):
        embeddings.embed_text("a")
    assert b"authorization" not in server.requests[0][0].lower()


def test_a_part_that_is_too_large_is_sent_in_halves() -> None:
    answers = (413, {}, {"detail": "too large"}), floats(PAIR), floats([[3.0, 4.0]])
    with talking(*answers) as (server, embeddings):
        assert embeddings.embed_documents(["a", "b"]) == [PAIR, [[3.0, 4.0]]]
    assert [body["input"] for body in server.asked] == [["a", "b"], ["a"], ["b"]]


def test_the_finished_part_of_a_list_is_not_lost() -> None:
    answers = flat(8, 4), (422, {}, {"detail": "no"}), floats([[0.0] * 4])
    with talking(*answers, hidden_dim=4, embed_batch_size=2, concurrency=1) as (server, embeddings):
        with pytest.raises(PartialFailure) as caught:
            embeddings.embed_documents_batch(["a", "b", "c"])
        assert [body["input"] for body in server.asked] == [["a", "b"], ["c"], ["test"]]
    assert caught.value.missing == [2]
    finished = {place: rows.tolist() for place, rows in caught.value.finished.items()}
    assert finished == {0: numbers(8, 4), 1: numbers(4, 4)}


def test_a_shape_in_the_answer_is_used_and_nothing_asked_for() -> None:
    answer = flat(6, 3)
    answer["data"][0]["shape"], answer["data"][1]["shape"] = [2, 3], [1, 3]
    with talking(answer, hidden_dim=3) as (server, embeddings):
        assert embeddings.embed_documents(["a", "b"]) == [numbers(6, 3), numbers(3, 3)]
    assert len(server.asked) == 1


def test_numbers_that_are_no_vectors_are_named() -> None:
    with talking(flat(8, 6), floats([[0.0] * 4])) as (server, embeddings):
        with pytest.raises(BadAnswer, match="input 1 has 6 numbers, which is no multiple of 4") as caught:
            embeddings.embed_documents(["a", "b"])
        assert caught.value.item == 1
    assert server.asked[1] == {"input": ["test"], "model": COLQWEN, "dimensions": 1}


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_a_model_with_one_vector_per_text_is_not_taken_for_another(encoding: str) -> None:
    answer = flat(256) if encoding == "base64" else floats([1.0] * 256)
    talk = talking(answer, floats([1.0]), encoding=encoding)
    with talk as (_, embeddings), pytest.raises(BadAnswer, match="one vector per input"):
        embeddings.embed_text("a")


def test_a_server_that_cannot_say_how_long_its_vectors_are() -> None:
    talk = talking(flat(256), (400, {}, {"detail": "no"}))
    with talk as (_, embeddings), pytest.raises(BadAnswer, match="take encoding='float'"):
        embeddings.embed_text("a")


@pytest.mark.parametrize(
    "answer",
    [
        {"data": []},
        {"data": "?"},
        [],
        floats([[1.0, float("nan")]]),
        {"data": [{"embedding": "no base64!"}]},
        floats([[1.0, 2.0], [3.0]]),
    ],
)
def test_answers_that_are_none(answer: Any) -> None:
    with talking(answer) as (_, embeddings), pytest.raises(BadAnswer):
        embeddings.embed_text("a")
