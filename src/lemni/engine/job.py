"""One request in flight: what the caller holds of it, and what the engine keeps until it is complete."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from lemni.engine.fair import Share
from lemni.engine.scheduler import Flow, Place
from lemni.types import Outputs, Request, Result, Row, Sequence, Timing

if TYPE_CHECKING:
    from lemni.engine.alarm import Entry
    from lemni.engine.served import ServedModel


class Handle(Future[Result]):
    """The caller's end of a request: a `concurrent.futures.Future` that can be cancelled until it is done.

    `result()` raises the LemniError that ended the request, or CancelledError. Callbacks run in an engine thread.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        super().__init__()
        self._on_cancel = on_cancel

    def cancel(self) -> bool:
        """Give the request up: what only it waited for leaves the queue at once."""
        cancelled = super().cancel()
        if cancelled:
            self._on_cancel()
        return cancelled

    def let_go(self) -> None:
        """The request has ended: a handle that is kept must not keep its job, and the job's rows, alive."""
        self._on_cancel = lambda: None


class Job(Share):
    """Also the request's share in the fair queue of the tokenizers.

    Attributes:
        served: the model it is for.
        estimates: guessed tokens per item, as they will be computed.
        next_item: first item that no tokenizer thread has taken.
        flow: its place in the scheduler; set on admission.
        result_bytes: estimated size of a result with a vector per token, else 0; set on admission.
        deadline: its alarm; set on admission.
        admitted: when it was, by `time.monotonic`.
        ended: somebody has ended it, or is about to. Changes once, under the lock of `served`.
    """

    __slots__ = (
        "_missing",
        "_rows",
        "_running_s",
        "_sequences",
        "_tokenized",
        "_tokenizing_s",
        "_waiting_s",
        "admitted",
        "deadline",
        "deadline_s",
        "ended",
        "estimates",
        "flow",
        "handle",
        "next_item",
        "request",
        "result_bytes",
        "served",
    )

    flow: Flow
    deadline: Entry
    result_bytes: int

    def __init__(
        self, served: ServedModel, request: Request, estimates: list[int], weight: int, deadline_s: float
    ) -> None:
        super().__init__(weight)
        self.served = served
        self.request = request
        self.estimates = estimates
        self.deadline_s = deadline_s
        self.next_item = 0
        self.ended = False
        self.handle = Handle(lambda: served.cancel(self))
        self._sequences: list[list[Sequence]] = [[] for _ in estimates]
        self._rows: list[list[Outputs | None]] = [[] for _ in estimates]
        self._missing = len(estimates)  # rows, of an item that is not tokenised one
        self.admitted = time.monotonic()
        self._tokenized = [0.0] * len(estimates)  # when each item was
        self._tokenizing_s = self._waiting_s = self._running_s = 0.0  # of all sequences together

    def tokenized(self, index: int, sequences: list[Sequence], now: float) -> None:
        """What item `index` has become: a row is missing for each of its sequences."""
        self._tokenized[index] = now
        self._sequences[index] = sequences
        self._rows[index] = [None] * len(sequences)
        self._missing += len(sequences) - 1

    def fill(self, place: Place, row: Outputs, started: float, now: float) -> bool:
        """A sequence is computed, in a pass that began at `started`. Returns whether it was the last."""
        item, part = place
        tokenized = self._tokenized[item]
        self._tokenizing_s += tokenized - self.admitted
        self._waiting_s += max(0.0, started - tokenized)
        self._running_s += now - started
        if self._sequences[item][part].features is not None:  # megabytes that nobody needs any more
            self._sequences[item][part] = dataclasses.replace(self._sequences[item][part], features=None)
        # The batch may have given more, for others.
        self._rows[item][part] = {name: row[name] for name in self._sequences[item][part].outputs if name in row}
        self._missing -= 1
        return self._missing == 0

    def finish(self) -> Result:
        items = [
            [Row(sequence, row) for sequence, row in zip(sequences, rows, strict=True) if row is not None]
            for sequences, rows in zip(self._sequences, self._rows, strict=True)
        ]
        result = self.served.model.finish(items, self.request)
        count = sum(map(len, self._sequences))
        spent = Timing(self._tokenizing_s / count, self._waiting_s / count, self._running_s / count)
        return dataclasses.replace(result, timing=spent)
