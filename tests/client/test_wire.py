"""Requests as bytes and answers as arrays, without a connection: what is cut, what is refused, what is read."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import pickle
import time
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lemni.client.errors import BadAnswer, ClientError, Failure, PartialFailure, RequestTimeout, StatusError, placed
from lemni.client.wire import embeddings, http, inputs, models, safetensors, scores, usage
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.errors import InvalidRequest
from lemni.types import Audio, Image, Mixed, Pair
from tests.client.misbehaving import safetensors as file_of

RAW = {"content-type": "application/x-safetensors"}

# Cutting.


@given(st.lists(st.integers(0, 50)), st.integers(1, 9), st.integers(1, 100))
def test_parts_are_the_whole_list_in_order_and_within_both_limits(sizes: list[int], items: int, total: int) -> None:
    parts = inputs.split(sizes, items, total)
    assert [place for part in parts for place in part] == list(range(len(sizes)))
    assert all(part for part in parts)
    for part in parts:
        assert len(part) <= items
        assert len(part) == 1 or sum(sizes[place] for place in part) <= total
    for part, following in itertools.pairwise(parts):  # none could have been longer
        assert len(part) == items or sum(sizes[place] for place in part) + sizes[following[0]] > total


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_size_of_a_text_is_its_bytes(text: str) -> None:
    assert inputs.size_of(text) == len(text.encode())


def test_sizes_of_other_items() -> None:
    assert inputs.size_of(Pair("abc", "de")) == 5
    assert inputs.size_of(Mixed(("abc", Image(b"123")))) == 7
    assert inputs.size_of([1, 2, 3]) == 18


def test_a_hundred_thousand_items_take_no_time() -> None:
    texts = ["text"] * 99_999 + ["ä"]
    began = time.process_time()
    found, _ = inputs.listed(texts)
    parts = inputs.split([inputs.size_of(item) for item in found], 256, 1 << 20)
    assert len(parts) == 391
    failure = PartialFailure(
        dict.fromkeys(range(99_990), 0), [Failure(range(99_990, 100_000), BadAnswer("x"))], 100_000
    )
    assert len(failure.missing) == 10
    assert time.process_time() - began < 2.0


# Items.


def test_what_can_be_given() -> None:
    image = Image(b"\xff\xd8\xff")
    assert inputs.listed("a") == (["a"], True)
    assert inputs.listed(image) == ([image], True)
    assert inputs.listed(("a", "b")) == (["a", "b"], False)
    assert inputs.listed(text for text in "ab") == (["a", "b"], False)
    assert inputs.listed(np.array(["a", "ä"])) == (["a", "ä"], False)
    assert inputs.listed([[1, 2], (3, 4), np.array([5, 6]), [np.int32(7)]]) == ([[1, 2], [3, 4], [5, 6], [7]], False)
    assert inputs.listed(np.array([[1, 2], [3, 4]])) == ([[1, 2], [3, 4]], False)
    assert inputs.listed([]) == ([], False)
    request = embeddings.request(inputs.listed(np.array(["a", "ä"]))[0], "raw", {})
    assert json.loads(request.body or b"")["input"] == ["a", "ä"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "texts is of type NoneType"),
        (5, "texts is of type int"),
        (b"abc", "texts is of type bytes"),
        ({"a": 1}, "texts is of type dict"),
        ({"a"}, "texts is of type set"),
        (np.array("a"), "texts is of type ndarray"),
        ([1, 2, 3], r"texts\[0\] is of type int"),
        (["a", None], r"texts\[1\] is of type NoneType"),
        (["a", []], r"texts\[1\] is of type list of something else"),
        (["a", [True]], r"texts\[1\] is of type list"),
        (["a", [1, "b"]], r"texts\[1\] is of type list"),
        (["a", [[1], [2, 3]]], r"texts\[1\] is of type list"),
        (["a", ("b", "c")], r"texts\[1\] is of type tuple"),
        (["a", np.array([1.5])], r"texts\[1\] is of type ndarray"),
        ([Pair("a", "b")], r"texts\[0\] is of type Pair"),
        (["a", "b\ud800c"], r"texts\[1\] is no valid Unicode: half of a surrogate pair, at character 1"),
        ("\udfff", "texts is no valid Unicode"),
        ([Mixed(("a", "\ud800"))], r"texts\[0\] is no valid Unicode"),
    ],
)
def test_what_cannot_be_given_is_named(given: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        inputs.listed(given)


def test_files_are_named_by_their_first_bytes() -> None:
    kinds = {
        b"\xff\xd8\xffabc": "image/jpeg",
        b"\x89PNG\r\n": "image/png",
        b"RIFF1234WEBPVP8": "image/webp",
        b"RIFF1234WAVEfmt": "audio/wav",
        b"OggS": "audio/ogg",
        b"": "application/octet-stream",
    }
    for data, kind in kinds.items():
        assert inputs.data_uri(data).startswith(f"data:{kind};base64,")
    assert inputs.input_of(Audio(b"abc")) == {"audio": "data:application/octet-stream;base64,YWJj"}


def test_what_json_cannot_hold_is_no_crash() -> None:
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        embeddings.request(["a"], "raw", {"prompt": "\ud800"})
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        scores.rerank_request("q", ["a"], {"prompt": object()})


# Errors of servers.


@pytest.mark.parametrize(
    ("body", "detail", "item"),
    [
        ({"error": {"message": "m", "param": "input[3]", "code": "c"}}, "m", 3),
        ({"error": {"message": "m", "param": "documents[12].text"}}, "m", 12),
        ({"error": {"message": "m", "param": "text_2[1]"}}, "m", 1),
        ({"error": {"message": "m", "param": "query.content[1]"}}, "m", None),
        ({"error": {"message": "m", "param": "outputs[1]"}}, "m", None),
        ({"error": {"message": "m", "param": "input_type"}}, "m", None),
        ({"error": {"message": "m", "param": 3, "code": 400}}, "m", None),
        ({"error": {"message": None}}, '{"error":{"message":null}}', None),
        ({"error": "m"}, "m", None),
        ({"message": "m"}, "m", None),
        ({"detail": "Unauthorized"}, "Unauthorized", None),
        ({"detail": [{"loc": ["body", "input", 3], "msg": "bad"}]}, "body.input.[3]: bad", 3),
        ({"detail": [{"loc": ["body", "input", "list[str]", 4], "msg": "bad"}]}, "body.input.list[str].[4]: bad", 4),
        ({"detail": [{"loc": ["body", "model"], "msg": "bad"}]}, "body.model: bad", None),
        ({"detail": []}, '{"detail":[]}', None),
        ({"detail": ["a"]}, '{"detail":["a"]}', None),
        ("text", "text", None),
        ([], "[]", None),
        (None, "null", None),
    ],
)
def test_the_servers_words_and_the_guilty_input(body: Any, detail: str, item: int | None) -> None:
    error = http.status_error(HttpReply(400, {}, orjson.dumps(body)), "http://x/embeddings")
    assert (error.detail, error.item, error.status) == (detail, item, 400)
    assert error.message == f"HTTP 400 from http://x/embeddings: {detail}"


def test_a_body_without_words() -> None:
    assert http.status_error(HttpReply(502, {}, b""), "u").detail == "no explanation"
    long = http.status_error(HttpReply(502, {}, b"<p>" * 100_000), "u")
    assert (len(long.detail), len(long.body)) == (500, 65536)
    assert http.status_error(HttpReply(502, {}, b"\xff\xfe"), "u").detail == "\ufffd\ufffd"


def test_urls() -> None:
    asked, root = HttpRequest("/embeddings", b""), HttpRequest("/health", at_root=True)
    assert http.url_of("http://x", asked) == "http://x/embeddings"
    assert http.url_of("http://x/v1", asked) == "http://x/v1/embeddings"
    assert http.url_of("http://x/v1", root) == "http://x/health"
    assert http.url_of("http://x/api", root) == "http://x/api/health"


# The client's own errors.


def errors() -> list[ClientError]:
    status = StatusError("m", 429, detail="d", body=b"b", code="c", item=2, param="p", retry_after_s=3.0)
    timeout = RequestTimeout("t", 2.0, connected=False)
    return [status, timeout, BadAnswer("b", item=1), PartialFailure({0: 1.5}, [Failure(range(1, 3), status)], 3)]


@pytest.mark.parametrize("error", errors(), ids=lambda error: type(error).__name__)
def test_errors_survive_copying_and_pickling(error: ClientError) -> None:
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert (str(other), other.code, other.retryable) == (str(error), error.code, error.retryable)
        assert set(other.__dict__) == set(error.__dict__)


def test_an_error_that_several_parts_have_is_not_changed_for_one_of_them() -> None:
    shared = BadAnswer("bad", item=1)
    first, second = placed(shared, range(10, 20)), placed(shared, range(20, 30))
    assert (shared.item, first.item, second.item) == (1, 11, 21)
    assert (shared.message, first.message) == ("bad", "bad [input 11 of the whole list]")
    assert placed(first, range(100, 200)).message == "bad [input 111 of the whole list]"
    assert placed(shared, range(5)) is shared


def test_a_partial_failure_is_placed_in_a_longer_list() -> None:
    shared = BadAnswer("bad", item=1)
    failure = PartialFailure({0: "a"}, [Failure([1], shared), Failure([2], shared)], 3)
    wider = failure.placed([5, 7, 9], {0: "z", 5: "a"}, 10)
    assert wider.finished == {0: "z", 5: "a"}
    assert [list(one.positions) for one in wider.failures] == [[7], [9]]
    assert [one.error.item for one in wider.failures] == [7, 7]
    assert wider.missing == [1, 2, 3, 4, 6, 7, 8, 9]
    assert shared.item == 1


# Answers: whatever comes, it is read, or it is a BadAnswer.

FIELDS = [
    *("data", "embedding", "index", "shape", "sparse_embedding", "indices", "values", "scale"),
    *("usage", "total_tokens", "results", "score", "label", "id"),
]
JSON_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1e300, 10**25, 0.5, "AAAAAA==", "AACAfw==", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
READERS: dict[str, Any] = {
    "dense": embeddings.read_dense,
    "int8_scaled": lambda reply, count: embeddings.read_dense(reply, count, "int8_scaled"),
    "bfloat16": lambda reply, count: embeddings.read_dense(reply, count, "bfloat16"),
    "multi": embeddings.read_multi,
    "multi_of_a_width": lambda reply, count: embeddings.read_multi(reply, count, 2),
    "sparse": embeddings.read_sparse,
    "scores": scores.read_scores,
    "labels": scores.read_labels,
    "models": lambda reply, count: models.read_models(reply),
}
ENTRY = {"index": 0, "embedding": "AAAAAA==", "sparse_embedding": {"indices": [1], "values": [0.5]}}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=60, deadline=None)
@given(value=JSON_VALUES, count=st.integers(1, 2), wrapped=st.booleans())
@example(value={**ENTRY, "shape": [1, 1, 1]}, count=1, wrapped=True)
@example(value={**ENTRY, "shape": ["a"]}, count=1, wrapped=True)
@example(value={**ENTRY, "shape": [10**25]}, count=1, wrapped=True)
@example(value={**ENTRY, "shape": [1]}, count=1, wrapped=True)
@example(value={"index": 0, "sparse_embedding": {"indices": [10**25], "values": [1]}}, count=1, wrapped=True)
@example(value={"index": 0, "sparse_embedding": {"indices": [1, 2], "values": [1]}}, count=1, wrapped=True)
def test_any_json_is_read_or_refused(name: str, value: Any, count: int, wrapped: bool) -> None:
    content = {"data": [value] * count, "results": [value] * count} if wrapped else value
    _read(name, HttpReply(200, {}, json.dumps(content).encode()), count)


FILES = [
    file_of({"embeddings": np.ones((2, 3), np.float32)}),
    file_of({"embeddings": np.ones((2, 3), np.int8), "scales": np.ones(2, np.float32)}),
    file_of({"multi_vectors": np.ones((5, 3), np.float32), "lengths": np.array([2, 3])}),
    file_of(
        {
            "sparse_indices": np.arange(5, dtype=np.int32),
            "sparse_values": np.ones(5, np.float32),
            "sparse_lengths": np.array([2, 3]),
        }
    ),
]


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, 3),
    changes=st.lists(
        st.tuples(st.floats(0, 0.999), st.sampled_from(list(b'0123456789-[]{}",:.eFI8\0\xff'))), max_size=3
    ),
    cut=st.integers(0, 40),
)
def test_any_damaged_file_is_read_or_refused(which: int, changes: list[tuple[float, int]], cut: int) -> None:
    data = bytearray(FILES[which])
    for place, byte in changes:
        data[int(place * len(data))] = byte
    for name in ("dense", "multi", "sparse"):
        _read(name, HttpReply(200, RAW, bytes(data[: len(data) - cut])), 2)


def _read(name: str, reply: HttpReply, count: int) -> None:
    with contextlib.suppress(BadAnswer):
        READERS[name](reply, count)


@pytest.mark.parametrize(
    "tensors",
    [
        {"multi_vectors": np.ones((5, 3), np.float32), "lengths": np.array([2, 4])},
        {"multi_vectors": np.ones((5, 3), np.float32), "lengths": np.array([6, -1])},
        {"multi_vectors": np.ones((5, 3), np.float32), "lengths": np.array([2.0, 3.0], np.float32)},
        {"multi_vectors": np.ones((5, 3), np.float32), "lengths": np.array([[2, 3]])},
        {"multi_vectors": np.ones(5, np.float32), "lengths": np.array([2, 3])},
        {"multi_vectors": np.ones((5, 3, 1), np.float32), "lengths": np.array([2, 3])},
        {"multi_vectors": np.full((5, 3), np.nan, np.float32), "lengths": np.array([2, 3])},
        {"multi_vectors": np.ones((5, 3), np.float32)},
        {"embeddings": np.ones((2, 3), np.int8), "scales": np.ones(3, np.float32)},
        {"embeddings": np.ones((2, 3), np.int8), "scales": np.ones((2, 1), np.float32)},
    ],
)
def test_wrong_tensors(tensors: dict[str, Any]) -> None:
    read = embeddings.read_dense if "embeddings" in tensors else embeddings.read_multi
    with pytest.raises(BadAnswer):
        read(HttpReply(200, RAW, file_of(tensors)), 2)


@pytest.mark.parametrize(
    ("values", "dtype"), [([1.5, np.nan], "float32"), ([1.5, 2.5, 3.5], "float32"), ([[1.5, 2.5]], "float32")]
)
def test_wrong_sparse_tensors(values: Any, dtype: str) -> None:
    tensors = {
        "sparse_indices": np.array([1, 2], np.int32),
        "sparse_values": np.array(values, dtype),
        "sparse_lengths": np.array([1, 1]),
    }
    with pytest.raises(BadAnswer):
        embeddings.read_sparse(HttpReply(200, RAW, file_of(tensors)), 2)


def test_a_shape_that_says_less_than_there_is() -> None:
    data = file_of({"embeddings": np.ones((2, 3), np.float32)}).replace(b"[2, 3]", b"[2, 2]")
    with pytest.raises(BadAnswer, match=r"24 bytes for the shape \(2, 2\)"):
        safetensors.read(data)


def test_arrays_belong_to_the_caller() -> None:
    for name, reply in {
        "dense": HttpReply(200, RAW, FILES[0]),
        "multi": HttpReply(200, RAW, FILES[2]),
        "multi_of_a_width": HttpReply(
            200, {}, b'{"data": [{"embedding": "AAAAAAAAAAA="}, {"embedding": "AAAAAAAAAAA="}]}'
        ),
    }.items():
        for row in READERS[name](reply, 2).values:
            row *= 2


def test_bfloat16_is_widened() -> None:
    bits = np.array([[0x3F80, 0xC000, 0x3DCC]], np.uint16)
    values, _ = safetensors.read(file_of({"embeddings": bits}, {"embeddings": "BF16"}))
    np.testing.assert_array_equal(values["embeddings"], np.float32([[1.0, -2.0, 0.099609375]]))


# Counts.


@pytest.mark.parametrize(
    ("header", "count"), [(None, 0), ("", 0), ("3", 1), ("3,17", 2), ("3,17 and 20 more", 22), ("x and y more", 1)]
)
def test_how_many_inputs_were_cut(header: str | None, count: int) -> None:
    headers = {} if header is None else {"x-lemni-truncated": header}
    assert usage.truncated_of(HttpReply(200, headers, b"")) == count


@pytest.mark.parametrize("value", [None, "x", [], {}, 1e999, float("nan")])
def test_a_number_that_is_none_is_zero(value: Any) -> None:
    assert usage.number(value) == 0
