"""POST /v1/embeddings over the toy model: every form of input, every form of output, exact numbers."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from lemni.types import Options
from tests.engine.toy import expected


def vectors(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(data)))
    assert {entry["object"] for entry in data} == {"embedding"}
    return [
        np.frombuffer(base64.b64decode(entry["embedding"], validate=True), "<f4").tolist()
        if isinstance(entry["embedding"], str)
        else entry["embedding"]
        for entry in data
    ]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "http://test//embeddings", "/v1/embeddings/"])
@pytest.mark.parametrize(
    ("given", "items"),
    [
        ("3 1 4", ["3 1 4"]),
        (["3 1 4", "1 5"], ["3 1 4", "1 5"]),
        ([3, 1, 4], [[3, 1, 4]]),
        ([[3, 1, 4], [1, 5]], [[3, 1, 4], [1, 5]]),
        (["3 1 4", [1, 5]], ["3 1 4", [1, 5]]),
    ],
)
async def test_every_form_of_input(client: httpx.AsyncClient, path: str, given: Any, items: list[Any]) -> None:
    answer = await client.post(path, json={"model": "toy", "input": given})
    assert vectors(answer) == [expected(item) for item in items]
    tokens = sum(len(item.split() if isinstance(item, str) else item) for item in items)
    body = answer.json()
    assert body["object"] == "list"
    assert body["model"] == "toy"
    assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


async def test_order_and_number_of_many_items(client: httpx.AsyncClient) -> None:
    texts = [f"{n} {n % 7 + 1}" for n in range(1, 2049)]
    for encoding in ("float", "base64"):
        answer = await client.post("/v1/embeddings", json={"input": texts, "encoding_format": encoding})
        assert vectors(answer) == [expected(text) for text in texts]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, list),
        ({"encoding_format": "float"}, list),
        ({"encoding_format": "base64"}, str),
        ({"encoding_format": "BASE64"}, str),
        ({"encoding": "base64"}, str),
        ({"encoding": "base64", "encoding_format": "float"}, list),
        ({"encoding": "base64", "encoding_format": None}, str),
        ({"encoding_format": None}, list),
    ],
)
async def test_encoding(client: httpx.AsyncClient, options: dict[str, Any], kind: type) -> None:
    answer = await client.post("/v1/embeddings", json={"input": "3 1 4", **options})
    assert isinstance(answer.json()["data"][0]["embedding"], kind)
    assert vectors(answer) == [expected("3 1 4")]


async def test_nulls_are_absent_and_unknown_keys_ignored(client: httpx.AsyncClient) -> None:
    names = ("model", "dimensions", "user", "truncate", "prompt", "prompt_name", "input_type", "normalize", "priority")
    body = {"input": "3", **dict.fromkeys(names), "options": {"wait_for_model": True}, "keep_alive": [1]}
    assert vectors(await client.post("/v1/embeddings", json=body)) == [expected("3")]


async def test_options_reach_the_model(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/embeddings", json={"input": "3 1 4", "dimensions": 2, "normalize": False})
    assert vectors(answer) == [expected("3 1 4", Options(dimensions=2, normalize=False))]
    answer = await client.post("/v1/embeddings", json={"input": "3 1 4", "prompt_name": "query"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt_name"


async def test_truncated_items_are_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/embeddings", json={"input": ["1 77", "2", "3 77"]})  # 77: cut, says the toy
    assert answer.headers["x-lemni-truncated"] == "0,2"
    assert "x-lemni-truncated" not in (await client.post("/v1/embeddings", json={"input": "2"})).headers
    answer = await client.post("/v1/embeddings", json={"input": [f"{n} 77" for n in range(150)]})
    assert answer.headers["x-lemni-truncated"] == ",".join(map(str, range(100))) + " and 50 more"


async def test_priority(client: httpx.AsyncClient) -> None:
    for priority in ("bulk", "Interactive"):
        assert vectors(await client.post("/v1/embeddings", json={"input": "3", "priority": priority})) == [
            expected("3")
        ]
    answer = await client.post("/v1/embeddings", json={"input": "3", "priority": "high"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "priority is 'high': it must be 'interactive' or 'bulk'"
