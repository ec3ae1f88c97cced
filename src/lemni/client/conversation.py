"""One request until it is answered: retries, fail-over, deadlines. A generator that yields what to do and is sent what
came of it, so that the sync and the async client share every decision."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lemni.client.errors import ClientError, RequestTimeout
from lemni.client.retries import Retries, Servers, elsewhere
from lemni.client.statistics import Counters
from lemni.client.wire.http import HttpReply, HttpRequest, status_error, url_of


@dataclass(frozen=True, slots=True)
class Send:
    """Send it, and answer with an HttpReply or a ClientError (not raised)."""

    request: HttpRequest
    url: str
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait, and answer with None."""

    seconds: float


Heard: TypeAlias = HttpReply | ClientError | None
"""What a conversation is sent: an answer to Send, None to Wait."""

Conversation: TypeAlias = Generator[Send | Wait, Heard, HttpReply]


def converse(
    request: HttpRequest,
    servers: Servers,
    retries: Retries,
    counters: Counters,
    *,
    timeout_s: float,
    deadline: float | None = None,
) -> Conversation:
    """Send a request until it succeeds, is refused for good, or time is up.

    Args:
        timeout_s: for one answer.
        deadline: time.monotonic() at which everything is given up.

    Returns:
        A reply of status 200 to 299.

    Raises:
        ClientError: the last error.
    """
    tries = 1
    tried: set[str] = set()
    error: ClientError | None = None  # of this round of servers, the one that leaves most hope
    while True:
        server = servers.choose(time.monotonic(), frozenset(tried))
        left_s = timeout_s if deadline is None else min(timeout_s, deadline - time.monotonic())
        url = url_of(server, request)
        if left_s <= 0:
            late = f"the call's deadline passed before a request to {url} could be sent"
            raise error or RequestTimeout(late, 0.0, connected=False)
        reply = yield Send(request, url, left_s)
        counters.add(requests=1)
        if isinstance(reply, HttpReply):
            if 200 <= reply.status < 300:
                servers.good(server)
                return HttpReply(reply.status, reply.headers, reply.body, url)
            latest: ClientError = status_error(reply, url)
        else:
            assert reply is not None
            latest = reply
        tried.add(server)
        if error is None or not elsewhere(latest) or _hope(latest) >= _hope(error):
            error = latest
        if elsewhere(latest):
            if _tells(latest, left_s < timeout_s):
                servers.failed(server, latest, time.monotonic())
            if len(tried) < len(servers.urls):
                counters.add(retries=1)
                continue
        wait_s = retries.wait_s(tries, error)
        if wait_s is None or (deadline is not None and time.monotonic() + wait_s >= deadline):
            raise _counted(error, tries, servers.urls)
        tries += 1
        tried.clear()
        error = None
        counters.add(retries=1)
        yield Wait(wait_s)


def _counted(error: ClientError, tries: int, urls: Sequence[str]) -> ClientError:
    """The error with how often and where it was tried, if that was more than once."""
    if tries > 1 or (len(urls) > 1 and elsewhere(error)):
        times = f"tried {tries} times" if tries > 1 else "tried once"
        error.message += f" ({times}{', each of ' + ', '.join(urls) if len(urls) > 1 else ''})"
        error.args = (error.message, *error.args[1:])
    return error


def _hope(error: ClientError) -> tuple[bool, bool]:
    return error.retryable, error.retry_after_s is not None


def _tells(error: ClientError, hurried: bool) -> bool:
    """Whether the server is to blame: not for a model that it does not have, nor for a deadline that the caller set."""
    return error.status != 404 and not (hurried and isinstance(error, RequestTimeout))
