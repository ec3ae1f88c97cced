"""Answers that are whole and wrong: each is named, with the URL, and not asked for again. Odd ones that are right are
taken. Each test asks the sync and the async client."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lemni.client import (
    BadAnswer,
)
from tests.client import misbehaving as bad
from tests.client.asking import Asking
from tests.client.misbehaving import Behaviour, misbehaving, vectors_of

pytestmark = pytest.mark.timeout(30)

TEXTS = [f"text {number}" for number in range(9)]


def same(vectors: Any, texts: list[str]) -> None:
    np.testing.assert_array_equal(vectors, vectors_of(texts))


# Answers that are not what was asked for.


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
    "same_index": (bad.change_first(index=1), "indices"),
    "index_out_of_range": (bad.change_first(index=3), "indices"),
    "negative_index": (bad.change_first(index=-1), "indices"),
    "no_number_as_index": (bad.change_first(index="0"), "indices"),
    "one_index_missing": (bad.change_first(index=None), "indices"),
    "no_vector": (bad.change_first(embedding=None), r"data\[0\].embedding"),
    "no_base64": (bad.change_first(embedding="äöü"), r"data\[0\].embedding"),
    "half_a_float": (bad.change_first(embedding="AAAA"), r"data\[0\].embedding"),
    "text_as_vector": (bad.change_first(embedding=["a", "b"]), r"data\[0\].embedding"),
    "object_as_vector": (bad.change_first(embedding={"a": 1}), r"data\[0\].embedding"),
    "number_as_vector": (bad.change_first(embedding=1.5), r"data\[0\].embedding"),
    "ragged": (bad.change_first(embedding=[0.5, 0.5]), "different shapes"),
    "nested": (bad.change_first(embedding=[[0.5, 0.5], [0.5, 0.5]]), r"data\[0\].embedding"),
    "null_in_a_vector": (bad.change_first(embedding=[None, 1.0, 1.0, 1.0]), "input 0 has NaN"),
    "nan_in_base64": (bad.change_first(embedding=bad._base64(np.float32([1, np.nan, 1, 1]))), "input 0 has NaN"),
    "infinity_in_base64": (bad.change_first(embedding=bad._base64(np.float32([1, np.inf, 1, 1]))), "input 0 has NaN"),
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
