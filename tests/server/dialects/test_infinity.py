"""Infinity's routes over the real default model: shapes, the traps of its seeds' clients, errors."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import numpy as np
import pytest

from lemni.engine import Engine
from lemni.server.app import create_app
from lemni.server.dialects.infinity import InfinityModels
from tests.engine.toy import Gate, ToyModel, engine_of, request
from tests.server.conftest import client_of
from tests.server.live import PATIENCE_S, loaded, server_settings, wait_for

CATS = ["Cats sleep on sofas.", "Rust is a language.", ""]


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int = 200) -> Any:
    answer = await client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_embeddings_with_a_modality_are_those_of_openai(real: httpx.AsyncClient) -> None:
    plain = await post(real, "/v1/embeddings", {"input": CATS})
    ours = await post(real, "/embeddings", {"input": CATS, "modality": "text", "dimensions": 0})
    assert [one["embedding"] for one in ours["data"]] == [one["embedding"] for one in plain["data"]]
    assert [one["index"] for one in ours["data"]] == [0, 1, 2]
    assert ours["id"].startswith("infinity-")
    assert isinstance(ours["created"], int)
    assert ours["usage"] == plain["usage"]


@pytest.mark.parametrize("key", ["encoding", "encoding_format"])
async def test_base64_by_either_name(real: httpx.AsyncClient, key: str) -> None:
    floats = await post(real, "/embeddings", {"input": CATS, "modality": "text"})
    coded = await post(real, "/embeddings", {"input": CATS, "modality": "text", key: "base64"})
    for one, other in zip(floats["data"], coded["data"], strict=True):
        vector = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        np.testing.assert_array_equal(vector, np.array(one["embedding"], np.float32))


async def test_images_where_none_are_taken(real: httpx.AsyncClient) -> None:
    pixel = base64.b64encode(b"not an image, but long enough to be one").decode()
    for path, body in (
        ("/embeddings", {"input": [pixel], "modality": "image"}),
        ("/embeddings_image", {"input": pixel}),
        ("/embeddings_audio", {"input": pixel}),
    ):
        error = (await post(real, path, body, 400))["error"]
        assert "takes no" in error["message"]


async def test_rerank_is_sorted_and_documents_are_strings(real: httpx.AsyncClient) -> None:
    body = {"query": "Where do cats sleep?", "documents": [CATS[1], {"text": CATS[0]}, CATS[2]]}
    answer = await post(real, "/rerank", {**body, "return_documents": True})
    assert answer["object"] == "rerank"
    scores = [one["relevance_score"] for one in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert (answer["results"][0]["index"], answer["results"][0]["document"]) == (1, CATS[0])
    without = await post(real, "/rerank", body)
    assert [one["document"] for one in without["results"]] == [None] * 3
    assert [one["relevance_score"] for one in without["results"]] == scores


async def test_rerank_by_a_bi_encoder_is_cosine(real: httpx.AsyncClient) -> None:
    query = "Where do cats sleep?"
    answer = await post(real, "/rerank", {"query": query, "documents": CATS})
    data = (await post(real, "/v1/embeddings", {"input": [query, *CATS]}))["data"]
    vectors = np.array([one["embedding"] for one in data], np.float64)
    for one in answer["results"]:
        assert one["relevance_score"] == pytest.approx(vectors[0] @ vectors[1 + one["index"]], abs=1e-5)


@pytest.mark.parametrize(("top_n", "count"), [(None, 3), (0, 3), (-1, 3), (2, 2), (99, 3)])
async def test_top_n(real: httpx.AsyncClient, top_n: int | None, count: int) -> None:
    answer = await post(real, "/rerank", {"query": "cats", "documents": CATS, "top_n": top_n})
    assert len(answer["results"]) == count


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/rerank", {"query": "q"}, "documents is missing"),
        ("/rerank", {"query": "q", "documents": []}, "documents is an empty list"),
        ("/rerank", {"query": "q", "documents": ["a", 7]}, r"documents[1]"),
        ("/rerank", {"query": "q", "documents": ["a"] * 9}, "at most 8"),
        ("/rerank", {"query": ["q"] * 2, "documents": "a"}, "documents is a string"),
        ("/classify", {"input": ["a"]}, "does not do classification"),
        ("/embeddings", {"input": ["a", 1], "modality": "text"}, "input[1]"),
        ("/embeddings", {"input": "a", "modality": "smell"}, "modality"),
        ("/embeddings", {"input": "a", "modality": "text", "dimensions": 385}, "1 to 384"),
        ("/embeddings_image", {"input": "https://127.0.0.1/cat.png"}, "input"),
    ],
)
async def test_bad_bodies(real: httpx.AsyncClient, path: str, body: dict[str, Any], says: str) -> None:
    error = (await post(real, path, body, 400))["error"]
    assert says in error["message"]


async def test_an_unknown_model_is_404(real: httpx.AsyncClient) -> None:
    await post(real, "/rerank", {"query": "q", "documents": ["a"], "model": "nope"}, 404)
    assert await post(real, "/rerank", {"query": "q", "documents": ["a"], "model": "default/not-specified"})


async def test_models_have_infinity_s_fields_beside_openai_s(real: httpx.AsyncClient) -> None:
    """Infinity's client checks owned_by and wants stats."""
    body = (await real.get("/models")).json()
    InfinityModels.model_validate(body, strict=True, extra="forbid")
    [ours] = body["data"]
    assert (ours["owned_by"], ours["backend"], ours["runtime"]) == ("infinity", "optimum", "openvino")
    assert ours["capabilities"] == ["embed", "rerank"]
    assert ours["stats"] | {"batch_size": 0} == {
        "queue_fraction": 0.0,
        "queue_absolute": 0,
        "results_pending": 0,
        "batch_size": 0,
    }
    assert ours["stats"]["batch_size"] >= 1
    [openai] = (await real.get("/v1/models")).json()["data"]
    assert {key for key in openai if ours[key] != openai[key]} == {"owned_by", "backend", "capabilities"}


async def test_models_below_a_prefix_are_infinity_s(toy_engine: Engine) -> None:
    """Infinity is often served below /v1, where its clients then ask too."""
    async with client_of(create_app(loaded(toy_engine), server_settings(url_prefix="/v1"))) as client:
        [model] = (await client.get("/v1/models")).json()["data"]
    assert (model["id"], model["owned_by"]) == ("toy", "infinity")


async def test_stats_count_what_waits(toy: ToyModel) -> None:
    toy.gates[9] = gate = Gate()
    with engine_of(toy, max_queue_tokens=40) as engine:
        held = engine.submit("toy", request("9"))
        gate.wait_entered()
        waiting = engine.submit("toy", request("5 5 5", "6"))
        wait_for(lambda: engine.status()["toy"].waiting_sequences == 2)
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            [model] = (await client.get("/models")).json()["data"]
        gate.open()
        held.result(PATIENCE_S)
        waiting.result(PATIENCE_S)
    stats = {"queue_fraction": 0.1, "queue_absolute": 2, "results_pending": 1, "batch_size": 3}
    assert model["stats"] == stats
