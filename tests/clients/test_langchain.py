"""langchain-openai: right with the setting that the refusal names, refused without it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest

from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS

langchain = pytest.importorskip("langchain_openai")


@pytest.fixture
async def make(server: str) -> AsyncIterator[Callable[..., Any]]:
    """Makes an OpenAIEmbeddings whose connections are closed; its own are kept in a global cache."""
    with openai.DefaultHttpxClient() as client:
        async with openai.DefaultAsyncHttpxClient() as async_client:
            yield lambda **options: langchain.OpenAIEmbeddings(
                model=MODEL,
                base_url=f"{server}/v1",
                api_key=KEY,
                max_retries=0,
                http_client=client,
                http_async_client=async_client,
                **options,
            )


async def test_texts(make: Callable[..., Any], same: Callable[[object], None]) -> None:
    client = make(check_embedding_ctx_length=False)
    same(client.embed_documents(TEXTS))
    same([client.embed_query(text) for text in TEXTS])
    same(await client.aembed_documents(TEXTS))


async def test_dimensions(make: Callable[..., Any]) -> None:
    client = make(check_embedding_ctx_length=False, dimensions=64)
    assert [len(vector) for vector in client.embed_documents(TEXTS[:2])] == [64, 64]


async def test_errors(make: Callable[..., Any]) -> None:
    texts = ["a"] * 9
    with pytest.raises(openai.BadRequestError, match="at most 8"):
        make(check_embedding_ctx_length=False).embed_documents(texts)
    # It sends lists in parts of chunk_size.
    assert len(make(check_embedding_ctx_length=False, chunk_size=8).embed_documents(texts)) == 9


async def test_foreign_token_ids_are_refused_with_the_remedy(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it sends ids of OpenAI's own vocabulary. litellm carries that vocabulary, so no download is needed."""
    vocabularies = environments.site_packages("litellm") / "litellm" / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabularies))
    with pytest.raises(openai.BadRequestError, match=r"input\[1\].*check_embedding_ctx_length=False") as refused:
        make().embed_documents(["the", "Vectorisation of photosynthesis"])
    assert refused.value.code == "invalid_token_ids"
