"""Providers of embeddings that ask a server: one connection, a session for threads and one for each event loop.

What is asked is written once, as jobs and conversations; each public method runs it in either session. A provider says
how its requests look and how its answers are read.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

from lemni.client.async_session import AsyncSession
from lemni.client.cache import EmbeddingCache
from lemni.client.connection import BRIEF_S, Connection, check_seconds, left_s
from lemni.client.embedding_client import BaseEmbeddingClient
from lemni.client.environment import Environment
from lemni.client.errors import ClientError, EmbeddingGenerationError, StatusError
from lemni.client.job import Job, chained
from lemni.client.loops import LoopSessions
from lemni.client.provider_cache import FROM_ENVIRONMENT
from lemni.client.remedies import Advice, about_the_model, explained
from lemni.client.retries import Retries
from lemni.client.session import Session
from lemni.client.wire import models as wire
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.client.wire.models import Model
from lemni.client.wire.usage import Answer
from lemni.errors import LemniError

log = logging.getLogger(__name__)


class RemoteEmbeddingClient(BaseEmbeddingClient):
    """A BaseEmbeddingClient with a server.

    Attributes:
        base_url: the server's URL; several with commas between are asked in turn when one fails.
        timeout: seconds that a request may take with its retries; a long list is several requests.
    """

    health_request: ClassVar[HttpRequest] = wire.HEALTH
    models_request: ClassVar[HttpRequest] = wire.REQUEST

    def __init__(
        self,
        model: str | None,
        embedding_dim: int | None,
        use_l2_norm: bool,
        norm_method: str | None,
        cache_duration_seconds: float | None,
        cache: EmbeddingCache | str | None = FROM_ENVIRONMENT,
        *,
        environment: Environment,
        base_url: str,
        timeout: float,
        token: str | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        check_seconds("timeout", timeout)
        super().__init__(
            model,
            embedding_dim,
            use_l2_norm,
            cache_duration_seconds,
            norm_method,
            cache=cache,
            environment=environment,
        )
        self.timeout = int(timeout) if isinstance(timeout, float) and timeout.is_integer() else timeout
        self._connection = Connection(
            base_url,
            token,
            timeout_s=timeout / (base_url.count(",") + 1),  # a server that hangs must leave time for the others
            # Waits at most 0.6 s in all: a server that is not there shall be noticed at once.
            retries=Retries(times=2, first_s=0.2, longest_s=1.0, longest_retry_after_s=timeout),
            # Parts that a CPU can do in time, though it does several at once.
            batch_size=64,
            batch_bytes=1 << 16,
            headers=headers,
        )
        self.base_url = ",".join(self._connection.urls)
        self._sends_dimensions = True
        self._lock = threading.Lock()
        self._opened: Session | None = None
        self._loops = LoopSessions(self._connection)

    # What a provider says.

    def _advice(self) -> Advice:
        raise NotImplementedError

    def _request(self, texts: list[str], dimensions: int | None) -> HttpRequest:
        raise NotImplementedError

    def _read(self, reply: HttpReply, count: int) -> Answer:
        raise NotImplementedError

    def _read_models(self, reply: HttpReply) -> list[Model]:
        return wire.read_models(reply)

    def _described(self) -> Any:
        """A conversation that ends with what `get_model_info` returns. Raises LemniError."""
        raise NotImplementedError

    # What is asked, without I/O.

    def health_check(self) -> bool:
        """Whether the server says within 5 s that it is well, or else embeds a text. Never raises LemniError."""
        healthy: bool = self._session.run(self._health())
        return healthy

    async def ahealth_check(self) -> bool:
        """`health_check` for async code."""
        healthy: bool = await (await self._async_session()).run(self._health())
        return healthy

    def get_available_models(self) -> list[str]:
        """Names of the models that the server has; none if it does not say."""
        names: list[str] = self._session.run(self._names(BRIEF_S))
        return names

    async def aget_available_models(self) -> list[str]:
        """`get_available_models` for async code."""
        names: list[str] = await (await self._async_session()).run(self._names(BRIEF_S))
        return names

    def get_model_info(self) -> dict[str, Any]:
        """What the server says about the model: `id`, `backend`, `capabilities`, `created`, `stats`, perhaps more.

        If it says nothing: `id`, `backend` "unknown", and no `capabilities`.
        """
        info: dict[str, Any] = self._session.run(self._info())
        return info

    async def aget_model_info(self) -> dict[str, Any]:
        """`get_model_info` for async code."""
        info: dict[str, Any] = await (await self._async_session()).run(self._info())
        return info

    def _health(self) -> Any:
        try:
            yield from self._connection.ask_briefly(self.health_request, BRIEF_S, time.monotonic() + BRIEF_S)
            return True
        except LemniError:
            pass
        try:
            talk = self._connection.talk(self._deadline(["test"]))
            reply = yield from talk(self._request(["test"], None))
            self._read(reply, 1)
        except LemniError as error:
            log.warning("%s: %s", self.base_url, error)
            return False
        return True

    def _names(self, most_s: float) -> Any:
        try:
            models = yield from self._list(most_s)
        except LemniError as error:
            log.warning("the models of %s are unknown: %s", self.base_url, error)
            return []
        return [model.id for model in models]

    def _list(self, most_s: float) -> Any:
        """The models, within so many seconds for all servers together."""
        reply = yield from self._connection.ask_briefly(self.models_request, most_s, time.monotonic() + most_s)
        return self._read_models(reply)

    def _info(self) -> Any:
        try:
            info = yield from self._described()
        except LemniError as error:
            log.warning("nothing is known about %s at %s: %s", self.model, self.base_url, error)
            return {"id": self.model, "backend": "unknown", "capabilities": []}
        return info

    def _identity(self) -> Any:
        """The model, as the server lists it. Takes a small part of the time, since vectors can be had without it."""
        return self._connection.identify(self._list(min(BRIEF_S, self.timeout / 4)), self.model)

    def _explanation(self, error: LemniError, deadline: float | None) -> Any:
        models: list[str] = []
        if about_the_model(error):
            models = yield from self._names(max(0.1, min(BRIEF_S, left_s(deadline) or 0.0)))
        return explained(error, self._advice(), self.base_url, self.timeout, models)

    def _job(self, texts: list[str]) -> Job[list[Any]]:
        dimensions = self._wanted_dimensions() if self._sends_dimensions else None
        return Job(
            texts,
            lambda some: self._request(list(some), dimensions),
            self._read,
            chained,
        )

    def _without_dimensions(self, error: LemniError) -> bool:
        """Whether `dimensions` are what the server has refused; then they are not sent any more."""
        if not (isinstance(error, StatusError) and error.status in (400, 422) and self._wanted_dimensions()):
            return False
        if "dim" not in f"{error.detail} {error.param}".lower():
            return False
        with self._lock:
            first, self._sends_dimensions = self._sends_dimensions, False
        if first:
            log.warning(
                "%s has no vectors of %s with %s values (%s): they are resized here",
                self.base_url,
                self.model,
                self.embedding_dim,
                error.detail,
            )
        return True

    # How it is sent.

    def _deadline(self, texts: list[str]) -> float:
        # A long list goes in parts, each of which has the whole time: it could not be sized for all of them.
        return time.monotonic() + self.timeout * max(1, len(self._connection.parts(self._job(texts))))

    def _source(self) -> str:
        return self.base_url

    def _identify(self, deadline: float | None) -> Model | None:
        model: Model | None = self._session.run(self._identity())
        return model

    async def _aidentify(self, deadline: float | None) -> Model | None:
        model: Model | None = await (await self._async_session()).run(self._identity())
        return model

    def _generate_embedding_raw(self, texts: list[str]) -> list[Any]:
        return self._embed(texts, self._deadline(texts))

    def _embed(self, texts: list[str], deadline: float | None) -> list[Any]:
        try:
            return self._session.compute(self._job(texts), deadline)
        except ClientError as error:
            if not self._without_dimensions(error):
                raise
        return self._session.compute(self._job(texts), deadline)

    async def _aembed(self, texts: list[str], deadline: float | None) -> list[Any]:
        session = await self._async_session()
        try:
            return await session.compute(self._job(texts), deadline)
        except ClientError as error:
            if not self._without_dimensions(error):
                raise
        return await session.compute(self._job(texts), deadline)

    def _explain(self, error: LemniError, deadline: float | None) -> EmbeddingGenerationError:
        explanation: EmbeddingGenerationError = self._session.run(self._explanation(error, deadline))
        return explanation

    async def _aexplain(self, error: LemniError, deadline: float | None) -> EmbeddingGenerationError:
        session = await self._async_session()
        explanation: EmbeddingGenerationError = await session.run(self._explanation(error, deadline))
        return explanation

    @property
    def _session(self) -> Session:
        with self._lock:
            if self._opened is None:
                self._opened = Session(self._connection)
                weakref.finalize(self, self._opened.close)
            if self._closed:
                self._opened.close()
            return self._opened

    async def _async_session(self) -> AsyncSession:
        if self._closed:
            session = AsyncSession(self._connection)
            await session.close()
            return session
        return await self._loops.session()

    def close(self) -> None:
        """Close the connections, but those of event loops (`aclose`), and the cache if it is the client's own."""
        super().close()
        with self._lock:
            if self._opened is not None:
                self._opened.close()

    async def aclose(self) -> None:
        """Close the connections, with those of this event loop; other loops close theirs when they end."""
        self.close()
        await self._loops.close()
