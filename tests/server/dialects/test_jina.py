"""Jina's embeddings over the real default model and tiny ones; its reranking is in test_rerank.py."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from lemni.types import Request
from tests.server.conftest import client_of
from tests.server.dialects.test_cohere import floats, png
from tests.server.dialects.test_infinity import CATS, post
from tests.server.live import loaded, server_settings
from tests.tasks import classifiers
from tests.tiny_multimodal import save_colqwen2


async def jina(client: httpx.AsyncClient, **body: Any) -> np.ndarray:
    answer = await post(client, "/v1/embeddings", body)
    assert answer["object"] == "list"
    assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    return np.array([one["embedding"] for one in answer["data"]])


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
async def test_objects_and_strings(real: httpx.AsyncClient, path: str) -> None:
    answer = await post(real, path, {"input": [{"text": CATS[0]}, CATS[1]], "truncate": True})
    vectors = np.float32([one["embedding"] for one in answer["data"]])
    np.testing.assert_array_equal(vectors, await floats(real, input=CATS[:2]))
    np.testing.assert_array_equal(await jina(real, input={"text": CATS[0]}), [answer["data"][0]["embedding"]])


@pytest.mark.parametrize(
    ("task", "prompt"),
    [
        ("retrieval.query", "query"),
        ("retrieval.passage", "document"),
        ("code2code.query", "query"),
        ("nl2code.passage", "document"),
        ("classification", "classification"),
        ("text-matching", None),
        ("separation", None),
        ("clustering", None),
    ],
)
async def test_tasks_take_prompts(zoo: httpx.AsyncClient, task: str, prompt: str | None) -> None:
    ours = await jina(zoo, model="prompted", input=["a cat"], task=task)
    np.testing.assert_allclose(
        ours, await floats(zoo, model="prompted", input=["a cat"], prompt_name=prompt), atol=1e-6
    )


async def test_normalized_and_dimensions(zoo: httpx.AsyncClient) -> None:
    body = {"model": "prompted", "input": ["a cat"], "task": "text-matching"}
    raw = await jina(zoo, **body, normalized=False)
    unit = await jina(zoo, **body, normalized=True)
    assert np.linalg.norm(raw) > 1.5
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-5)
    cut = await jina(zoo, **body, dimensions=8)
    np.testing.assert_allclose(cut, raw[:, :8] / np.linalg.norm(raw[:, :8]), atol=1e-5)


async def test_embedding_types(real: httpx.AsyncClient) -> None:
    from sentence_transformers.quantization import quantize_embeddings

    plain = await floats(real, input=CATS)
    answer = await post(real, "/v1/embeddings", {"input": CATS, "embedding_type": ["float", "base64", "binary"]})
    for one, vector in zip(answer["data"], plain, strict=True):
        assert list(one["embedding"]) == ["float", "base64", "binary"]
        np.testing.assert_array_equal(np.float32(one["embedding"]["float"]), vector)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(one["embedding"]["base64"]), "<f4"), vector)
        np.testing.assert_array_equal(one["embedding"]["binary"], quantize_embeddings(vector[None], "binary")[0])
    bits = await jina(real, input=CATS, embedding_type="ubinary")
    np.testing.assert_array_equal(bits, quantize_embeddings(plain, "ubinary"))
    [listed] = (await post(real, "/v1/embeddings", {"input": "a", "embedding_type": ["ubinary"]}))["data"]
    assert list(listed["embedding"]) == ["ubinary"]


async def test_late_chunking_embeds_the_inputs_as_one_document(real: httpx.AsyncClient, minilm: Any) -> None:
    import torch
    import transformers

    chunks = ["Berlin is large.", "The city has parks."]
    ours = await jina(real, input=chunks, late_chunking=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm.path)
    model = transformers.AutoModel.from_pretrained(minilm.path).eval()
    encoded = tokenizer(" ".join(chunks), return_tensors="pt")
    with torch.no_grad():
        hidden = model(**encoded).last_hidden_state[0]
    middle = len(tokenizer(chunks[0])["input_ids"]) - 1  # without [SEP]
    parts = [hidden[1:middle].mean(0), hidden[middle:-1].mean(0)]
    np.testing.assert_allclose(ours, [(one / one.norm()).numpy() for one in parts], atol=1e-4)
    apart = await floats(real, input=chunks)
    assert np.sum(ours * apart, axis=1).max() < 0.99


async def test_images(zoo: httpx.AsyncClient) -> None:
    bare = png(1).partition(",")[2]
    vectors = await jina(zoo, model="clip", input=[{"image": png(1)}, {"image": bare}, {"text": "a cat"}])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    np.testing.assert_allclose(vectors[2], (await floats(zoo, model="clip", input=["a cat"]))[0], atol=1e-5)


async def test_objects_leave_openais_fields_their_meaning(real: httpx.AsyncClient) -> None:
    body = {"encoding_format": "base64", "prompt": "cats: ", "dimensions": 8}
    objects = await post(real, "/v1/embeddings", {"input": [{"text": "a cat"}], **body})
    assert objects == await post(real, "/v1/embeddings", {"input": ["a cat"], **body})
    assert isinstance(objects["data"][0]["embedding"], str)


async def test_objects_with_normalized(zoo: httpx.AsyncClient) -> None:
    vectors = await jina(zoo, model="prompted", input=["a cat", {"text": "a cat"}], normalized=False)
    assert np.linalg.norm(vectors[0]) != pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


async def test_multi_vectors(tmp_path: Path) -> None:
    model = classifiers.load(save_colqwen2(tmp_path), served_name="pages")
    with Engine({"pages": model}, EngineSettings()) as engine:
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            body = {"input": [{"text": "a cat"}, {"image": png()}], "return_multivector": True}
            numbers = await post(client, "/v1/embeddings", body)
            objects = await post(client, "/v1/embeddings", {"input": body["input"]})
            coded = await post(client, "/v1/embeddings", {**body, "embedding_type": "base64"})
            error = await post(client, "/v1/embeddings", {**body, "embedding_type": ["float", "binary"]}, 400)
            whole = engine.submit("pages", Request(["a cat"], tasks=("multi_vector",))).result(60)
    model.close()
    assert "one of them" in error["detail"]
    assert len(objects["data"]) == 2
    for one, other in zip(objects["data"], numbers["data"], strict=True):
        assert one["embedding"] == other["embeddings"]
    for one, other in zip(numbers["data"], coded["data"], strict=True):
        rows = np.array(one["embeddings"], np.float32)
        assert rows.shape[0] > 1
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(other["embeddings"]), "<f4"), rows.ravel())
    np.testing.assert_allclose(numbers["data"][0]["embeddings"], whole.multi_vectors[0], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": "a", "task": "dancing"}, "task is 'dancing'"),
        ({"input": "a", "embedding_type": "int8"}, "'int8'"),
        ({"input": "a", "return_multivector": True}, "does not do multi-vector embeddings"),
        ({"input": ["a"], "late_chunking": True, "return_multivector": True}, "exclude each other"),
        ({"input": [{"text": "a"}, {}]}, "input[1] is an object without any of"),
        ({"input": [{"image": png()}]}, "takes no image"),
        ({"input": [], "task": "retrieval.query"}, "input is an empty list"),
        ({"input": ["word " * 400], "task": "retrieval.query", "truncate": False}, "input[0] has 402 tokens"),
        ({"task": "retrieval.query"}, "input is missing"),
    ],
)
async def test_errors(real: httpx.AsyncClient, body: dict[str, Any], says: str) -> None:
    error = await post(real, "/v1/embeddings", body, 400)
    assert says in error["detail"]
    assert error["error"]["message"] == error["detail"]
