"""The client library: what applications import to get vectors, scores and labels from a server.

Light: numpy, httpx and orjson, nothing of the engine or the server. Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemni.client.async_client import AsyncClient
    from lemni.client.cache import EmbeddingCache, open_cache
    from lemni.client.client import Client
    from lemni.client.embedding_client import BaseEmbeddingClient
    from lemni.client.errors import (
        BadAnswer,
        ClientError,
        ConnectionFailed,
        EmbeddingGenerationError,
        PartialFailure,
        RequestTimeout,
        StatusError,
    )
    from lemni.client.factory import (
        EmbeddingFactory,
        create_client_from_env,
        create_embedding_client,
        create_infinity_client,
        create_local_client,
        create_ollama_client,
        create_openai_client,
        get_embedding_client,
    )
    from lemni.client.infinity import InfinityEmbeddings
    from lemni.client.infinity_provider import InfinityEmbeddingClient
    from lemni.client.late_interaction import maxsim, pack, pool_tokens, quantize, top_k
    from lemni.client.local_provider import LocalEmbeddingClient
    from lemni.client.ollama_provider import OllamaEmbeddingClient
    from lemni.client.openai_provider import OpenAIEmbeddingClient
    from lemni.client.retries import Retries

_HOMES = {
    "AsyncClient": "lemni.client.async_client",
    "BadAnswer": "lemni.client.errors",
    "BaseEmbeddingClient": "lemni.client.embedding_client",
    "Client": "lemni.client.client",
    "ClientError": "lemni.client.errors",
    "ConnectionFailed": "lemni.client.errors",
    "EmbeddingCache": "lemni.client.cache",
    "EmbeddingFactory": "lemni.client.factory",
    "EmbeddingGenerationError": "lemni.client.errors",
    "InfinityEmbeddingClient": "lemni.client.infinity_provider",
    "InfinityEmbeddings": "lemni.client.infinity",
    "LocalEmbeddingClient": "lemni.client.local_provider",
    "OllamaEmbeddingClient": "lemni.client.ollama_provider",
    "OpenAIEmbeddingClient": "lemni.client.openai_provider",
    "PartialFailure": "lemni.client.errors",
    "RequestTimeout": "lemni.client.errors",
    "Retries": "lemni.client.retries",
    "StatusError": "lemni.client.errors",
    "create_client_from_env": "lemni.client.factory",
    "create_embedding_client": "lemni.client.factory",
    "create_infinity_client": "lemni.client.factory",
    "create_local_client": "lemni.client.factory",
    "create_ollama_client": "lemni.client.factory",
    "create_openai_client": "lemni.client.factory",
    "get_embedding_client": "lemni.client.factory",
    "maxsim": "lemni.client.late_interaction",
    "open_cache": "lemni.client.cache",
    "pack": "lemni.client.late_interaction",
    "pool_tokens": "lemni.client.late_interaction",
    "quantize": "lemni.client.late_interaction",
    "top_k": "lemni.client.late_interaction",
}

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "BaseEmbeddingClient",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "EmbeddingCache",
    "EmbeddingFactory",
    "EmbeddingGenerationError",
    "InfinityEmbeddingClient",
    "InfinityEmbeddings",
    "LocalEmbeddingClient",
    "OllamaEmbeddingClient",
    "OpenAIEmbeddingClient",
    "PartialFailure",
    "RequestTimeout",
    "Retries",
    "StatusError",
    "create_client_from_env",
    "create_embedding_client",
    "create_infinity_client",
    "create_local_client",
    "create_ollama_client",
    "create_openai_client",
    "get_embedding_client",
    "maxsim",
    "open_cache",
    "pack",
    "pool_tokens",
    "quantize",
    "top_k",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lemni.client' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
