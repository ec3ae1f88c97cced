"""What answers say beside their values: tokens, and which inputs were cut."""

from __future__ import annotations

from typing import Any, NamedTuple

from lemni.client.wire.http import HttpReply


class Answer(NamedTuple):
    """Attributes:
    values: one per input: an array whose first axis is the inputs, or a list.
    tokens: as the server counted them; 0 if it does not say.
    truncated: how many inputs it says it has cut.
    """

    values: Any
    tokens: int = 0
    truncated: int = 0


def tokens_of(content: Any) -> int:
    """`usage.total_tokens` of an answer's JSON."""
    usage = content.get("usage") if isinstance(content, dict) else None
    return number(usage.get("total_tokens")) if isinstance(usage, dict) else 0


def truncated_of(reply: HttpReply) -> int:
    """How many inputs `x-lemni-truncated: 3,17 and 20 more` names."""
    header = reply.headers.get("x-lemni-truncated")
    if not header:
        return 0
    places, _, more = header.partition(" and ")
    return len(places.split(",")) + number(more.removesuffix(" more"))


def number(value: Any) -> int:
    """An integer, or 0 if it is none: these numbers are not worth an error."""
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
