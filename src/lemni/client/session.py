"""Sends what a job or a conversation wants and waits where it says so, with threads. `async_session.py` is its twin."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import httpx

from lemni.client.connection import Connection, left_s
from lemni.client.conversation import Heard, Send, Wait
from lemni.client.errors import ClientError, widened
from lemni.client.job import FORGIVEN, Job, Ledger, answer_part
from lemni.client.progress import shown
from lemni.client.transport import Transport
from lemni.client.wire import models as wire
from lemni.client.workers import side_by_side

T = TypeVar("T")


class Session:
    """A connection at work. Thread-safe."""

    def __init__(self, connection: Connection, http: httpx.Client | None = None) -> None:
        self.connection = connection
        self._given = http
        self._transport = Transport(connection.headers, http)
        self._process = os.getpid()
        self._closed = threading.Event()

    def answer(self, job: Job[T]) -> T:
        """What the caller gets, from the cache as far as it has it."""
        cache = self.connection.cache
        if cache is None or job.identity is None or not job.items:
            return self.compute(job)
        deadline = self.connection.deadline(job)
        keys = self.connection.keys(job, self.model(job.identity, deadline))
        rows = cache.through(
            keys,
            lambda positions: self.compute(job.part(positions), deadline),
            timeout_s=left_s(deadline),
            widen=functools.partial(widened, len(keys)),
        )
        return job.join([rows])

    def compute(self, job: Job[T], deadline: float | None = None) -> T:
        """Ask the server for all inputs of a job, several requests at once; until `deadline`, or the job's own."""
        parts = self.connection.parts(job)
        talk = self.connection.talk(self.connection.deadline(job) if deadline is None else deadline)
        forgiven = FORGIVEN if len(parts) > 1 else 0  # of a short list the caller gets the error itself
        with shown(job.progress, len(job.items)) as on_progress:
            ledger = Ledger(parts, len(job.items), on_progress)
            waiting = iter(parts)

            def ask(stop: threading.Event | None = None) -> None:
                for part in waiting:
                    if ledger.last is not None or (stop is not None and stop.is_set()):
                        break
                    outcomes = self.run(answer_part(job, part, talk, self.connection.counters, forgiven), stop)
                    if stop is not None and stop.is_set():  # the call has ended meanwhile, and its progress with it
                        break
                    ledger.record(outcomes)

            threads = min(self.connection.concurrency, len(parts))
            if threads <= 1:
                ask()
            else:
                side_by_side(ask, threads)
        return ledger.result(job)

    def run(
        self,
        conversation: Generator[Send | Wait, Heard, T],
        stop: threading.Event | None = None,
    ) -> T:
        """Do what a conversation says until it has its result, or until it is no longer wanted."""
        outcome: Heard = None
        try:
            step = next(conversation)
            while True:
                if isinstance(step, Wait):
                    self._closed.wait(step.seconds)
                    outcome = None
                elif self._closed.is_set() or (stop is not None and stop.is_set()):
                    outcome = ClientError("the client is closed, or the call was interrupted")
                else:
                    outcome = self._transport_here().exchange(step)
                step = conversation.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            conversation.close()

    def models(self, deadline: float | None = None) -> list[wire.Model]:
        """The models that the server has. Raises ClientError."""
        return self.run(self.connection.list_models(deadline))

    def model(self, identity: Mapping[str, Any] | None, deadline: float | None = None) -> wire.Model | None:
        """What the server says about the model of a job's identity; asked for again every few minutes."""
        wanted, listing = identity or {}, self.connection.list_models(deadline)
        return self.run(self.connection.identify(listing, wanted.get("model"), wanted.get("task")))

    def healthy(self) -> bool:
        """Whether the server says that it is well. Never raises ClientError."""
        try:
            self.run(self.connection.ask_briefly(wire.HEALTH))
        except ClientError:
            return False
        return True

    def close(self) -> None:
        """Close the connections, and the cache if it was opened for this. Idempotent."""
        self._closed.set()
        self._transport_here().close()
        self.connection.close()

    def _transport_here(self) -> Transport:
        """The connections of this process: after a fork the old ones are the parent's, which reads from them too."""
        if self._process != os.getpid():
            self._transport = Transport(self.connection.headers, self._given)
            self._process = os.getpid()
        return self._transport
