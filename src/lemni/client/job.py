"""A call of the client as data, and how a long one is cut into parts, which are answered side by side and put together
again. No I/O: the clients run the conversations."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from lemni.client.conversation import Conversation, Heard, Send, Wait
from lemni.client.errors import BadAnswer, ClientError, Failure, PartialFailure, StatusError, placed, reworded
from lemni.client.statistics import Counters
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.client.wire.inputs import size_of, split
from lemni.client.wire.usage import Answer

T = TypeVar("T")

FORGIVEN = 16
"""How many inputs of one request of a long list may fail alone; each costs up to two requests."""


@dataclass(frozen=True)
class Job(Generic[T]):
    """One call of the client.

    Attributes:
        items: the inputs, in order.
        request: the request for some of them.
        read: its reply as the values of so many inputs.
        join: the values of consecutive parts, in order, as what the caller gets.
        identity: what the values depend on beside the input, for the cache; None for what is not cached.
        progress: True for a bar, or a function of (done, total).
        deadline_s: seconds until everything is given up.
    """

    items: Seq[Any]
    request: Callable[[Seq[Any]], HttpRequest]
    read: Callable[[HttpReply, int], Answer]
    join: Callable[[list[Any]], T]
    identity: dict[str, Any] | None = None
    progress: bool | Callable[[int, int], object] = False
    deadline_s: float | None = None

    def part(self, positions: Seq[int]) -> Job[list[Any]]:
        """The same for some of the inputs, with a list of values as the result."""
        items = [self.items[place] for place in positions]
        return Job(items, self.request, self.read, chained, None, self.progress, self.deadline_s)

    def parts(self, most_items: int, most_bytes: int) -> list[range]:
        """Positions of the inputs of each request."""
        if len(self.items) == 1:
            return [range(1)]
        return split([size_of(item) for item in self.items], most_items, most_bytes)


class Outcome(NamedTuple):
    """What came of a part: its values, or the error."""

    positions: range
    values: Any = None
    error: ClientError | None = None


Talk: TypeAlias = Callable[[HttpRequest], Conversation]
Answering: TypeAlias = Generator[Send | Wait, Heard, list[Outcome]]


def answer_part(job: Job[Any], positions: range, talk: Talk, counters: Counters, forgiven: int = 0) -> Answering:
    """Ask for one part. What is too large for the server (413, or over Lemni's limit of items) is asked for in halves.

    Of a part of a long list, up to `forgiven` inputs that the server blames by their index fail alone, and the others
    are asked for again.
    """
    outcomes: list[Outcome] = []
    pieces = [positions]
    while pieces:
        piece = pieces.pop(0)
        items = job.items[piece.start : piece.stop]
        try:
            answer = yield from _asked(job, items, talk)
        except ClientError as error:
            failure, guilty = placed(error, piece), error.item if error.status in (400, 422) else None
            if len(items) > 1 and (error.status == 413 or error.code == "too_many_items"):
                half = piece.start + len(items) // 2
                pieces[:0] = [range(piece.start, half), range(half, piece.stop)]
                continue
            if guilty is not None and guilty < len(items) > 1 and forgiven:
                place = piece[guilty]
                forgiven -= 1
                outcomes.append(Outcome(range(place, place + 1), error=failure))
                pieces[:0] = [some for some in (range(piece.start, place), range(place + 1, piece.stop)) if some]
                continue
            outcomes.append(Outcome(piece, error=failure))
            if ends_all(failure):
                outcomes += [Outcome(rest, error=failure) for rest in pieces]
                break
        else:
            counters.add(inputs=len(items), tokens=answer.tokens, truncated=answer.truncated)
            outcomes.append(Outcome(piece, answer.values))
    return outcomes


def _asked(job: Job[Any], items: Seq[Any], talk: Talk) -> Generator[Send | Wait, Heard, Answer]:
    reply = yield from talk(job.request(items))
    with naming(reply):
        return job.read(reply, len(items))


@contextlib.contextmanager
def naming(reply: HttpReply) -> Iterator[None]:
    """A BadAnswer from the block says whose answer it was."""
    try:
        yield
    except BadAnswer as error:
        raise reworded(error, f"{reply.url}: {error.message}") from error.__cause__


def ends_all(error: ClientError) -> bool:
    """Whether other parts would fail for the same reason: all but what one input or one bad answer is to blame for."""
    if isinstance(error, StatusError):
        return error.status not in (413, 500) and error.item is None
    return not isinstance(error, BadAnswer)


class Ledger:
    """The parts of a job as they are finished. Thread-safe."""

    def __init__(self, parts: list[range], total: int, on_progress: Callable[[int], object]) -> None:
        self._lock = threading.Lock()
        self._parts = parts
        self._total = total
        self._done: list[Outcome] = []
        self._on_progress = on_progress
        self.last: ClientError | None = None
        """The error after which nothing more is asked for."""

    def record(self, outcomes: list[Outcome]) -> None:
        """Note what came of a part."""
        with self._lock:
            self._done += outcomes
            for outcome in outcomes:
                if outcome.error is None:
                    self._on_progress(len(outcome.positions))
                elif self.last is None and ends_all(outcome.error):
                    self.last = outcome.error

    def result(self, job: Job[T]) -> T:
        """What the caller gets. Raises the error if nothing is finished, PartialFailure if something is."""
        done = sorted(self._done, key=lambda outcome: outcome.positions.start)
        failures = [Failure(outcome.positions, outcome.error) for outcome in done if outcome.error is not None]
        if not failures:
            return job.join([outcome.values for outcome in done])
        finished = {
            place: outcome.values[place - outcome.positions.start]
            for outcome in done
            if outcome.error is None
            for place in outcome.positions
        }
        if not finished:
            raise self.last or failures[0].error
        if self.last is not None:
            tried = {place for outcome in done for place in outcome.positions}
            failures += [Failure(part, self.last) for part in self._parts if part.start not in tried]
        failures.sort(key=lambda failure: failure.positions[0])
        raise PartialFailure(finished, failures, self._total) from failures[0].error


def chained(parts: list[Any]) -> list[Any]:
    """The values of consecutive parts as one list: the `join` of many jobs."""
    return [value for part in parts for value in part]
