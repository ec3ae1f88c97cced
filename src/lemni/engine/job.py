"""One request in flight: what the caller holds of it, and what the engine keeps until it is complete."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from lemni.engine.fair import Share
from lemni.engine.scheduler import Flow, Place
from lemni.types import Outputs, Request, Result, Row, Sequence

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
        deadline: its alarm; set on admission.
        ended: somebody has ended it, or is about to. Changes once, under the lock of `served`.
    """

    __slots__ = (
        "_missing",
        "_rows",
        "_sequences",
        "deadline",
        "deadline_s",
        "ended",
        "estimates",
        "flow",
        "handle",
        "next_item",
        "request",
        "served",
    )

    flow: Flow
    deadline: Entry

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

    def tokenized(self, index: int, sequences: list[Sequence]) -> None:
        """What item `index` has become: a row is missing for each of its sequences."""
        self._sequences[index] = sequences
        self._rows[index] = [None] * len(sequences)
        self._missing += len(sequences) - 1

    def fill(self, place: Place, row: Outputs) -> bool:
        """A sequence is computed. Returns whether it was the last."""
        item, part = place
        if self._sequences[item][part].features is not None:  # megabytes that nobody needs any more
            self._sequences[item][part] = dataclasses.replace(self._sequences[item][part], features=None)
        self._rows[item][part] = row
        self._missing -= 1
        return self._missing == 0

    def finish(self) -> Result:
        items = [
            [Row(sequence, row) for sequence, row in zip(sequences, rows, strict=True) if row is not None]
            for sequences, rows in zip(self._sequences, self._rows, strict=True)
        ]
        return self.served.model.finish(items, self.request)
