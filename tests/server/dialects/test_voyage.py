"""Voyage's embeddings over the real default model and tiny ones; its reranking is in test_rerank.py."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.dialects.test_cohere import floats, measured, png
from tests.server.dialects.test_infinity import CATS, post

# What its client always sends.
NULLS = {"input_type": None, "truncation": True, "output_dtype": None, "output_dimension": None}


async def test_nulls_mean_absent(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/v1/embeddings", {"input": CATS, "encoding_format": "base64", **NULLS})
    vectors = [np.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
    np.testing.assert_array_equal(vectors, await floats(real, input=CATS))
    assert answer["usage"].keys() == {"total_tokens"}
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]


async def test_openais_name_of_the_dimension_counts(real: httpx.AsyncClient) -> None:
    cut = await post(real, "/v1/embeddings", {"input": CATS, "truncation": True, "dimensions": 64})
    vectors = [one["embedding"] for one in cut["data"]]
    np.testing.assert_allclose(vectors, await floats(real, input=CATS, dimensions=64), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float", "int8", "uint8", "binary", "ubinary"])
async def test_output_types(real: httpx.AsyncClient, cache: Path, dtype: str) -> None:
    from sentence_transformers.quantization import quantize_embeddings

    body = {"input": CATS, "output_dtype": dtype, "output_dimension": 64}
    numbers = np.array([one["embedding"] for one in (await post(real, "/v1/embeddings", body))["data"]])
    coded = (await post(real, "/v1/embeddings", {**body, "encoding_format": "base64"}))["data"]
    kind = {"float": "<f4", "int8": "i1", "binary": "i1"}.get(dtype, "u1")
    bytes_ = [np.frombuffer(base64.b64decode(one["embedding"]), kind) for one in coded]
    np.testing.assert_array_equal(bytes_, numbers.astype(kind))
    exact = await floats(real, input=CATS, dimensions=64)
    if dtype == "float":
        np.testing.assert_array_equal(numbers.astype(kind), exact)
    elif "int8" in dtype:
        expected = quantize_embeddings(exact, "uint8", ranges=measured(real, cache, dimensions=64))
        np.testing.assert_array_equal(numbers + (128 if dtype == "int8" else 0), expected)
    else:
        np.testing.assert_array_equal(numbers, quantize_embeddings(exact, dtype))


async def test_input_types_take_prompts(zoo: httpx.AsyncClient) -> None:
    for side in ("query", "document"):
        answer = await post(zoo, "/embeddings", {**NULLS, "model": "prompted", "input": "a cat", "input_type": side})
        expected = await floats(zoo, model="prompted", input=["a cat"], prompt_name=side)
        np.testing.assert_allclose([one["embedding"] for one in answer["data"]], expected, atol=1e-6)


async def test_int8_of_a_model_that_does_not_normalise(zoo: httpx.AsyncClient) -> None:
    from lemni.tasks.output_types import restore
    from lemni.tasks.ranges import Ranges, key_of

    body = {"model": "prompted", "input": ["a cat sat", "who is it"]}
    answer = await post(zoo, "/v1/embeddings", {**body, "output_dtype": "int8"})
    codes = np.array([one["embedding"] for one in answer["data"]], np.int8)
    service = zoo._transport.app.state.service  # type: ignore[attr-defined]
    ranges: Ranges = service.ranges._ranges
    found = ranges.get(key_of(service.names.cards["prompted"]), normalize=False)
    exact = await floats(zoo, **body)
    assert np.linalg.norm(exact, axis=1).min() > 1.5
    steps = np.ptp(found, axis=0) / 255
    assert (np.abs(restore(codes, "int8", ranges=found) - exact) <= steps).all()


async def test_multimodal(zoo: httpx.AsyncClient) -> None:
    inputs = [
        {"content": [{"type": "text", "text": "a cat"}]},
        {"content": [{"type": "image_base64", "image_base64": png(1)}]},
    ]
    body = {**NULLS, "model": "clip", "inputs": inputs}
    answer = await post(zoo, "/v1/multimodalembeddings", body)
    text, image = (np.array(one["embedding"]) for one in answer["data"])
    np.testing.assert_allclose(text, (await floats(zoo, model="clip", input=["a cat"]))[0], atol=1e-5)
    cohere = await post(zoo, "/v2/embed", {"model": "clip", "images": [png(1)]})
    np.testing.assert_allclose(image, cohere["embeddings"]["float"][0], atol=1e-5)
    usage = answer["usage"]
    assert (usage["image_pixels"], usage["video_pixels"]) == (64 * 48, 0)
    assert 0 < usage["text_tokens"] <= usage["total_tokens"]
    coded = await post(zoo, "/v1/multimodalembeddings", {**body, "output_encoding": "base64"})
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(coded["data"][1]["embedding"]), "<f4"), image, atol=1e-6)


async def test_contextualized_chunks_are_late_chunks(real: httpx.AsyncClient) -> None:
    documents = [["Berlin is large.", "The city has parks."], ["A cat."], ["One.", "Two.", "Three."]]
    answer = await post(real, "/v1/contextualizedembeddings", {"inputs": documents, "input_type": "document"})
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    for document, one in zip(documents, answer["data"], strict=True):
        assert [chunk["index"] for chunk in one["data"]] == list(range(len(document)))
        ours = [chunk["embedding"] for chunk in one["data"]]
        if len(document) == 1:
            expected = await floats(real, input=document)
        else:
            late = await post(real, "/v1/embeddings", {"input": document, "late_chunking": True})
            expected = np.array([part["embedding"] for part in late["data"]], np.float32)
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    queries = await post(real, "/v1/contextualizedembeddings", {"inputs": ["a", "b"], "input_type": "query"})
    found = [one["data"][0]["embedding"] for one in queries["data"]]
    np.testing.assert_allclose(found, await floats(real, input=["a", "b"]), atol=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {**NULLS, "input": ["a"] * 9}, "input has 9 items"),
        ("/v1/embeddings", {**NULLS, "input": ["word " * 400], "truncation": False}, "input[0] has 402 tokens"),
        ("/v1/embeddings", {**NULLS, "input": "a", "output_dtype": "int4"}, "'int4'"),
        ("/v1/embeddings", {**NULLS, "input": "a", "output_dimension": 385}, "dimensions is 385"),
        ("/v1/embeddings", {**NULLS, "input": "a", "input_type": "banana"}, "'banana'"),
        ("/v1/multimodalembeddings", {"inputs": [{"content": [{"type": "video_url", "video_url": "x"}]}]}, "a video"),
        ("/v1/multimodalembeddings", {"inputs": [{"content": []}]}, "inputs[0].content is an empty list"),
        ("/v1/contextualizedembeddings", {"inputs": [["a"], []]}, "inputs[1] is an empty list"),
        ("/v1/contextualizedembeddings", {"inputs": [["a"], [1]]}, "inputs[1][0] is a number"),
        ("/v1/contextualizedembeddings", {"inputs": [["a"] * 5, ["b"] * 5]}, "inputs has 10 chunks"),
        ("/v1/contextualizedembeddings", {"inputs": ["a"], "enable_auto_chunking": True}, "not split here"),
    ],
)
async def test_errors(real: httpx.AsyncClient, path: str, body: dict[str, Any], says: str) -> None:
    assert says in (await post(real, path, body, 400))["detail"]
