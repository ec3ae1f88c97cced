"""Sends what a job or a conversation wants and waits where it says so, on an event loop. The twin of `session.py`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import Any, TypeVar

import httpx

from lemni.client.connection import Connection, left_s
from lemni.client.conversation import Heard, Send, Wait
from lemni.client.errors import ClientError, widened
from lemni.client.job import FORGIVEN, Job, Ledger, answer_part
from lemni.client.progress import shown
from lemni.client.transport import AsyncTransport
from lemni.client.wire import models as wire
from lemni.client.wire.http import HttpReply

T = TypeVar("T")


class AsyncSession:
    """A connection at work on one event loop."""

    def __init__(self, connection: Connection, http: httpx.AsyncClient | None = None) -> None:
        self.connection = connection
        self._given = http
        self._transport = AsyncTransport(connection.headers, http)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def answer(self, job: Job[T]) -> T:
        """What the caller gets, from the cache as far as it has it."""
        cache = self.connection.cache
        if cache is None or job.identity is None or not job.items:
            return await self.compute(job)
        deadline = self.connection.deadline(job)
        keys = self.connection.keys(job, await self.model(job.identity, deadline))
        rows = await cache.athrough(
            keys,
            lambda positions: self.compute(job.part(positions), deadline),
            timeout_s=left_s(deadline),
            widen=functools.partial(widened, len(keys)),
        )
        return job.join([rows])

    async def compute(self, job: Job[T], deadline: float | None = None) -> T:
        """Ask the server for all inputs of a job, several requests at once; until `deadline`, or the job's own."""
        parts = self.connection.parts(job)
        talk = self.connection.talk(self.connection.deadline(job) if deadline is None else deadline)
        forgiven = FORGIVEN if len(parts) > 1 else 0  # of a short list the caller gets the error itself
        with shown(job.progress, len(job.items)) as on_progress:
            ledger = Ledger(parts, len(job.items), on_progress)
            waiting = iter(parts)

            async def ask() -> None:
                for part in waiting:
                    if ledger.last is not None:
                        break
                    ledger.record(await self.run(answer_part(job, part, talk, self.connection.counters, forgiven)))

            if len(parts) == 1:
                await ask()
            else:
                await _all(ask, min(self.connection.concurrency, len(parts)))
        return ledger.result(job)

    async def run(self, conversation: Generator[Send | Wait, Heard, T]) -> T:
        """Do what a conversation says until it has its result."""
        outcome: Heard = None
        try:
            step = next(conversation)
            while True:
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._exchange(step)
                step = conversation.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()

    async def _exchange(self, send: Send) -> HttpReply | ClientError:
        closed = ClientError("the client is closed")
        if self._closed:
            return closed
        transport = self._transport_here()
        try:
            return await transport.exchange(send)
        except RuntimeError:  # of httpx, when it is closed meanwhile
            if self._closed:
                return closed
            raise

    def _transport_here(self) -> AsyncTransport:
        """The connections of the running event loop; those of a loop that was closed are dead.

        Raises ClientError while another loop may use them.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                if not self._loop.is_closed():
                    raise ClientError("this client is in use on another event loop; make one for each loop")
                self._transport = AsyncTransport(self.connection.headers, self._given)
            self._loop = loop
        return self._transport

    async def models(self, deadline: float | None = None) -> list[wire.Model]:
        """The models that the server has. Raises ClientError."""
        return await self.run(self.connection.list_models(deadline))

    async def model(self, identity: Mapping[str, Any] | None, deadline: float | None = None) -> wire.Model | None:
        """What the server says about the model of a job's identity; asked for again every few minutes."""
        wanted, listing = identity or {}, self.connection.list_models(deadline)
        return await self.run(self.connection.identify(listing, wanted.get("model"), wanted.get("task")))

    async def healthy(self) -> bool:
        """Whether the server says that it is well. Never raises ClientError."""
        try:
            await self.run(self.connection.ask_briefly(wire.HEALTH))
        except ClientError:
            return False
        return True

    async def close(self) -> None:
        """Close the connections, and the cache if it was opened for this. Idempotent."""
        self._closed = True
        if self._loop is None or not self._loop.is_closed():
            await self._transport.close()
        self.connection.close()


async def _all(work: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """Run so many at once; when one fails, the others are ended."""
    workers = [asyncio.ensure_future(work()) for _ in range(count)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
