"""The two small services on /embed, told apart by key, over the real default model."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.dialects.test_infinity import post


async def reference(client: httpx.AsyncClient, texts: list[str]) -> list[list[float]]:
    return [one["embedding"] for one in (await post(client, "/v1/embeddings", {"input": texts}))["data"]]


async def test_text(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/embed", {"text": "Hello world"})
    assert list(answer) == ["embedding"]
    assert [answer["embedding"]] == await reference(real, ["Hello world"])


async def test_batch(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/embed_batch", {"texts": ["a", "b"]})
    assert answer == {"embeddings": await reference(real, ["a", "b"])}
    assert await post(real, "/embed_batch", {"texts": []}, 400) == {"detail": "No texts provided"}


@pytest.mark.parametrize("texts", ["a", ["a"], ["a", "b"]])
@pytest.mark.parametrize("normalize", [None, True, False])
async def test_texts(real: httpx.AsyncClient, texts: Any, normalize: bool | None) -> None:
    body = {"texts": texts} if normalize is None else {"texts": texts, "normalize": normalize}
    answer = await post(real, "/embed", body)
    assert set(answer) == {"embeddings", "dimension", "model", "count", "processing_time_ms"}
    expected = await reference(real, [texts] if isinstance(texts, str) else texts)
    # The model's own modules normalise, whatever is asked for, as in sentence-transformers.
    np.testing.assert_allclose(answer["embeddings"], expected, atol=1e-6)
    assert (answer["dimension"], answer["count"]) == (384, len(expected))
    assert answer["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert answer["processing_time_ms"] > 0


async def test_health_has_the_fields_of_all(real: httpx.AsyncClient) -> None:
    health = (await real.get("/health")).json()
    assert health["status"] == "healthy"
    assert health["embedding_dimension"] == 384
    assert health["device"] == "cpu"
    assert health["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert isinstance(health["unix"], float)


@pytest.mark.parametrize("body", [{}, {"text": "a", "texts": ["b"]}, {"input": "a"}])
async def test_exactly_one_key(real: httpx.AsyncClient, body: dict[str, Any]) -> None:
    answer = await post(real, "/embed", body, 422)
    assert "exactly one of inputs, text and texts" in str(answer)


@pytest.mark.parametrize("body", [{"text": 1}, {"text": None}, {"text": ["a"]}])
async def test_a_wrong_text_is_fastapis_422(real: httpx.AsyncClient, body: dict[str, Any]) -> None:
    [detail] = (await post(real, "/embed", body, 422))["detail"]
    assert detail["loc"] == ["body", "text"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"texts": []}, "empty list"),
        ({"texts": ["a", 1]}, "texts[1]"),
        ({"texts": 7}, "a list of strings"),
        ({"texts": ["a"], "normalize": "yes"}, "normalize"),
        ({"texts": ["a"] * 9}, "at most 8"),
    ],
)
async def test_wrong_texts_are_a_string(real: httpx.AsyncClient, body: dict[str, Any], says: str) -> None:
    answer = await post(real, "/embed", body, 400)
    assert says in answer["error"]
