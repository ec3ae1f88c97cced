"""NVIDIA NIM: ranking, and embeddings with its words."""

from __future__ import annotations

import httpx
import pytest

from tests.server.dialects.test_infinity import CATS, post


async def test_ranking(real: httpx.AsyncClient) -> None:
    body = {"query": {"text": "Where do cats sleep?"}, "passages": [{"text": text} for text in CATS]}
    rankings = (await post(real, "/v1/ranking", body))["rankings"]
    reranked = await post(real, "/rerank", {"query": "Where do cats sleep?", "documents": CATS})
    assert [one["index"] for one in rankings] == [one["index"] for one in reranked["results"]]
    assert [one["logit"] for one in rankings] == pytest.approx([one["relevance_score"] for one in reranked["results"]])


async def test_the_path_may_name_the_model(real: httpx.AsyncClient) -> None:
    body = {"query": {"text": "Where do cats sleep?"}, "passages": [{"text": text} for text in CATS]}
    plain = await post(real, "/v1/ranking", body)
    path = "/v1/retrieval/sentence-transformers/all-MiniLM-L6-v2/reranking"
    assert await post(real, path, {**body, "model": "litellm.made.this.of.it"}) == plain
    assert await post(real, "/v1/retrieval/all/reranking", {**body, "model": "all-minilm-l6-v2"}) == plain
    assert (await post(real, path, {**body, "top_k": 1}))["rankings"] == plain["rankings"][:1]
    assert "'all'" in (await post(real, "/v1/retrieval/all/reranking", body, 404))["error"]["message"]


async def test_embeddings(real: httpx.AsyncClient) -> None:
    words = {"input_type": "passage", "truncate": "END"}
    answer = await post(real, "/v1/embeddings", {"input": CATS, **words})
    plain = await post(real, "/v1/embeddings", {"input": CATS})
    assert answer["data"] == plain["data"]
    long = {"input": ["long " * 500], "input_type": "query", "truncate": "NONE"}
    assert "takes at most 256" in (await post(real, "/v1/embeddings", long, 400))["error"]["message"]


async def test_bad_bodies(real: httpx.AsyncClient) -> None:
    for body in ({"passages": []}, {"query": {"text": "a"}, "passages": [{"txt": "b"}]}):
        assert (await post(real, "/v1/ranking", body, 400))["error"]["message"]
