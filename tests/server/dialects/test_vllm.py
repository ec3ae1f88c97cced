"""vLLM's pooling API over the real default model and a tiny one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.conftest import client_of
from tests.server.dialects.test_infinity import post
from tests.server.live import loaded, server_settings
from tests.tasks import classifiers
from tests.tasks.sparse_models import splade

TEXTS = ["Cats sleep on sofas.", "Rust is a language."]


def vectors(answer: Any, key: str = "embedding") -> np.ndarray:
    return np.array([one[key] for one in answer["data"]], np.float32)


async def test_messages_are_one_input(real: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": TEXTS[0]}]
    answer = await post(real, "/v1/embeddings", {"messages": [{"role": "user", "content": parts}]})
    plain = await post(real, "/v1/embeddings", {"input": TEXTS[0]})
    np.testing.assert_array_equal(vectors(answer), vectors(plain))
    assert answer["id"].startswith("embd-")
    assert answer["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "f4"), ("float16", "f2")])
@pytest.mark.parametrize(("endianness", "order"), [("little", "<"), ("big", ">")])
async def test_bytes(real: httpx.AsyncClient, dtype: str, kind: str, endianness: str, order: str) -> None:
    body = {"input": TEXTS, "encoding_format": "bytes", "embed_dtype": dtype, "endianness": endianness}
    answer = await real.post("/v1/embeddings", json=body)
    assert answer.headers["content-type"] == "application/octet-stream"
    plain = vectors(await post(real, "/v1/embeddings", {"input": TEXTS}))
    layout = json.loads(answer.headers["metadata"])
    for one, expected in zip(layout["data"], plain, strict=True):
        row = np.frombuffer(answer.content[one["start"] : one["end"]], f"{order}{kind}")
        assert list(row.shape) == one["shape"]
        np.testing.assert_allclose(row, expected, atol=0 if kind == "f4" else 1e-3)
    bare = await real.post("/v1/embeddings", json={**body, "encoding_format": "bytes_only"})
    assert bare.content == answer.content
    assert "metadata" not in bare.headers


async def test_truncate_prompt_tokens(real: httpx.AsyncClient) -> None:
    short = vectors(await post(real, "/v1/embeddings", {"input": "one two three"}))
    long = "one two three four five six"
    cut = await post(real, "/v1/embeddings", {"input": long, "truncate_prompt_tokens": 5})
    np.testing.assert_allclose(vectors(cut), short, atol=1e-5)
    assert cut["usage"]["prompt_tokens"] == 5
    left = await post(real, "/pooling", {"input": long, "truncate_prompt_tokens": 5, "truncation_side": "left"})
    expected = vectors(await post(real, "/v1/embeddings", {"input": "four five six"}))
    np.testing.assert_allclose(vectors(left, "data"), expected, atol=1e-5)
    await post(real, "/v1/embeddings", {"input": long, "truncate_prompt_tokens": -2}, 400)


async def test_pooling_gives_tokens(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/pooling", {"input": TEXTS, "task": "token_embed"})
    rows = [np.array(one["data"]) for one in answer["data"]]
    assert [row.shape[1] for row in rows] == [384, 384]
    assert sum(len(row) for row in rows) == answer["usage"]["prompt_tokens"]
    mean = rows[0].mean(axis=0)
    dense = vectors(await post(real, "/pooling", {"input": TEXTS[:1]}), "data")[0]
    np.testing.assert_allclose(mean / np.linalg.norm(mean), dense, atol=1e-5)


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents")])
async def test_score(real: httpx.AsyncClient, names: tuple[str, str]) -> None:
    answer = await post(real, "/score", {names[0]: "Where do cats sleep?", names[1]: TEXTS})
    reranked = await post(real, "/rerank", {"query": "Where do cats sleep?", "documents": TEXTS})
    expected = {one["index"]: one["relevance_score"] for one in reranked["results"]}
    assert {one["index"]: one["score"] for one in answer["data"]} == pytest.approx(expected)
    pairs = await post(real, "/v1/score", {names[0]: ["Where do cats sleep?", "rust"], names[1]: TEXTS})
    assert pairs["data"][0]["score"] == pytest.approx(expected[0])
    assert (
        "one to many" in (await post(real, "/score", {names[0]: ["a", "b"], names[1]: ["c"]}, 400))["error"]["message"]
    )


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        ({"text_1": "a", "text_2": ["b"] * 9}, "at most 8", "text_2"),
        ({"text_1": ["a"] * 9, "text_2": ["b"] * 9}, "at most 8", "text_1"),
        ({"text_1": "a", "text_2": []}, "empty list", "text_2"),
        ({"text_1": "a", "text_2": ["b", 5]}, "text_2[1] is a number", "text_2[1]"),
    ],
)
async def test_bad_sides_of_a_score(real: httpx.AsyncClient, body: dict[str, Any], says: str, param: str) -> None:
    error = (await post(real, "/score", body, 400))["error"]
    assert says in error["message"]
    assert error["param"] == param


async def test_pooling_by_a_model_that_only_scores(tmp_path: Path) -> None:
    splade(tmp_path)
    model = classifiers.load(tmp_path, served_name="terms")
    with Engine({"terms": model}, EngineSettings()) as engine:
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            error = await post(client, "/pooling", {"model": "terms", "input": "a"}, 400)
    model.close()
    assert "does not do embeddings" in error["error"]["message"]


async def test_rerank_echoes_documents_where_it_is_vllms(real: httpx.AsyncClient) -> None:
    body = {"query": "cats", "documents": TEXTS, "truncate_prompt_tokens": -1}
    answer = await post(real, "/rerank", body)
    assert answer["results"][0]["document"] == {"text": TEXTS[0], "multi_modal": None}


async def test_the_setting_prefer_decides_about_bodies_that_fit_both(real_engine: Any) -> None:
    body = {"query": "cats", "documents": TEXTS}
    for prefer, expected in (("infinity", None), ("vllm", {"text": TEXTS[0], "multi_modal": None})):
        app = create_app(loaded(real_engine), server_settings(prefer=prefer))
        async with client_of(app) as client:
            assert (await post(client, "/rerank", body))["results"][0]["document"] == expected


async def test_tokenize_and_back(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/tokenize", {"prompt": "hello world", "return_token_strs": True})
    assert answer["tokens"] == [101, 7592, 2088, 102]
    assert answer["token_strs"] == ["[CLS]", "hello", "world", "[SEP]"]
    assert (answer["count"], answer["max_model_len"]) == (4, 256)
    bare = await post(real, "/tokenize", {"prompt": "hello world", "add_special_tokens": False})
    assert bare["tokens"] == [7592, 2088]
    assert (await post(real, "/detokenize", {"tokens": bare["tokens"]}))["prompt"] == "hello world"
    await post(real, "/detokenize", {"tokens": [10**9]}, 400)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": "hi"},
        {"messages": [{"role": "user", "content": "a"}], "chat_template": "x"},
        {"input": "a", "embed_dtype": "float64"},
        {"endianness": "big"},
    ],
)
async def test_bad_bodies(real: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await post(real, "/v1/embeddings", body, 400))["error"]["message"]
