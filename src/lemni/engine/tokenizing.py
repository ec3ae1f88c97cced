"""The tokenising stage: threads that turn items into sequences, chunk by chunk, fair between requests of all models.

A request's chunks are small so that its first batch can run while the rest is tokenised, and so that another
request's text waits for at most one chunk per thread.
"""

from __future__ import annotations

import threading
from typing import TypeAlias

from lemni.engine import failures
from lemni.engine.fair import FairQueue
from lemni.engine.job import Job
from lemni.engine.model import Model
from lemni.errors import LemniError
from lemni.types import Request, Sequence

CHUNK_ITEMS = 64
CHUNK_CHARACTERS = 65536
"""A chunk has at most this many items and this many characters, or is one longer item alone."""

Tokenized: TypeAlias = list[Sequence] | LemniError
"""What became of an item."""


class Tokenizers:
    def __init__(self, threads: int) -> None:
        self._changed = threading.Condition()
        self._queue: FairQueue[Job] = FairQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"lemni-tokenizer-{n}", daemon=True) for n in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def add(self, job: Job) -> None:
        with self._changed:
            self._queue.wait(job, _chunk(job)[1])
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout_s)

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """One chunk. A method of its own, so that a thread that waits holds no request's memory."""
        turn = self._next()
        if turn is None:
            return False
        job, start, stop, estimate = turn
        try:
            outcomes = tokenize(job.served.model, job.request, start, stop)
            job.served.add(job, start, outcomes, estimate)
        except BaseException as cause:  # the thread serves everybody: it must live on
            job.served.end(job, failures.internal(cause, "tokenising")(None))
        return True

    def _next(self) -> tuple[Job, int, int, int] | None:
        """Wait for a turn: job, first item, item after the last, their estimated tokens. None: the stage closes.

        A job that has ended, such as when its caller went away, gets no further turn."""
        with self._changed:
            while not self._closed:
                job = self._queue.first()
                if job is None:
                    self._changed.wait()
                elif job.ended:
                    self._queue.leave(job)
                else:
                    start = job.next_item
                    job.next_item, characters = _chunk(job)
                    self._queue.serve(job, characters)
                    if job.next_item < len(job.estimates):
                        self._queue.wait(job, _chunk(job)[1])
                        self._changed.notify()
                    else:
                        self._queue.leave(job)
                    return job, start, job.next_item, sum(job.estimates[start : job.next_item])
            return None


def _chunk(job: Job) -> tuple[int, int]:
    """The item after the job's next chunk, and what the chunk costs: its characters, however much is cut off later."""
    items, start = job.request.items, job.next_item
    prompt = len(job.request.options.prompt or "")
    characters = 0
    at = start
    while at < min(len(items), start + CHUNK_ITEMS):
        more = 1 + prompt + len(items[at])  # never for nothing: an empty text costs a call too
        if at > start and characters + more > CHUNK_CHARACTERS:
            break
        characters += more
        at += 1
    return at, characters


def tokenize(model: Model, request: Request, start: int, stop: int) -> list[Tokenized]:
    """Sequences or an error, which names its item, for each of the items from `start` to `stop`; where the
    tokenizer raises, up to the first error."""
    items = request.items[start:stop]
    named = request.first_item + start
    outcomes: list[Tokenized] = []
    try:
        outcomes = model.tokenize(request, start, stop)
        if len(outcomes) != len(items):
            raise RuntimeError(f"the tokenizer gave {len(outcomes)} outcomes for {len(items)} items")
    except Exception as cause:
        if len(items) > 1:
            return _one_by_one(model, request, start, stop)
        outcomes = [cause if isinstance(cause, LemniError) else failures.internal(cause, "tokenising")(named)]
    for item, outcome in enumerate(outcomes, named):
        if isinstance(outcome, LemniError):
            outcome.item = item if outcome.item is None else outcome.item
        elif not outcome or not all(len(sequence.ids) for sequence in outcome):
            nothing = RuntimeError(f"the tokenizer gave no tokens for item {item}")
            outcomes[item - named] = failures.internal(nothing, "tokenising")(item)
    return outcomes


def _one_by_one(model: Model, request: Request, start: int, stop: int) -> list[Tokenized]:
    """To name the guilty item."""
    outcomes: list[Tokenized] = []
    for at in range(start, stop):
        outcomes += tokenize(model, request, at, at + 1)
        if isinstance(outcomes[-1], LemniError):
            break
    return outcomes
