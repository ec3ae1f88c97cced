"""/v1/rerank and /v2/rerank: one body for the clients of Cohere, Jina, Voyage and vLLM."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from tests.server.dialects.test_cohere import png
from tests.server.dialects.test_infinity import CATS, post

QUERY = "Where do cats sleep?"
BODY = {"query": QUERY, "documents": [CATS[1], CATS[0], CATS[2]]}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/v1/v1/rerank", "/v1/v2/rerank"])
async def test_everybody_finds_what_they_read(real: httpx.AsyncClient, path: str) -> None:
    answer = await post(real, path, BODY)
    vectors = (await post(real, "/v1/embeddings", {"input": [QUERY, *BODY["documents"]]}))["data"]
    query, *documents = (np.array(one["embedding"], np.float64) for one in vectors)
    for key in ("results", "data"):
        assert answer[key][0]["index"] == 1
        for one in answer[key]:
            assert one["relevance_score"] == pytest.approx(query @ documents[one["index"]], abs=1e-5)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["meta"]["api_version"]["version"] == ("2" if "v2" in path else "1")
    assert (answer["object"], isinstance(answer["id"], str)) == ("list", True)


@pytest.mark.parametrize(
    ("path", "asked", "in_results", "in_data"),
    [
        ("/v1/rerank", None, True, False),
        ("/v1/rerank", False, False, False),
        ("/v1/rerank", True, True, True),
        ("/v2/rerank", None, False, False),
        ("/v2/rerank", True, True, True),
    ],
)
async def test_documents(
    real: httpx.AsyncClient, path: str, asked: bool | None, in_results: bool, in_data: bool
) -> None:
    answer = await post(real, path, {**BODY, "return_documents": asked})
    assert answer["results"][0].get("document") == ({"text": CATS[0]} if in_results else None)
    assert answer["data"][0].get("document") == (CATS[0] if in_data else None)
    objects = [{"text": CATS[0], "id": 7}]
    answer = await post(real, path, {**BODY, "documents": objects, "return_documents": True})
    assert answer["results"][0]["document"] == objects[0]


async def test_images_come_back_only_when_asked_for(zoo: httpx.AsyncClient) -> None:
    body = {"model": "clip", "query": "a cat", "documents": ["a cat", {"image": png()}]}
    for asked, shown in ((None, False), (True, True)):
        answer = await post(zoo, "/v1/rerank", {**body, "return_documents": asked})
        assert [one["index"] for one in answer["results"]] == [0, 1]
        assert answer["results"][0]["document"] == {"text": "a cat"}
        assert answer["results"][1].get("document") == (body["documents"][1] if shown else None)


@pytest.mark.parametrize(
    ("limits", "count"), [({"top_n": 1}, 1), ({"top_k": 2}, 2), ({"top_n": None, "top_k": None}, 3), ({"top_n": 0}, 3)]
)
async def test_limits(real: httpx.AsyncClient, limits: dict[str, Any], count: int) -> None:
    answer = await post(real, "/v1/rerank", {**BODY, **limits})
    assert len(answer["results"]) == len(answer["data"]) == count


async def test_voyage_without_v1(real: httpx.AsyncClient) -> None:
    ours = await post(real, "/rerank", {**BODY, "top_k": None, "truncation": True})
    plain = await post(real, "/v1/rerank", BODY)
    assert ours["data"] == plain["data"]


async def test_rank_fields(real: httpx.AsyncClient) -> None:
    documents = [{"title": "Cats", "body": "They nap on sofas.", "n": 3}, {"title": "Rust", "body": "A language."}]
    body = {"query": QUERY, "documents": documents, "rank_fields": ["title", "body"]}
    answer = await post(real, "/v1/rerank", {**body, "return_documents": True})
    joined = [f"title: {one['title']}\nbody: {one['body']}" for one in documents]
    plain = await post(real, "/v1/rerank", {"query": QUERY, "documents": joined})
    assert [one["relevance_score"] for one in answer["data"]] == [one["relevance_score"] for one in plain["data"]]
    assert answer["results"][0]["document"] == documents[0]


@pytest.mark.parametrize("limit", [{"max_tokens_per_doc": 5}, {"truncate_prompt_tokens": 5}])
async def test_documents_are_cut_to_tokens(real: httpx.AsyncClient, limit: dict[str, int]) -> None:
    body = {"query": "one two three four five six", "documents": ["one two three four five six"]}
    [cut] = (await post(real, "/v2/rerank", {**body, **limit}))["data"]
    [short] = (await post(real, "/v2/rerank", {**body, "documents": ["one two three"]}))["data"]
    assert cut["relevance_score"] == pytest.approx(short["relevance_score"], abs=1e-5)
    whole = await post(real, "/v2/rerank", body)
    assert whole["data"][0]["relevance_score"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"query": "a"}, 400, "documents is missing"),
        ({"query": "a", "documents": []}, 400, "documents is an empty list"),
        ({"query": "a", "documents": ["b"] * 9}, 400, "documents has 9 items"),
        ({"query": "a", "documents": ["b", 1]}, 400, "documents[1] is a number"),
        ({"query": {"image": "!"}, "documents": ["b"]}, 400, "MiniLM-L6-v2 takes no image; it takes text"),
        ({"query": "a", "documents": ["b", {"audio": "aGk="}]}, 400, "takes no audio; it takes text"),
        ({"query": {"audio": "aGk="}, "documents": ["b"]}, 400, "takes no audio; it takes text"),
        ({"query": "a", "documents": ["b", "word " * 400], "truncation": False}, 400, "documents[1] has 402 tokens"),
        ({"query": "a", "documents": ["b"], "relevant_spans": {"mode": "enabled"}}, 400, "relevant_spans"),
        ({"query": "a", "documents": ["b"], "model": "rerank-v4"}, 404, "not served here"),
    ],
)
async def test_errors(real: httpx.AsyncClient, body: dict[str, Any], status: int, says: str) -> None:
    error = await post(real, "/v1/rerank", body, status)
    assert says in error["message"]
    assert error["detail"] == error["message"] == error["error"]["message"]
