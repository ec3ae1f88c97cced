"""LlamaIndex: `LemniEmbedding` and `LemniRerank`, a node postprocessor. Needs llama-index-core only."""

from __future__ import annotations

from typing import Any

from lemni.errors import InvalidRequest, missing_extra
from lemni.integrations.clients import Clients
from lemni.ranking import Ranked

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ModuleNotFoundError as error:
    raise missing_extra("llama-index-core", "llama-index", "lemni.integrations.llama_index") from error

_dispatcher = get_dispatcher(__name__)


class LemniEmbedding(BaseEmbedding):
    """Vectors for indices.

    Attributes:
        embed_batch_size: texts in one call of the client, which splits them further and sends the parts at once.
        model, base_url, api_key, client, async_client, options: as in `Clients`.
    """

    model: str | None = None
    base_url: str | None = None
    api_key: str | None = Field(default=None, exclude=True, repr=False)
    client: Any = Field(default=None, exclude=True, repr=False)
    async_client: Any = Field(default=None, exclude=True, repr=False)
    options: dict[str, Any] = Field(default_factory=dict)
    embed_batch_size: int = Field(default=1024, gt=0, le=2048)
    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Called by pydantic."""
        self.model_name = self.model or "lemni"  # how LlamaIndex's events call it
        self._clients = Clients(self.model, self.base_url, self.api_key, self.client, self.async_client, self.options)

    @classmethod
    def class_name(cls) -> str:
        """Its name in serialised objects."""
        return "LemniEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._clients.queries([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._clients.aqueries([query]))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._clients.documents([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._clients.adocuments([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._clients.documents(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._clients.adocuments(texts)


class LemniRerank(BaseNodePostprocessor):
    """Nodes in the order of their relevance to the query, which is their new score.

    Attributes:
        top_n: keep the best ones only; all if not given.
        model, base_url, api_key, client, async_client, options: as in `Clients`.
    """

    model: str | None = None
    base_url: str | None = None
    api_key: str | None = Field(default=None, exclude=True, repr=False)
    client: Any = Field(default=None, exclude=True, repr=False)
    async_client: Any = Field(default=None, exclude=True, repr=False)
    options: dict[str, Any] = Field(default_factory=dict)
    top_n: int | None = None
    _clients: Clients = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Called by pydantic."""
        self._clients = Clients(self.model, self.base_url, self.api_key, self.client, self.async_client, self.options)

    @classmethod
    def class_name(cls) -> str:
        """Its name in serialised objects."""
        return "LemniRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._started(nodes, query_bundle)
        return _ended(nodes, self._clients.rerank(query, _texts(nodes), self.top_n))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._started(nodes, query_bundle)
        return _ended(nodes, await self._clients.arerank(query, _texts(nodes), self.top_n))

    def _started(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        if query_bundle is None:
            raise InvalidRequest("nodes cannot be reranked without a query; give query_str or query_bundle")
        _dispatcher.event(
            ReRankStartEvent(
                query=query_bundle, nodes=nodes, top_n=self.top_n or len(nodes), model_name=self.model or "lemni"
            )
        )
        query: str = query_bundle.query_str
        return query


def _texts(nodes: list[NodeWithScore]) -> list[str]:
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]


def _ended(nodes: list[NodeWithScore], ranking: list[Ranked]) -> list[NodeWithScore]:
    chosen = [NodeWithScore(node=nodes[index].node, score=score) for index, score in ranking]
    _dispatcher.event(ReRankEndEvent(nodes=chosen))
    return chosen
