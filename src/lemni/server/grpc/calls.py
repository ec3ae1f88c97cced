"""What every call goes through: the key, the model that is meant, the engine, errors as gRPC codes, streams in order.

A call names one of several served models by the metadata `model`, and sends its key as `authorization`, as over HTTP.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from lemni.errors import (
    DeadlineExceeded,
    LemniError,
    RequestCancelled,
    TaskNotSupported,
    Unauthorized,
    UnknownModel,
)
from lemni.server import auth
from lemni.server.dialects.tei_errors import Kind, kind_of
from lemni.server.errors import unexpected
from lemni.server.service import Service
from lemni.tasks.model import LoadedModel
from lemni.types import Item, ModelCard, Options, Request, Result, Task

_STREAM_REQUESTS = 256  # of one stream whose answers the client has not taken; more are not read

# As TEI's; the first class that an error is of counts, then its kind.
_BY_CLASS: tuple[tuple[type[LemniError], grpc.StatusCode], ...] = (
    (Unauthorized, grpc.StatusCode.UNAUTHENTICATED),
    (UnknownModel, grpc.StatusCode.NOT_FOUND),
    (TaskNotSupported, grpc.StatusCode.UNIMPLEMENTED),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (RequestCancelled, grpc.StatusCode.CANCELLED),
)
_BY_KIND: dict[Kind, grpc.StatusCode] = {
    "Unhealthy": grpc.StatusCode.UNAVAILABLE,
    "Backend": grpc.StatusCode.INTERNAL,
    "Overloaded": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "Validation": grpc.StatusCode.INVALID_ARGUMENT,
    "Tokenizer": grpc.StatusCode.FAILED_PRECONDITION,
    "Empty": grpc.StatusCode.INVALID_ARGUMENT,
}


class Call:
    """One call, unary or a stream of messages."""

    def __init__(self, service: Service, metadata: dict[str, str]) -> None:
        self.service = service
        self._model = metadata.get("model")

    async def card(self, task: Task = "embed") -> ModelCard:
        """The model that is meant; without a name the one that does `task`."""
        return await self.service.model(self._model, task)

    def model(self, card: ModelCard) -> LoadedModel:
        return self.service.loaded_model(card.name)

    async def run(
        self, card: ModelCard, items: list[Item], options: Options, task: Task, field: str = "inputs", lone: bool = True
    ) -> Result:
        """What the model makes of the items; given up when the call is cancelled. Raises what the engine raises."""
        assert self.service.engine is not None
        return await self.service.engine.embed(card.name, Request(items, options, (task,), field=field, lone=lone))


Answering = Callable[[Call, Any], Awaitable[Any]]
"""Answers one message."""


class Servicer:
    """What the methods of the services find at hand."""

    def __init__(self, service: Service) -> None:
        self.service = service


def unary(one: Answering) -> Callable[[Servicer, Any, Any], Awaitable[Any]]:
    """The method for a call with one answer: to its message, or to its stream if `one` reads one."""

    async def method(servicer: Servicer, request: Any, context: Any) -> Any:
        try:
            return await one(_call(servicer.service, context), request)
        except Exception as error:
            await _abort(context, error)

    return method


def streaming(one: Answering) -> Callable[[Servicer, AsyncIterator[Any], Any], AsyncIterator[Any]]:
    """The method for a stream of messages: their answers in order, computed side by side. The first error ends it."""

    async def method(servicer: Servicer, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        running: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        room = asyncio.Semaphore(_STREAM_REQUESTS)
        reader: asyncio.Task[None] | None = None
        try:
            call = _call(servicer.service, context)
            reader = asyncio.create_task(_read(call, one, requests, running, room))
            while (answer := await running.get()) is not None:
                yield await answer
                # Only now: answers of a client that does not read would pile up.
                room.release()
            await reader
        except Exception as error:
            await _abort(context, error)
        finally:
            if reader is not None:
                reader.cancel()
            while not running.empty():
                if (late := running.get_nowait()) is not None:
                    late.cancel()

    return method


async def _read(
    call: Call,
    one: Answering,
    requests: AsyncIterator[Any],
    running: asyncio.Queue[asyncio.Task[Any] | None],
    room: asyncio.Semaphore,
) -> None:
    try:
        async for request in requests:
            await room.acquire()
            task = asyncio.ensure_future(one(call, request))
            # Of several errors only the first is told.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            running.put_nowait(task)
    finally:
        running.put_nowait(None)


def _call(service: Service, context: Any) -> Call:
    """Raises Unauthorized."""
    given = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
    if service.settings.api_key is not None:
        headers = {key.encode(): value.encode() for key, value in given.items()}
        auth.check(service.settings.api_key, "POST", "", headers)
    return Call(service, given)


async def _abort(context: Any, error: Exception) -> None:
    made = error if isinstance(error, LemniError) else unexpected(error, f"req_{uuid.uuid4().hex}")
    by_class = (code for one, code in _BY_CLASS if isinstance(made, one))
    await context.abort(next(by_class, _BY_KIND[kind_of(made)]), made.message)
