"""litellm's openai provider, which sends no encoding_format unless told to."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openai
import pytest

from tests.clients.conftest import KEY, MODEL, TEXTS


@pytest.fixture(scope="module")
def litellm() -> Iterator[Any]:
    # Else it fetches a price list when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    library = pytest.importorskip("litellm")
    yield library
    for client in library.in_memory_llm_clients_cache.cache_dict.values():
        if isinstance(client, openai.OpenAI):
            client.close()


def test_embedding(litellm: Any, server: str, same: Callable[[object], None]) -> None:
    for more in ({}, {"encoding_format": "float"}):
        answer = embed(litellm, server, **more)
        same([entry["embedding"] for entry in answer.data])
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # litellm's, about the strings it hands through
def test_base64_is_handed_through(litellm: Any, server: str, same: Callable[[object], None]) -> None:
    answer = embed(litellm, server, encoding_format="base64")
    same([np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer.data])


def embed(litellm: Any, server: str, **more: str) -> Any:
    address = {"api_base": f"{server}/v1", "api_key": KEY}
    return litellm.embedding(model=f"openai/{MODEL}", input=TEXTS, max_retries=0, **address, **more)


def test_errors(litellm: Any, server: str) -> None:
    with pytest.raises(litellm.NotFoundError, match="not served here"):
        litellm.embedding(model="openai/nothing", input=["a"], api_base=f"{server}/v1", api_key=KEY, max_retries=0)
    with pytest.raises(litellm.AuthenticationError, match="API key is wrong"):
        litellm.embedding(model=f"openai/{MODEL}", input=["a"], api_base=f"{server}/v1", api_key="no", max_retries=0)
