"""What our client relies on in a genuine Infinity 0.0.78, and what it must avoid there, asked with plain HTTP."""

from __future__ import annotations

import base64
import contextlib
import gzip
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import httpx
import numpy as np
import pytest

from tests.clients.conftest import INFINITY_MODELS, KEY
from tests.clients.genuine import DIMENSIONS, infinity
from tests.tiny_multimodal import picture

JPEG = base64.b64encode(picture(8, 8, kind="JPEG")).decode()


@pytest.fixture(scope="module")
def http(genuine_infinity: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=genuine_infinity, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(guarded_infinity: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded_infinity, timeout=30, headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def _embed(http: httpx.Client, **body: Any) -> list[Any]:
    reply = http.post("/embeddings", json=body)
    assert reply.status_code == 200, reply.text
    items = reply.json()["data"]
    assert [item["index"] for item in items] == list(range(len(items)))
    return [item["embedding"] for item in items]


def _error(reply: httpx.Response) -> tuple[int, Any]:
    """Status and what the body says: the message of an OpenAI error, or FastAPI's kinds of mistakes."""
    body = reply.json()
    if "error" in body:
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["code"] == reply.status_code
        return reply.status_code, body["error"]["message"]
    detail = body["detail"]
    return reply.status_code, detail if isinstance(detail, str) else [item["type"] for item in detail]


def test_floats_come_in_order_and_white_space_at_the_ends_is_dropped(http: httpx.Client) -> None:
    reply = http.post("/embeddings", json={"model": INFINITY_MODELS[0], "input": [" four  ", "", "seven.."]}).json()
    assert [item["embedding"] for item in reply["data"]] == [[length] * DIMENSIONS for length in (4.0, 0.0, 7.0)]
    assert reply["model"] == INFINITY_MODELS[0]
    assert reply["usage"] == {"prompt_tokens": 11, "total_tokens": 11}  # characters
    assert reply.keys() == {"object", "data", "model", "usage", "id", "created"}


def test_base64_is_float32_without_a_header(http: httpx.Client) -> None:
    texts = ["a", "bb", "ccc"]
    encoded = _embed(http, input=texts, encoding_format="base64")
    vectors = [np.frombuffer(base64.b64decode(text, validate=True), "<f4") for text in encoded]
    np.testing.assert_array_equal(vectors, [[length] * DIMENSIONS for length in (1, 2, 3)])


@pytest.mark.parametrize(
    "extra",
    [
        {"encoding": "base64"},
        {"encoding": "base64", "encoding_format": "float"},
        {"input_type": "query", "prompt_name": "query", "normalize": False, "truncate": True, "return_shape": True},
        {"user": None},
        {"modality": "text"},
        {"dimensions": 0},
    ],
)
def test_fields_that_change_nothing(http: httpx.Client, extra: dict[str, Any]) -> None:
    assert _embed(http, input=["text"], **extra) == [[4.0] * DIMENSIONS]


def test_encoding_format_decides_beside_encoding(http: httpx.Client) -> None:
    (encoded,) = _embed(http, input=["text"], encoding="float", encoding_format="base64")
    assert isinstance(encoded, str)


def test_one_model_answers_to_every_name(http: httpx.Client) -> None:
    reply = http.post("/embeddings", json={"model": "no/such-model", "input": "text"})
    assert (reply.status_code, reply.json()["model"]) == (200, INFINITY_MODELS[0])


def test_dimensions_cut_without_normalizing(http: httpx.Client) -> None:
    assert _embed(http, input=["text"], dimensions=4) == [[4.0] * 4]
    assert _embed(http, input=["text"], dimensions=DIMENSIONS) == [[4.0] * DIMENSIONS]


@pytest.mark.parametrize("dimensions", [DIMENSIONS + 1, -1])
def test_dimensions_that_the_model_does_not_have(http: httpx.Client, dimensions: int) -> None:
    status, message = _error(http.post("/embeddings", json={"input": ["text"], "dimensions": dimensions}))
    assert status == 400
    assert f"matryoshka_dim={dimensions} is not in a valid range. Select between 1 and {DIMENSIONS}" in message


@pytest.mark.parametrize("field", ["model", "encoding_format", "dimensions", "modality"])
def test_null_is_not_absent(http: httpx.Client, field: str) -> None:
    assert http.post("/embeddings", json={"input": ["text"], field: None}).status_code == 422


def test_lists_of_texts_end_at_2048_and_of_images_at_32(http: httpx.Client) -> None:
    assert len(_embed(http, input=["a"] * 2048)) == 2048
    uri = f"data:image/jpeg;base64,{JPEG}"
    for body in ({"input": ["a"] * 2049}, {"input": [uri] * 33, "modality": "image"}):
        reply = http.post("/embeddings", json=body)
        status, kinds = _error(reply)
        assert (status, kinds[0]) == (422, "too_long")
        assert len(reply.content) > len(str(body["input"]))  # the whole input comes back, and several times


def test_no_inputs_and_texts_over_the_limit(http: httpx.Client) -> None:
    assert _error(http.post("/embeddings", json={"input": []}))[1][0] == "too_short"
    assert _error(http.post("/embeddings", json={"input": ["a" * 122_881]}))[1][0] == "string_too_long"


def test_a_bare_base64_image_is_refused_and_a_data_uri_is_read(http: httpx.Client) -> None:
    status, kinds = _error(http.post("/embeddings", json={"input": [JPEG], "modality": "image"}))
    assert status == 422
    assert {"value_error", "url_parsing"} <= set(kinds)  # neither a data URI nor a URL
    uri = f"data:image/jpeg;base64,{JPEG}"
    status, message = _error(http.post("/embeddings", json={"input": [uri], "modality": "image"}))
    assert status == 400
    assert "does not support `embed` for modality `image`" in message


@pytest.mark.parametrize(
    ("path", "body"), [("/rerank", {"query": "q", "documents": ["d"]}), ("/classify", {"input": ["text"]})]
)
def test_what_the_model_does_not_do(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    status, message = _error(http.post(path, json=body))
    assert status == 400
    assert message.startswith("ModelNotDeployedError: ")


@pytest.mark.parametrize("top_n", [0, -1])
def test_top_n_is_positive(http: httpx.Client, top_n: int) -> None:
    body = {"query": "q", "documents": ["d"], "top_n": top_n}
    assert _error(http.post("/rerank", json=body)) == (422, ["greater_than"])


def test_json_needs_its_content_type_and_no_compression(http: httpx.Client) -> None:
    body = b'{"input": ["text"]}'
    assert _error(http.post("/embeddings", content=body)) == (422, ["model_attributes_type"])
    json = {"Content-Type": "application/json"}
    assert _error(http.post("/embeddings", content=b"{", headers=json)) == (422, ["json_invalid"])
    reply = http.post("/embeddings", content=body, headers={**json, "Accept": "application/octet-stream"})
    assert reply.headers["content-type"] == "application/json"
    zipped = http.post("/embeddings", content=gzip.compress(body), headers={**json, "Content-Encoding": "gzip"})
    assert _error(zipped) == (400, "There was an error parsing the body")


def test_paths(http: httpx.Client) -> None:
    assert _error(http.get("/v1/models")) == (404, "Not Found")
    assert _error(http.get("/embeddings")) == (405, "Method Not Allowed")
    assert http.post("/embeddings/", json={"input": "text"}).status_code == 307
    assert http.post("//embeddings", json={"input": "text"}).status_code == 405  # a base URL that ends in a slash


def test_health_and_models(http: httpx.Client) -> None:
    assert http.get("/health").json().keys() == {"unix"}
    (model,) = http.get("/models").json()["data"]
    assert model.keys() == {"id", "stats", "object", "owned_by", "created", "backend", "capabilities"}
    assert (model["id"], model["backend"], model["capabilities"]) == (INFINITY_MODELS[0], "debugengine", ["embed"])


def test_a_connection_carries_several_requests(http: httpx.Client) -> None:
    """The server closes it after five idle seconds, without a word; a client must give it up sooner."""
    connection = HTTPConnection(http.base_url.host, http.base_url.port, timeout=30)
    with contextlib.closing(connection):
        sockets = set()
        for _ in range(3):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
            sockets.add(connection.sock)
        assert len(sockets) == 1
        assert None not in sockets


def test_several_models_are_told_apart(guarded: httpx.Client) -> None:
    assert [model["id"] for model in guarded.get("/models").json()["data"]] == INFINITY_MODELS
    assert _embed(guarded, input="text", model=INFINITY_MODELS[1]) == [[4.0] * DIMENSIONS]
    status, message = _error(guarded.post("/embeddings", json={"input": "text", "model": "no/such-model"}))
    assert status == 400
    assert message.startswith("Invalid model: ")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}])
def test_the_key_guards_all_but_health(guarded_infinity: str, headers: dict[str, str]) -> None:
    with httpx.Client(base_url=guarded_infinity, headers=headers) as client:
        assert client.get("/health").status_code == 200
        for reply in (client.get("/models"), client.post("/embeddings", json={"input": "text"})):
            assert _error(reply) == (401, "Unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Any) -> None:
    with (
        pytest.raises(pytest.fail.Exception, match=r"(?s)ended with \d.*No such option"),
        infinity(tmp_path, "--no-such-option"),
    ):
        pass
