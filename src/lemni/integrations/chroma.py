"""Chroma: an embedding function that a collection keeps: once this module is imported it opens with it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lemni
from lemni.errors import missing_extra
from lemni.integrations.clients import Clients

try:
    from chromadb.api.types import Documents, EmbeddingFunction
    from chromadb.utils.embedding_functions import register_embedding_function
except ModuleNotFoundError as error:
    raise missing_extra("chromadb", "chroma", "lemni.integrations.chroma") from error


class LemniEmbeddingFunction(EmbeddingFunction[Documents]):
    """Vectors of texts. The collection keeps everything but the key, which is `LEMNI_API_KEY` when it is opened again.

    Example:
        >>> collection = chroma.create_collection("docs", embedding_function=LemniEmbeddingFunction())
    """

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        client: lemni.Client | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Arguments are those of `Clients`."""
        self._clients = Clients(model, base_url, api_key, client, options=options)
        if client:
            model, base_url = model or client.model, client.base_url
        self._config = {"model": model, "base_url": base_url, "options": dict(options or {})}

    def __call__(self, input: Documents) -> list[NDArray[np.float32]]:
        """float32 [dimensions] for each document."""
        return [np.asarray(row, np.float32) for row in self._clients.documents(input)]

    def embed_query(self, input: Documents) -> list[NDArray[np.float32]]:
        """float32 [dimensions] for each query."""
        return [np.asarray(row, np.float32) for row in self._clients.queries(input)]

    @staticmethod
    def name() -> str:
        """How Chroma finds this class again."""
        return "lemni"

    def default_space(self) -> str:
        """The distance that most models are made for; for others name it: `configuration={"hnsw": {"space": "ip"}}`."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """What the collection keeps."""
        return self._config

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> LemniEmbeddingFunction:
        """The function that `get_config` described."""
        return LemniEmbeddingFunction(**config)


register_embedding_function(LemniEmbeddingFunction)
