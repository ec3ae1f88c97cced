"""The client behind every integration: the caller's own, or one that is made when it is first needed.

Async calls go to the `AsyncClient` that was given. Without one they run the sync client in a thread, which works on any
event loop and keeps its connections from one loop to the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Any

import lemni
from lemni.errors import InvalidRequest
from lemni.ranking import Ranked
from lemni.types import Image, Item


class Clients:
    """Vectors as lists of floats, which is what frameworks take, and rankings. Thread-safe; may be pickled."""

    def __init__(
        self,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        client: lemni.Client | None = None,
        async_client: lemni.AsyncClient | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            model: a name that the server knows; not needed for the only model of its kind there.
            base_url: the server's; default is the variable `LEMNI_URL`, else http://127.0.0.1:7997.
            api_key: default is the variable `LEMNI_API_KEY`.
            client: one with settings of its own, instead of URL and key.
            async_client: the same for async calls.
            options: more keywords for every call, as the client's method takes them.

        Raises:
            InvalidRequest: a client and also a URL or a key.
        """
        if (client or async_client) and (base_url or api_key):
            raise InvalidRequest("both a client and base_url or api_key are given; the client has its own")
        self._given = (model, base_url, api_key, client, async_client, options)
        self._async = async_client
        self._how: dict[str, Any] = {**(options or {}), **({"model": model} if model else {})}

    @cached_property
    def client(self) -> lemni.Client:
        """The sync client. Raises InvalidRequest if only an async one was given: it knows the server, this does not."""
        _, base_url, api_key, client, async_client, _ = self._given
        if async_client and not client:
            raise InvalidRequest("only async_client is given; a sync call needs client too")
        return client or lemni.Client(base_url, api_key=api_key)

    def documents(self, texts: Seq[Item], **how: Any) -> list[list[float]]:
        """A vector for each document."""
        return self._vectors(texts, "document", how)

    def queries(self, texts: Seq[Item], **how: Any) -> list[list[float]]:
        """A vector for each query."""
        return self._vectors(texts, "query", how)

    async def adocuments(self, texts: Seq[Item], **how: Any) -> list[list[float]]:
        """A vector for each document."""
        return await self._avectors(texts, "document", how)

    async def aqueries(self, texts: Seq[Item], **how: Any) -> list[list[float]]:
        """A vector for each query."""
        return await self._avectors(texts, "query", how)

    def rerank(self, query: str, documents: Seq[str | Image], top_n: int | None) -> list[Ranked]:
        """The documents' places and scores, the best first."""
        return self.client.rerank(query, documents, top_n=top_n, **self._how)

    async def arerank(self, query: str, documents: Seq[str | Image], top_n: int | None) -> list[Ranked]:
        """The documents' places and scores, the best first."""
        if self._async:
            return await self._async.rerank(query, documents, top_n=top_n, **self._how)
        return await asyncio.to_thread(self.rerank, query, documents, top_n)

    def _vectors(self, texts: Seq[Item], side: str, how: Mapping[str, Any]) -> list[list[float]]:
        rows: list[list[float]] = self.client.embed(texts, **self._embedding(side, how)).tolist()
        return rows

    async def _avectors(self, texts: Seq[Item], side: str, how: Mapping[str, Any]) -> list[list[float]]:
        if self._async:
            rows: list[list[float]] = (await self._async.embed(texts, **self._embedding(side, how))).tolist()
            return rows
        return await asyncio.to_thread(self._vectors, texts, side, how)

    def _embedding(self, side: str, how: Mapping[str, Any]) -> dict[str, Any]:
        return {"input_type": side, **self._how, **how}

    def __reduce__(self) -> tuple[type[Clients], tuple[Any, ...]]:
        """Another process makes connections of its own."""
        return Clients, self._given
