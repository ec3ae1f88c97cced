"""Embeddings from OpenAI, or from any server with its API, without OpenAI's package."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from lemni.client.cache import EmbeddingCache
from lemni.client.environment import Environment
from lemni.client.errors import InvalidArgument
from lemni.client.provider_cache import FROM_ENVIRONMENT
from lemni.client.remedies import Advice
from lemni.client.remote_client import RemoteEmbeddingClient
from lemni.client.wire import embeddings
from lemni.client.wire import models as wire
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.client.wire.models import Model
from lemni.client.wire.usage import Answer

DEFAULT_URL = "https://api.openai.com/v1"
DEFAULT_TIMEOUT_S = 60
_OPENAI = "api.openai.com"


class OpenAIEmbeddingClient(RemoteEmbeddingClient):
    """Vectors of texts from an API like OpenAI's. See BaseEmbeddingClient for its methods."""

    provider = "openai"
    default_model = "text-embedding-3-small"
    health_request = wire.REQUEST  # there is no /health

    def __init__(
        self,
        model: str | None = None,
        embedding_dim: int | None = None,
        use_l2_norm: bool = True,
        api_key: str | None = None,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        timeout: float | None = None,
        *,
        norm_method: str | None = None,
        cache_duration_seconds: float | None = None,
        cache: EmbeddingCache | str | None = FROM_ENVIRONMENT,
    ) -> None:
        """
        Args:
            model: default is the variable `EMBEDDING_MODEL`, else text-embedding-3-small.
            embedding_dim: default is `EMBEDDING_DIMENSION`, else what the model gives.
            use_l2_norm: False for the vectors as they come.
            api_key: default is `OPENAI_API_KEY`, `API_KEY` or `EMBEDDING_TOKEN`; api.openai.com needs one.
            base_url: with `/v1` if the server wants it; default is `OPENAI_BASE_URL` or `EMBEDDING_BASE_URL`, else
                https://api.openai.com/v1. Several with commas between: when one fails, the next is asked.
            organization: default is `OPENAI_ORGANIZATION`.
            project: default is `OPENAI_PROJECT`.
            timeout: seconds that a request may take with its retries. A list goes in
                requests of at most 64 texts or 64 KiB. Default is `EMBEDDING_TIMEOUT`, else 60.
            norm_method, cache_duration_seconds, cache: see BaseEmbeddingClient.

        Raises:
            InvalidRequest: an argument makes no sense, or there is no key for api.openai.com.
            ConfigError: a variable makes no sense.
        """
        environment = Environment()
        base_url = base_url or environment.text("OPENAI_BASE_URL", "EMBEDDING_BASE_URL") or DEFAULT_URL
        self.api_key = api_key or environment.text("OPENAI_API_KEY", "API_KEY", "EMBEDDING_TOKEN")
        self._is_openai = any(urlsplit(url.strip()).hostname == _OPENAI for url in base_url.split(","))
        if self._is_openai and not self.api_key:
            raise InvalidArgument(
                "OpenAI API key is required. Set OPENAI_API_KEY environment variable, or give api_key=", param="api_key"
            )
        more = {
            "OpenAI-Organization": organization or environment.text("OPENAI_ORGANIZATION"),
            "OpenAI-Project": project or environment.text("OPENAI_PROJECT"),
        }
        super().__init__(
            model,
            embedding_dim,
            use_l2_norm,
            norm_method,
            cache_duration_seconds,
            cache,
            environment=environment,
            base_url=base_url,
            timeout=timeout if timeout is not None else environment.number("EMBEDDING_TIMEOUT") or DEFAULT_TIMEOUT_S,
            token=self.api_key,
            headers={name: value for name, value in more.items() if value},
        )

    def _advice(self) -> Advice:
        return Advice(
            server="OpenAI",
            start="Check base_url= and OPENAI_BASE_URL, and whether the server runs",
            load="have it served there",
            timeout="EMBEDDING_TIMEOUT",
            token="api_key= or OPENAI_API_KEY",
        )

    def _request(self, texts: list[str], dimensions: int | None) -> HttpRequest:
        return embeddings.request(texts, "base64", {"model": self.model, "dimensions": dimensions})

    def _read(self, reply: HttpReply, count: int) -> Answer:
        return embeddings.read_dense(reply, count)

    def _identity(self) -> Any:
        if self._is_openai:  # its names never change their meaning, and its list has no revisions
            return None
        return (yield from super()._identity())

    def _described(self) -> Any:
        for model in (yield from self._list(5.0)):
            if model.id == self.model:
                return _info(model)
        return {"id": self.model, "backend": "unknown", "capabilities": []}


def _info(model: Model) -> dict[str, Any]:
    fields = model.fields
    return {
        "id": model.id,
        "backend": fields.get("backend") or fields.get("owned_by") or "unknown",
        "capabilities": list(model.capabilities),
        "created": fields.get("created"),
        "stats": fields.get("stats") or {},
    }
