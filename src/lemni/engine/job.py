"""One request in flight: what the caller holds of it, and what the engine keeps until it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lemni.engine.fair import Share
from lemni.engine.scheduler import Flow
from lemni.types import EmbedResult, Request, Sequence

if TYPE_CHECKING:
    from lemni.engine.alarm import Entry
    from lemni.engine.served import ServedModel


class Handle(Future[EmbedResult]):
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
        token_counts: int32 [items].
    """

    __slots__ = (
        "_missing",
        "_rows",
        "_truncated",
        "deadline",
        "deadline_s",
        "ended",
        "estimates",
        "flow",
        "handle",
        "next_item",
        "request",
        "served",
        "token_counts",
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
        self.token_counts = np.zeros(len(estimates), dtype=np.int32)
        self._truncated: list[int] = []
        self._rows: list[NDArray[np.float32] | None] = [None] * len(estimates)
        self._missing = len(estimates)

    def tokenized(self, sequences: Iterable[tuple[int, Sequence, object]]) -> None:
        for index, sequence, _ in sequences:
            self.token_counts[index] = len(sequence)
            if sequence.truncated:
                self._truncated.append(index)

    def fill(self, index: int, row: NDArray[np.float32]) -> bool:
        """Item `index` is computed. Returns whether it was the last."""
        self._rows[index] = row
        self._missing -= 1
        return self._missing == 0

    def finish(self) -> EmbedResult:
        rows = [row for row in self._rows if row is not None]
        vectors = self.served.model.finish(rows, self.request.options)
        return EmbedResult(vectors, self.token_counts, tuple(sorted(self._truncated)))
