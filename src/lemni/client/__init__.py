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
    from lemni.client.errors import (
        BadAnswer,
        ClientError,
        ConnectionFailed,
        PartialFailure,
        RequestTimeout,
        StatusError,
    )
    from lemni.client.infinity import InfinityEmbeddings
    from lemni.client.late_interaction import maxsim, pack, pool_tokens, quantize, top_k
    from lemni.client.retries import Retries

_HOMES = {
    "AsyncClient": "lemni.client.async_client",
    "BadAnswer": "lemni.client.errors",
    "Client": "lemni.client.client",
    "ClientError": "lemni.client.errors",
    "ConnectionFailed": "lemni.client.errors",
    "EmbeddingCache": "lemni.client.cache",
    "InfinityEmbeddings": "lemni.client.infinity",
    "PartialFailure": "lemni.client.errors",
    "RequestTimeout": "lemni.client.errors",
    "Retries": "lemni.client.retries",
    "StatusError": "lemni.client.errors",
    "open_cache": "lemni.client.cache",
    "maxsim": "lemni.client.late_interaction",
    "pack": "lemni.client.late_interaction",
    "pool_tokens": "lemni.client.late_interaction",
    "quantize": "lemni.client.late_interaction",
    "top_k": "lemni.client.late_interaction",
}

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "EmbeddingCache",
    "InfinityEmbeddings",
    "PartialFailure",
    "RequestTimeout",
    "Retries",
    "StatusError",
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
