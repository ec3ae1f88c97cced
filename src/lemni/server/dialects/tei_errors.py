"""TEI's errors: {"error", "error_type"}, and which of its kinds and statuses an error of Lemni's has.

Kinds as on TEI's wire: Unhealthy, Backend, Overloaded, Validation, Tokenizer, Empty. Its gRPC side uses the kinds too.
"""

from __future__ import annotations

from typing import Literal

import orjson

from lemni.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    InvalidTokenIds,
    LemniError,
    Overloaded,
    TaskNotSupported,
    Unavailable,
)

Kind = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class Empty(InvalidRequest):
    """A list without items, which TEI answers with 400, and everything else that is wrong with a body with 422."""


# The first class that an error is of counts.
_KINDS: tuple[tuple[type[LemniError], Kind, int | None], ...] = (
    (Empty, "Empty", 400),
    (TaskNotSupported, "Backend", 424),
    (InvalidTokenIds, "Tokenizer", 422),
    (InvalidRequest, "Validation", 422),
    (InternalError, "Backend", 424),
    (Overloaded, "Overloaded", 429),
    (DeadlineExceeded, "Overloaded", None),
    (Unavailable, "Unhealthy", 503),
)


def kind_of(error: LemniError) -> Kind:
    return next((kind for one, kind, _ in _KINDS if isinstance(error, one)), "Validation")


def status_of(error: LemniError) -> int:
    """TEI's status. What it has no kind for (404, 413, 504 ...) keeps Lemni's; so does what the framework refuses."""
    found = next((status for one, _, status in _KINDS if isinstance(error, one)), None)
    return error.status if found is None or error.status != type(error).status else found


def error_body(error: LemniError) -> bytes:
    return orjson.dumps({"error": error.message, "error_type": kind_of(error)})
