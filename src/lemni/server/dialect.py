"""What a dialect is made of: operations (a path, what it takes and gives, who answers), and how it writes an error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel

from lemni.errors import LemniError
from lemni.server.call import Call

Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """One thing that clients of a dialect ask for.

    Attributes:
        paths: all paths that it answers, the documented one first.
        handler: answers a call.
        claims: whether a body is this dialect's, on a path that several dialects have; None takes every body that
            nobody claims (of several such operations the first in the table of dialects).
        preferable: it also takes what nobody claims, if the setting `prefer` names its dialect.
        body: schema of what it takes, for /docs.
        examples: named bodies, at least one for a POST: {"text": {"summary": ..., "value": ...}}.
        answer: schema of what it gives; None for an answer that is not a JSON object of that kind.
        statuses: statuses of its errors, besides those that every operation has.
        media_type: of the answer.
        also: media types of binary answers that an `Accept` header may ask for instead.
    """

    paths: tuple[str, ...]
    handler: Handler
    summary: str
    method: str = "POST"
    claims: Callable[[Mapping[str, Any]], bool] | None = None
    preferable: bool = False
    description: str = ""
    body: type[BaseModel] | dict[str, Any] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    answer: type[BaseModel] | dict[str, Any] | None = None
    media_type: str = "application/json"
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """One API.

    Attributes:
        name: as people know it.
        operations: its routes.
        error_body: the JSON of an error as this dialect's clients read it.
        status: the HTTP status of an error, where the dialect has its own ideas.
        prefix: begins the paths that are its own even where there is no route, such as "/api/".
        error: schema of what `error_body` writes, for /docs.
    """

    name: str
    operations: tuple[Operation, ...]
    error_body: Callable[[LemniError], bytes]
    status: Callable[[LemniError], int] = lambda error: error.status
    prefix: str | None = None
    error: type[BaseModel] | dict[str, Any] | None = None


def has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    """A claim: the body has one of the keys, whatever its value."""
    return lambda body: any(key in body for key in keys)


EMBED_KEYS = ("inputs", "text", "texts")
"""Keys that tell apart the three services that have the path `/embed`."""


def only(key: str, among: tuple[str, ...]) -> Callable[[Mapping[str, Any]], bool]:
    """A claim: of the keys `among`, the body has this one alone."""
    return lambda body: [other for other in among if other in body] == [key]
