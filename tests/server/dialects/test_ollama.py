"""Ollama's API over the real default model."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.dialects.test_infinity import post

MODEL = "all-minilm-l6-v2:latest"


async def test_embed(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/api/embed", {"model": MODEL, "input": ["a", ""], "options": {}, "keep_alive": "5m"})
    plain = await post(real, "/v1/embeddings", {"input": ["a", ""]})
    assert answer["model"] == MODEL
    assert answer["embeddings"] == [one["embedding"] for one in plain["data"]]
    assert answer["prompt_eval_count"] == plain["usage"]["prompt_tokens"]
    assert answer["total_duration"] > 0


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": ""}, {"input": []}])
async def test_nothing_gives_nothing(real: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await post(real, "/api/embed", {"model": MODEL, **body}))["embeddings"] == []
    assert (await post(real, "/api/embeddings", {"model": MODEL, "prompt": ""}))["embedding"] == []


async def test_dimensions(real: httpx.AsyncClient) -> None:
    [vector] = (await post(real, "/api/embed", {"model": MODEL, "input": "a", "dimensions": 64}))["embeddings"]
    assert len(vector) == 64
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    [whole] = (await post(real, "/api/embed", {"model": MODEL, "input": "a", "dimensions": 9999}))["embeddings"]
    assert len(whole) == 384


async def test_the_older_form(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/api/embeddings", {"model": MODEL, "prompt": "a"})
    [vector] = (await post(real, "/api/embed", {"model": MODEL, "input": "a"}))["embeddings"]
    np.testing.assert_allclose(answer["embedding"], vector, atol=1e-6)


async def test_what_clients_ask_before(real: httpx.AsyncClient) -> None:
    [listed] = (await real.get("/api/tags")).json()["models"]
    assert listed["size"] > 80e6
    assert listed["details"]["quantization_level"] == "F32"
    [running] = (await real.get("/api/ps")).json()["models"]
    assert running["name"] == listed["name"]
    shown = await post(real, "/api/show", {"model": listed["name"]})
    assert shown["model_info"]["bertmodel.embedding_length"] == 384
    assert shown["capabilities"] == ["embedding"]
    assert (await real.get("/api/version")).json()["version"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/embed", {"model": "nope", "input": "a"}, 404),
        ("/api/embed", {"model": ":", "input": "a"}, 404),
        ("/api/embed", {"input": "a"}, 400),
        ("/api/embed", {"model": MODEL, "input": 7}, 400),
        ("/api/embed", {"model": MODEL, "input": ["a", 7]}, 400),
        ("/api/embed", {"model": MODEL, "input": "long " * 500, "truncate": False}, 400),
        ("/api/pull", {"model": MODEL}, 404),
    ],
)
async def test_errors_are_strings(real: httpx.AsyncClient, path: str, body: dict[str, Any], status: int) -> None:
    answer = await post(real, path, body, status)
    assert isinstance(answer["error"], str)
