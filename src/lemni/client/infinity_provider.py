"""Embeddings from an Infinity server (github.com/michaelfeil/infinity) or Lemni, which speaks the same API.

The client of faciliter-lib's `embeddings.infinity_provider`, with its arguments, variables, messages and return types.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from lemni.client.cache import EmbeddingCache
from lemni.client.environment import Environment
from lemni.client.provider_cache import FROM_ENVIRONMENT
from lemni.client.remedies import Advice
from lemni.client.remote_client import RemoteEmbeddingClient
from lemni.client.wire import embeddings
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.client.wire.usage import Answer

DEFAULT_URL = "http://localhost:7997"
DEFAULT_TIMEOUT_S = 30


class InfinityEmbeddingClient(RemoteEmbeddingClient):
    """Vectors of texts from an Infinity or Lemni server. See BaseEmbeddingClient for its methods.

    Example:
        >>> from lemni.client import create_infinity_client
        >>> client = create_infinity_client()
        >>> embedding = client.generate_embedding("Hello, world!")
        >>> len(embedding)
        384
    """

    provider = "infinity"
    default_model = "BAAI/bge-small-en-v1.5"

    def __init__(
        self,
        model: str | None = None,
        embedding_dim: int | None = None,
        use_l2_norm: bool = True,
        base_url: str | None = None,
        timeout: float | None = None,
        token: str | None = None,
        *,
        norm_method: str | None = None,
        cache_duration_seconds: float | None = None,
        cache: EmbeddingCache | str | None = FROM_ENVIRONMENT,
    ) -> None:
        """
        Args:
            model: default is the variable `EMBEDDING_MODEL`, else BAAI/bge-small-en-v1.5.
            embedding_dim: default is `EMBEDDING_DIMENSION`, else what the model gives. What the server cannot do of it
                is done here, by `norm_method`.
            use_l2_norm: False for the vectors as they come.
            base_url: default is `INFINITY_URL`, `INFINITY_BASE_URL` or `EMBEDDING_BASE_URL`, else
                http://localhost:7997. Several with commas between: when one fails, the next is asked.
            timeout: seconds that a request may take with its retries, shared among several servers. A list goes in
                requests of at most 64 texts or 64 KiB. Default is `INFINITY_TIMEOUT`, `EMBEDDING_TIMEOUT` or
                `OLLAMA_TIMEOUT`, else 30.
            token: the server's key; default is `INFINITY_TOKEN` or `EMBEDDING_TOKEN`.
            norm_method, cache_duration_seconds, cache: see BaseEmbeddingClient.

        Raises:
            InvalidRequest: an argument makes no sense.
            ConfigError: a variable makes no sense.
        """
        environment = Environment()
        super().__init__(
            model,
            embedding_dim,
            use_l2_norm,
            norm_method,
            cache_duration_seconds,
            cache,
            environment=environment,
            base_url=base_url or _url(environment),
            timeout=timeout
            if timeout is not None
            else environment.number("INFINITY_TIMEOUT", "EMBEDDING_TIMEOUT", "OLLAMA_TIMEOUT") or DEFAULT_TIMEOUT_S,
            token=token or environment.text("INFINITY_TOKEN", "EMBEDDING_TOKEN"),
        )
        self.token = token or environment.text("INFINITY_TOKEN", "EMBEDDING_TOKEN")

    def _advice(self) -> Advice:
        serve = f"lemni serve {self.model} --port {urlsplit(self.base_url.partition(',')[0]).port or 7997}"
        return Advice(
            server="Infinity",
            start=f"Is it running? Start one with: {serve}",
            load=f"serve it: {serve}",
            timeout="INFINITY_TIMEOUT",
            token="token= or INFINITY_TOKEN",
        )

    def _request(self, texts: list[str], dimensions: int | None) -> HttpRequest:
        return embeddings.request(texts, "raw", {"model": self.model, "dimensions": dimensions})

    def _read(self, reply: HttpReply, count: int) -> Answer:
        return embeddings.read_dense(reply, count)

    def _described(self) -> Any:
        for model in (yield from self._list(5.0)):
            if model.id == self.model:
                missing: dict[str, Any] = {"backend": "unknown", "capabilities": [], "created": None, "stats": {}}
                return {"id": model.id, **{name: model.fields.get(name, other) for name, other in missing.items()}}
        return {"id": self.model, "backend": "unknown", "capabilities": []}


def _url(environment: Environment) -> str:
    """From the variables. A reranker's client takes `INFINITY_URL` for the whole URL, with /rerank."""
    found = environment.text("INFINITY_URL", "INFINITY_BASE_URL", "EMBEDDING_BASE_URL") or DEFAULT_URL
    return ",".join(url.strip().rstrip("/").removesuffix("/rerank") for url in found.split(","))
