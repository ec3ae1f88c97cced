"""What the client raises, in one small tree.

    LemniError
    ├── InvalidRequest          what the caller gave is wrong; nothing was sent
    │   └── InvalidArgument     the same, also a ValueError: what the providers of embeddings raise
    └── ClientError
        ├── ConnectionFailed    no server answered: refused, reset, half an answer, name or certificate wrong
        ├── RequestTimeout      no answer in time
        ├── StatusError         the server refused: its status, its words
        ├── BadAnswer           an answer that is not what the API promises: broken JSON, wrong counts, NaN
        ├── PartialFailure      some parts of a long list failed; the others are in `finished`
        └── EmbeddingGenerationError    any of these, as the providers of embeddings raise it; `__cause__` is the other

All carry `item`, the index of the guilty input in the list that was given, where one is known.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lemni.errors import InvalidRequest, LemniError

ErrorT = TypeVar("ErrorT", bound=LemniError)


class ClientError(LemniError):
    """Base of what goes wrong between the client and a server; by itself it says that the client is closed.

    Errors can be pickled and copied, as processes that share work do.
    """

    code = "client_error"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


class InvalidArgument(InvalidRequest, ValueError):
    """An argument or an input that makes no sense; a ValueError too, as programs for faciliter-lib expect it."""

    code = "invalid_argument"


class ConnectionFailed(ClientError):
    """No whole answer came.

    Attributes:
        reason: what the operating system or the HTTP library says.
        refused: whether nothing listens there.
    """

    code = "connection_failed"
    retryable = True

    def __init__(self, message: str, reason: str = "", *, refused: bool = False) -> None:
        super().__init__(message)
        self.reason = reason or message
        self.refused = refused


class RequestTimeout(ClientError):
    """No answer within the time that was allowed.

    Attributes:
        timeout_s: that time.
        connected: whether the server had been reached, and may be working on it.
    """

    code = "timeout"

    def __init__(self, message: str, timeout_s: float, *, connected: bool = True) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s
        self.connected = connected


RETRYABLE_STATUSES = frozenset({408, 409, 429, 500, 502, 503, 504, 529})


class StatusError(ClientError):
    """The server answered with a status of 300 or more.

    Attributes:
        status: the HTTP status.
        detail: the server's own message.
        body: its answer, at most 64 KiB of it.
        retry_after_s: what its `Retry-After` says.
    """

    def __init__(
        self,
        message: str,
        status: int,
        *,
        detail: str,
        body: bytes = b"",
        code: str | None = None,
        item: int | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, item=item, param=param, retry_after_s=retry_after_s)
        self.status = status
        self.detail = detail
        self.body = body
        self.code = code or f"http_{status}"
        self.retryable = status in RETRYABLE_STATUSES


class BadAnswer(ClientError):
    """The answer came whole, but is not what was asked for."""

    code = "bad_answer"


@dataclass(frozen=True)
class Failure:
    """A part of a list that could not be done.

    Attributes:
        positions: indices of its inputs in the list that was given.
        error: why.
    """

    positions: Sequence[int]
    error: LemniError


class PartialFailure(ClientError):
    """Some parts of a long list failed.

    Attributes:
        finished: index of an input -> its answer, such as a vector (float32 [dimensions]).
        failures: the parts that failed, in order; what was not tried any more has the error that ended it all.
        total: how many inputs there were.
    """

    code = "partial_failure"

    def __init__(self, finished: Mapping[int, Any], failures: list[Failure], total: int) -> None:
        first = failures[0]
        others = f" (and {len(failures) - 1} more parts)" if len(failures) > 1 else ""
        super().__init__(
            f"{total - len(finished)} of {total} inputs failed: {_span(first.positions)}: {first.error}{others}. "
            f"The {len(finished)} finished ones are in `finished`",
            item=first.error.item,
        )
        self.finished = finished
        self.failures = failures
        self.total = total

    def placed(self, positions: Sequence[int], known: Mapping[int, Any], total: int) -> PartialFailure:
        """The same for a list of `total` inputs, of which `positions` were asked for and `known` have an answer."""
        finished = dict(known)
        finished.update((positions[place], value) for place, value in self.finished.items())
        failures = [
            Failure([positions[place] for place in failure.positions], placed(failure.error, positions))
            for failure in self.failures
        ]
        return PartialFailure(finished, failures, total)

    @property
    def missing(self) -> list[int]:
        """Indices of the inputs that have no answer, ascending: what to send again."""
        return [index for index in range(self.total) if index not in self.finished]


class EmbeddingGenerationError(ClientError):
    """What a provider of embeddings (`InfinityEmbeddingClient` ...) raises when it gets no vectors.

    Its message says what to do about it. `__cause__` is the error that it stands for; `status`, `code`, `item`,
    `retryable` and `retry_after_s` are those of the cause.
    """

    code = "embedding_generation_error"

    @classmethod
    def of(cls, cause: LemniError, message: str) -> EmbeddingGenerationError:
        """The error to raise from `cause`."""
        error = cls(message, item=cause.item, param=cause.param, retry_after_s=cause.retry_after_s)
        error.status, error.code, error.retryable = cause.status, cause.code, cause.retryable
        return error


def _span(positions: Sequence[int]) -> str:
    return f"input {positions[0]}" if len(positions) == 1 else f"inputs {positions[0]} to {positions[-1]}"


def widened(total: int, error: Exception, positions: Sequence[int], known: Mapping[int, Any]) -> Exception:
    """The error to raise for a list of `total` inputs when only `positions` of it were asked for."""
    if isinstance(error, PartialFailure):
        return error.placed(positions, known, total)
    return placed(error, positions) if isinstance(error, ClientError) else error


def placed(error: ErrorT, positions: Sequence[int]) -> ErrorT:
    """The same error, of which `item` counts in `positions`, as one of the whole list. A copy: several parts may have
    failed for the one that was given."""
    if error.item is None or not 0 <= error.item < len(positions) or positions[error.item] == error.item:
        return error
    moved = copy.copy(error)
    moved.item = positions[error.item]
    words = error.message.removesuffix(_whole(error.item))
    return reworded(moved, words + _whole(moved.item))


def reworded(error: ErrorT, message: str) -> ErrorT:
    """The error itself, with another message."""
    error.message = message
    error.args = (message,)
    return error


def _whole(item: int) -> str:
    return f" [input {item} of the whole list]"


def _rebuilt(kind: type[ClientError], args: tuple[Any, ...], fields: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error
