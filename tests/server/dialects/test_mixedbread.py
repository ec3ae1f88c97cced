"""Mixedbread's routes over the real default model."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.dialects.test_cohere import floats, measured
from tests.server.dialects.test_infinity import CATS, post

FORMATS = ["float", "float16", "base64", "int8", "uint8", "binary", "ubinary"]


async def test_several_formats(real: httpx.AsyncClient, cache: Path) -> None:
    from sentence_transformers.quantization import quantize_embeddings

    answer = await post(real, "/v1/embeddings", {"input": CATS, "encoding_format": FORMATS})
    exact = await floats(real, input=CATS)
    codes = quantize_embeddings(exact, "uint8", ranges=measured(real, cache))
    bits = quantize_embeddings(exact, "ubinary")
    assert (answer["encoding_format"], answer["dimensions"], answer["normalized"]) == (FORMATS, 384, True)
    for index, one in enumerate(answer["data"]):
        assert (one["object"], one["index"], list(one["embedding"])) == ("embedding_dict", index, FORMATS)
        found = one["embedding"]
        np.testing.assert_array_equal(np.float32(found["float"]), exact[index])
        np.testing.assert_array_equal(np.float16(found["float16"]), exact[index].astype(np.float16))
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(found["base64"]), "<f4"), exact[index])
        np.testing.assert_array_equal(found["uint8"], codes[index])
        np.testing.assert_array_equal(np.array(found["int8"]) + 128, codes[index])
        np.testing.assert_array_equal(found["ubinary"], bits[index])
        np.testing.assert_array_equal(np.array(found["binary"]) + 128, bits[index])


@pytest.mark.parametrize("kind", FORMATS)
async def test_one_format(real: httpx.AsyncClient, kind: str) -> None:
    body = {"input": CATS, "encoding_format": kind, "normalized": True, "dimensions": 64}
    alone = await post(real, "/v1/embeddings", body)
    listed = await post(real, "/v1/embeddings", {**body, "encoding_format": [kind]})
    assert alone["encoding_format"] == kind
    for one, other in zip(alone["data"], listed["data"], strict=True):
        assert one["object"] == "embedding"
        assert one["embedding"] == other["embedding"][kind]


async def test_normalized_and_prompt(zoo: httpx.AsyncClient) -> None:
    body = {"model": "prompted", "input": ["a cat"]}
    answer = await post(zoo, "/v1/embeddings", {**body, "normalized": False, "prompt": "ask "})
    raw = await floats(zoo, **body, prompt_name="query")
    np.testing.assert_allclose([answer["data"][0]["embedding"]], raw, atol=1e-5)
    assert answer["normalized"] is False
    unit = await post(zoo, "/v1/embeddings", {**body, "normalized": True, "prompt": "ask "})
    np.testing.assert_allclose([unit["data"][0]["embedding"]], raw / np.linalg.norm(raw), atol=1e-5)


@pytest.mark.parametrize("path", ["/v1/reranking", "/reranking"])
async def test_reranking(real: httpx.AsyncClient, path: str) -> None:
    body = {"query": "Where do cats sleep?", "input": [CATS[1], CATS[0], CATS[2]]}
    answer = await post(real, path, {**body, "top_k": 2, "return_input": True})
    plain = await post(real, "/v1/rerank", {"query": body["query"], "documents": body["input"]})
    assert [(one["index"], one["score"]) for one in answer["data"]] == [
        (one["index"], one["relevance_score"]) for one in plain["data"][:2]
    ]
    assert [one["input"] for one in answer["data"]] == [body["input"][one["index"]] for one in answer["data"]]
    assert {one["object"] for one in answer["data"]} == {"rank_result"}
    assert (answer["object"], answer["top_k"], answer["return_input"]) == ("list", 2, True)
    fields = [{"t": CATS[1], "x": 1}, {"t": CATS[0], "x": 2}]
    answer = await post(real, path, {**body, "input": fields, "rank_fields": ["t"]})
    assert answer["data"][0]["index"] == 1
    assert answer["data"][0]["input"] is None


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {"input": "a", "encoding_format": []}, "encoding_format is an empty list"),
        ("/v1/embeddings", {"input": "a", "encoding_format": ["int4"]}, "'int4'"),
        ("/v1/embeddings", {"input": ["a", 1], "normalized": True}, "input[1] is a number"),
        ("/v1/reranking", {"query": "a", "input": ["a", 1]}, "input[1] is a number"),
        ("/v1/reranking", {"query": "a", "input": ["a"], "rewrite_query": True}, "not rewritten here"),
        ("/v1/reranking", {"input": ["a"]}, "query is missing"),
    ],
)
async def test_errors(real: httpx.AsyncClient, path: str, body: dict[str, Any], says: str) -> None:
    assert says in (await post(real, path, body, 400))["message"]
