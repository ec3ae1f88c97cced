"""LangChain: `LemniEmbeddings` and `LemniRerank`, a document compressor. Needs langchain-core only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lemni
from lemni.errors import missing_extra
from lemni.integrations.clients import Clients
from lemni.ranking import Ranked

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import ConfigDict, Field, PrivateAttr, SecretStr
except ModuleNotFoundError as error:
    raise missing_extra("langchain-core", "langchain", "lemni.integrations.langchain") from error


class LemniEmbeddings(Embeddings):
    """Vectors for vector stores. Arguments are those of `Clients`.

    Example:
        >>> store = InMemoryVectorStore(LemniEmbeddings(base_url="http://localhost:7997"))
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        client: lemni.Client | None = None,
        async_client: lemni.AsyncClient | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._clients = Clients(model, base_url, api_key, client, async_client, options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return self._clients.documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._clients.queries([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text."""
        return await self._clients.adocuments(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return (await self._clients.aqueries([text]))[0]


class LemniRerank(BaseDocumentCompressor):
    """Documents in the order of their relevance to the query, which is in their metadata as `relevance_score`.

    Attributes:
        top_n: keep the best ones only; all if not given.
        model, base_url, api_key, client, async_client, options: as in `Clients`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    client: Any = Field(default=None, exclude=True, repr=False)
    async_client: Any = Field(default=None, exclude=True, repr=False)
    options: dict[str, Any] = Field(default_factory=dict)
    top_n: int | None = None
    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Called by pydantic."""
        key = self.api_key.get_secret_value() if self.api_key else None
        self._clients = Clients(self.model, self.base_url, key, self.client, self.async_client, self.options)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Copies of the best documents, the best first."""
        return _chosen(documents, self._clients.rerank(query, _texts(documents), self.top_n))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Copies of the best documents, the best first."""
        return _chosen(documents, await self._clients.arerank(query, _texts(documents), self.top_n))


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _chosen(documents: Sequence[Document], ranking: list[Ranked]) -> list[Document]:
    return [
        documents[index].model_copy(update={"metadata": {**documents[index].metadata, "relevance_score": score}})
        for index, score in ranking
    ]
