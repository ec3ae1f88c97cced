"""Embeddings from an Ollama server, or Lemni, which speaks its API too; without Ollama's package.

The API: https://github.com/ollama/ollama/blob/main/docs/api.md, "Generate Embeddings".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lemni.client.cache import EmbeddingCache
from lemni.client.environment import Environment
from lemni.client.errors import BadAnswer
from lemni.client.provider_cache import FROM_ENVIRONMENT
from lemni.client.remedies import Advice
from lemni.client.remote_client import RemoteEmbeddingClient
from lemni.client.wire.http import HttpReply, HttpRequest, json_of
from lemni.client.wire.inputs import json_bytes
from lemni.client.wire.models import Model
from lemni.client.wire.usage import Answer, number

DEFAULT_HOST = "localhost"
DEFAULT_PORT = 11434
DEFAULT_TIMEOUT_S = 60


class OllamaEmbeddingClient(RemoteEmbeddingClient):
    """Vectors of texts from an Ollama or Lemni server. See BaseEmbeddingClient for its methods."""

    provider = "ollama"
    default_model = "nomic-embed-text"
    health_request = HttpRequest("/api/version", at_root=True)
    models_request = HttpRequest("/api/tags", at_root=True)

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
            model: default is the variable `EMBEDDING_MODEL`, else nomic-embed-text.
            embedding_dim: default is `EMBEDDING_DIMENSION`, else what the model gives.
            use_l2_norm: False for the vectors as they come.
            base_url: also `host`, `host:port` and `:port`, as Ollama takes them; default is `OLLAMA_URL`, `OLLAMA_HOST`
                or `EMBEDDING_BASE_URL`, else http://localhost:11434. Several with commas between: when one fails, the
                next is asked.
            timeout: seconds that a request may take with its retries. A list goes in
                requests of at most 64 texts or 64 KiB. Default is `OLLAMA_TIMEOUT` or `EMBEDDING_TIMEOUT`, else 60.
            token: the key of a server that wants one; default is `EMBEDDING_TOKEN`.
            norm_method, cache_duration_seconds, cache: see BaseEmbeddingClient.

        Raises:
            InvalidRequest: an argument makes no sense.
            ConfigError: a variable makes no sense.
        """
        environment = Environment()
        given = base_url or environment.text("OLLAMA_URL", "OLLAMA_HOST", "EMBEDDING_BASE_URL") or DEFAULT_HOST
        timeouts = environment.number("OLLAMA_TIMEOUT", "EMBEDDING_TIMEOUT")
        super().__init__(
            model,
            embedding_dim,
            use_l2_norm,
            norm_method,
            cache_duration_seconds,
            cache,
            environment=environment,
            base_url=",".join(map(url_of_host, given.split(","))),
            timeout=timeout if timeout is not None else timeouts or DEFAULT_TIMEOUT_S,
            token=token or environment.text("EMBEDDING_TOKEN"),
        )

    def _advice(self) -> Advice:
        return Advice(
            server="Ollama",
            start=f"Is it running? Start it with: ollama serve, or: lemni serve {self.model} --port {DEFAULT_PORT}",
            load=f"get it there: ollama pull {self.model}",
            timeout="OLLAMA_TIMEOUT",
            token="token= or EMBEDDING_TOKEN",
        )

    def _request(self, texts: list[str], dimensions: int | None) -> HttpRequest:
        body = {"model": self.model, "input": texts} | ({} if dimensions is None else {"dimensions": dimensions})
        return HttpRequest("/api/embed", json_bytes(body), at_root=True)

    def _read(self, reply: HttpReply, count: int) -> Answer:
        content = json_of(reply)
        rows = content.get("embeddings") if isinstance(content, dict) else None
        if not isinstance(rows, list) or len(rows) != count:
            raise BadAnswer(f"the server's answer has no list `embeddings` of {count} vectors")
        try:
            vectors = np.asarray(rows, np.float32)
        except (TypeError, ValueError) as error:
            raise BadAnswer(f"`embeddings` of the server's answer are no vectors: {error}") from error
        if vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise BadAnswer(f"`embeddings` of the server's answer are no finite vectors: {vectors.shape}")
        return Answer(vectors, number(content.get("prompt_eval_count")))

    def _read_models(self, reply: HttpReply) -> list[Model]:
        content = json_of(reply)
        listed = content.get("models") if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(one, dict) and one.get("name") for one in listed):
            raise BadAnswer("the server's answer has no list `models` with names")
        return [Model(str(one["name"]), revision=str(one.get("digest") or "") or None, fields=one) for one in listed]

    def _identity(self) -> Any:
        yield from super()._identity()
        tagged = self.model if ":" in self.model.rpartition("/")[2] else f"{self.model}:latest"
        return self._connection.identities.of(tagged)

    def _described(self) -> Any:
        request = HttpRequest("/api/show", json_bytes({"model": self.model}), at_root=True)
        content = json_of((yield from self._connection.ask_briefly(request)))
        if not isinstance(content, dict):
            raise BadAnswer("the server's answer is no object")
        return {
            "id": self.model,
            "backend": "ollama",
            "capabilities": content.get("capabilities") or [],
            "created": content.get("modified_at"),
            "stats": {},
            "details": content.get("details") or {},
            "model_info": content.get("model_info") or {},
        }


def url_of_host(host: str) -> str:
    """A base URL from what `OLLAMA_HOST` may be: a URL, `host`, `host:port`, `:port`; `0.0.0.0` is where a server
    listens, and means this machine."""
    host = host.strip().rstrip("/")
    scheme, separator, rest = host.rpartition("://")
    rest = rest.replace("0.0.0.0", "127.0.0.1", 1) if rest.startswith("0.0.0.0") else rest
    if separator:
        return f"{scheme}://{rest}".removesuffix("/api")
    name, path, tail = rest.partition("/")
    if name.startswith(":"):
        name = DEFAULT_HOST + name
    if not name.rpartition("]")[2].count(":"):
        name = f"{name}:{DEFAULT_PORT}"
    return f"http://{name}{path}{tail}".removesuffix("/api")
