"""What bad input gets, on the real default model: OpenAI's error object, which names the item; the server goes on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

URL = "/v1/embeddings"
LONG = "word " * 400


def item(value: Any, index: int = 1, of: int = 3) -> dict[str, Any]:
    return {"input": [value if i == index else "good" for i in range(of)]}


# Body, status, param, code, and what the message must say.
REFUSED: list[tuple[Any, int, str | None, str, list[str]]] = [
    ({}, 400, "input", "invalid_request", ["input is missing"]),
    ({"input": None}, 400, "input", "invalid_request", ["input is missing"]),
    ({"input": []}, 400, "input", "invalid_request", ["empty list"]),
    ({"input": 7}, 400, "input", "invalid_request", ["input is a number", "a list of strings"]),
    ({"input": True}, 400, "input", "invalid_request", ["input is a boolean"]),
    ({"input": {"txt": "a"}}, 400, "input", "invalid_request", ["input is an object without any of: text"]),
    (item(7), 400, "input[1]", "invalid_request", ["input[1] is a number", "string or a list of token ids"]),
    (item(None, 2), 400, "input[2]", "invalid_request", ["input[2] is null"]),
    (item({"txt": "a"}, 2), 400, "input[2]", "invalid_request", ["input[2] is an object without any of"]),
    (item(False), 400, "input[1]", "invalid_request", ["input[1] is a boolean"]),
    (item([]), 400, "input[1]", "invalid_request", ["input[1] is an empty list"]),
    (item([101, "a"]), 400, "input[1]", "invalid_token_ids", ["input[1][1] is a string", "integers"]),
    (item([101, True]), 400, "input[1]", "invalid_token_ids", ["input[1][1] is a boolean"]),
    (item([101, 1.5]), 400, "input[1]", "invalid_token_ids", ["input[1][1] is a number"]),
    (item([101, [102]]), 400, "input[1]", "invalid_token_ids", ["input[1][1] is a list"]),
    ({"input": [101, "a", 102]}, 400, "input[1]", "invalid_request", ["input[1] is a string", "token ids"]),
    ({"input": [101, True]}, 400, "input[1]", "invalid_request", ["input[1] is a boolean"]),
    ({"input": [101, -1]}, 400, "input", "invalid_token_ids", ["token id -1", "0..30521"]),
    (
        {"input": [101, 30522]},
        400,
        "input",
        "invalid_token_ids",
        ["token id 30522", "check_embedding_ctx_length=False"],
    ),
    (
        item([101, 99999]),
        400,
        "input[1]",
        "invalid_token_ids",
        ["input[1]", "99999", "check_embedding_ctx_length=False"],
    ),
    (item([2**63]), 400, "input[1]", "invalid_token_ids", ["input[1]"]),
    (item([-1, 2**63]), 400, "input[1]", "invalid_token_ids", ["input[1]"]),
    (item([2**64]), 400, "input[1]", "invalid_token_ids", ["input[1]"]),
    ({"input": ["a"] * 9}, 400, "input", "too_many_items", ["9 items", "at most 8"]),
    ({"input": [[101]] * 9}, 400, "input", "too_many_items", ["9 items", "at most 8"]),
    (
        {**item(LONG, 2), "truncate": False},
        400,
        "input[2]",
        "context_length_exceeded",
        ["input[2] has 402 tokens", "256"],
    ),
    ({"input": LONG, "truncate": "NONE"}, 400, "input", "context_length_exceeded", ["402 tokens", "256"]),
    ({"input": [101] * 257, "truncate": "error"}, 400, "input", "context_length_exceeded", ["257 tokens", "256"]),
    ({"input": "a", "truncate": "middle"}, 400, "truncate", "invalid_request", ["'middle'", "'left'"]),
    ({"input": "a", "dimensions": 0}, 400, "dimensions", "invalid_request", ["dimensions is 0", "1 to 384"]),
    ({"input": "a", "dimensions": -1}, 400, "dimensions", "invalid_request", ["-1", "1 to 384"]),
    ({"input": "a", "dimensions": 385}, 400, "dimensions", "invalid_request", ["385", "1 to 384"]),
    ({"input": "a", "dimensions": 2**64}, 400, "dimensions", "invalid_request", ["dimensions"]),
    ({"input": "a", "dimensions": "8"}, 400, "dimensions", "invalid_request", ["dimensions is '8'", "integer"]),
    ({"input": "a", "dimensions": True}, 400, "dimensions", "invalid_request", ["dimensions is True", "integer"]),
    ({"input": "a", "encoding_format": "int4"}, 400, "encoding_format", "invalid_request", ["'int4'", "'base64'"]),
    ({"input": "a", "encoding": 3}, 400, "encoding", "invalid_request", ["encoding is 3"]),
    ({"input": "a", "normalize": "yes"}, 400, "normalize", "invalid_request", ["'yes'", "boolean"]),
    ({"input": "a", "prompt": 3}, 400, "prompt", "invalid_request", ["prompt is 3", "string"]),
    ({"input": "a", "prompt": "p" * 10_001}, 400, "prompt", "invalid_request", ["10000"]),
    ({"input": "a", "prompt_name": "query"}, 400, "prompt_name", "invalid_request", ["'query'", "none"]),
    ({"input": "a", "input_type": "qurey"}, 400, "input_type", "invalid_request", ["'qurey'", "query, document"]),
    ({"input": "aGk=", "modality": "image"}, 400, "input", "invalid_request", ["takes no image; it takes text"]),
    ({"input": "aGk=", "modality": "smell"}, 400, "modality", "invalid_request", ["'smell'", "'text'"]),
    ({"input": "a", "model": "gpt-4"}, 404, "model", "model_not_found", ["'gpt-4'", "all-MiniLM-L6-v2"]),
    ({"input": "a", "model": 5}, 400, "model", "invalid_request", ["model is 5"]),
    ([1], 400, None, "invalid_request", ["must be a JSON object, not a list"]),
    ("text", 400, None, "invalid_request", ["must be a JSON object, not a string"]),
    (b"", 400, None, "invalid_request", ["body is empty"]),
    (b'{"input": "a",}', 400, None, "invalid_request", ["not valid JSON", "line 1, column 14"]),
    (b'{"input":\n nope}', 400, None, "invalid_request", ["not valid JSON", "line 2, column"]),
    (b'{"input": NaN}', 400, None, "invalid_request", ["not valid JSON"]),
    (b'{"input": "caf\xe9"}', 400, None, "invalid_request", ["not valid UTF-8", "byte 14"]),
    (rb'{"input": "\ud800"}', 400, "input", "invalid_request", ["input holds a lone surrogate"]),
    (rb'{"input": ["a", "b\udfff c"]}', 400, "input[1]", "invalid_request", ["input[1] holds a lone surrogate"]),
    (rb'{"input": "a", "prompt": "\udfff"}', 400, "prompt", "invalid_request", ["prompt holds a lone surrogate"]),
    (rb'{"input": "a", "x": {"\ud800": 1}}', 400, None, "invalid_request", ["not valid JSON", "surrogate"]),
    ({"input": "a", "deadline_s": 0}, 400, "deadline_s", "invalid_request", ["deadline_s is 0", "greater than 0"]),
    ({"input": "a", "deadline_s": "5"}, 400, "deadline_s", "invalid_request", ["deadline_s is '5'"]),
    ({"input": [[1.5]] * 9}, 400, "input", "too_many_items", ["9 items", "at most 8"]),
    (
        b'{"input": [' + b'{"content": [' * 400 + b'"a"' + b"]}" * 400 + b"]}",
        400,
        "input[0]",
        "invalid_request",
        ["input[0].content[0]", "nested too deep"],
    ),
    (b"[" * 100_000, 400, None, "invalid_request", ["not valid JSON", "depth"]),
    (b'{"input": "' + b"x" * (1 << 20) + b'"}', 413, None, "payload_too_large", ["1048589", "1048576"]),
]


async def check_refusal(answer: httpx.Response, status: int, param: str | None, code: str, says: list[str]) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.json().keys() == {"error", "message", "detail"}
    error = answer.json()["error"]
    assert answer.json()["message"] == answer.json()["detail"] == error["message"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code), error
    for words in says:
        assert words in error["message"]
    assert len(error["message"]) < 500


@pytest.mark.parametrize(("body", "status", "param", "code", "says"), REFUSED)
async def test_refused(
    real: httpx.AsyncClient, body: Any, status: int, param: str | None, code: str, says: list[str]
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = await real.post(URL, content=content, headers={"content-type": "application/json"})
    await check_refusal(answer, status, param, code, says)
    assert (await real.post(URL, json={"input": "still there?"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "text/plain; charset=utf-8"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "nonsense"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_another_kind_of_body(real: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await real.post(URL, content=b'{"input": "a"}', headers=headers)
    await check_refusal(answer, 415, None, "unsupported_media_type", ["send" if len(headers) > 1 else "JSON"])


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/vnd.x+json",
    ],
)
async def test_json_by_any_name(real: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    assert (await real.post(URL, content=b'{"input": "a"}', headers=headers)).status_code == 200


async def test_a_body_without_length_is_counted_while_it_comes(real: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 100_000

    answer = await real.post(URL, content=endless(), headers={"content-type": "application/json"})
    await check_refusal(answer, 413, None, "payload_too_large", ["1048576 bytes", "max_body_mib"])
    assert sent == 11


async def test_odd_but_right(real: httpx.AsyncClient) -> None:
    """An empty text is a text; the native size is always right; long texts are cut unless told otherwise."""
    for body in (
        {"input": ""},
        {"input": ["", " ", "\n", "\x00", "a\u200b", "🙂"]},
        {"input": "a", "dimensions": 384},
        {"input": "a", "dimensions": 1},
        {"input": [101, 102]},
        {"input": [0]},
        {"input": LONG},
        {"input": [101] * 300},
    ):
        answer = await real.post(URL, json=body)
        assert answer.status_code == 200, answer.text
        rows = np.array([entry["embedding"] for entry in answer.json()["data"]])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "kept"),
    [((None, True, "right", "END", "Right"), slice(0, 254)), (("left", "START", "Left"), slice(-254, None))],
)
async def test_truncation_words(real: httpx.AsyncClient, words: tuple[Any, ...], kept: slice) -> None:
    tokens = ["red", "green", "blue", "dog"] * 75 + ["king"] * 10  # a token each
    short = await real.post(URL, json={"input": " ".join(tokens[kept])})
    assert "x-lemni-truncated" not in short.headers
    for word in words:
        answer = await real.post(URL, json={"input": ["good", " ".join(tokens)], "truncate": word})
        assert answer.headers["x-lemni-truncated"] == "1"
        np.testing.assert_allclose(
            answer.json()["data"][1]["embedding"], short.json()["data"][0]["embedding"], atol=1e-5
        )
