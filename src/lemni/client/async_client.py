"""`lemni.AsyncClient`: `lemni.Client` for asyncio."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from functools import cached_property

from typing_extensions import Unpack

from lemni.client.async_session import AsyncSession
from lemni.client.base import ClientBase, DenseHow, EmbedHow, ScoreHow
from lemni.client.similarity import similarities
from lemni.client.wire.embeddings import Vectors
from lemni.client.wire.models import Model
from lemni.ranking import Label, Ranked
from lemni.types import Image, Item, Mixed, Pair, SparseVector


class AsyncClient(ClientBase):
    """`lemni.Client` for asyncio: the same methods, settings and errors; they are awaited. Belongs to one event loop.

    Example:
        >>> async with lemni.AsyncClient() as client:
        ...     vectors = await client.embed(["A cat sits on the mat.", "A dog runs."])
    """

    async def embed(self, texts: Item | Seq[Item], **how: Unpack[DenseHow]) -> Vectors:
        """Dense vectors of texts, token ids, images or sounds (`lemni.Image(data)`, `lemni.Audio(data)`).

        Returns:
            float32 (or of the `output_type`) [dimensions] for one item, [items, dimensions] for a list.
        """
        return await self._session.answer(self._embed(texts, how))

    async def sparse(self, texts: Seq[Item], **how: Unpack[EmbedHow]) -> list[SparseVector]:
        """Term weights of each text: (indices int32 [n], values float32 [n])."""
        return await self._session.answer(self._sparse(texts, how))

    async def multi_vector(self, items: Seq[Item], **how: Unpack[EmbedHow]) -> list[Vectors]:
        """Late-interaction vectors of each item: float32 [tokens, dimensions]."""
        return await self._session.answer(self._multi_vector(items, how))

    async def rerank(
        self,
        query: str | Image | Mixed,
        documents: Seq[str | Image | Mixed],
        *,
        top_n: int | None = None,
        **how: Unpack[ScoreHow],
    ) -> list[Ranked]:
        """Documents by their relevance to the query, the best first; the first `top_n` if given."""
        return await self._session.answer(self._rerank(query, documents, top_n, how))

    async def score(self, pairs: Seq[Pair], **how: Unpack[ScoreHow]) -> Vectors:
        """Scores of pairs: float32 [pairs]."""
        return await self._session.answer(self._score(pairs, how))

    async def classify(
        self, texts: Seq[str], *, top_k: int | None = None, **how: Unpack[ScoreHow]
    ) -> list[list[Label]]:
        """Labels of each text with their scores, the best first; the first `top_k` if given."""
        return await self._session.answer(self._classify(texts, top_k, how))

    async def similarity(self, a: Item | Seq[Item], b: Item | Seq[Item], **how: Unpack[EmbedHow]) -> Vectors:
        """How alike the items are, by the model's own function: float32 [a, b], without the axis of a lone item.

        They are asked for in one call: the index of an error or of progress counts through `a`, and on through `b`.
        """
        job = self._embed_both(a, b, how)
        return similarities(*await self._session.answer(job), await self._session.model(job.identity))

    async def models(self) -> list[Model]:
        """The models that the server has."""
        return await self._session.models()

    async def health(self) -> bool:
        """Whether a server answers that it is well, each within 5 s. Never raises ClientError."""
        return await self._session.healthy()

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._session.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    @cached_property
    def _session(self) -> AsyncSession:
        return AsyncSession(self._connection)
