"""What happens around every request: its path is tidied, it gets an id, the key is checked, no exception escapes, and
its answer is counted.

A plain ASGI middleware, because the framework's own kind costs a task per request and hides disconnects.
"""

from __future__ import annotations

import re
import time
import uuid

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lemni.errors import LemniError
from lemni.server import auth
from lemni.server.errors import answer, log, unexpected
from lemni.server.metrics import NO_ROUTE, HttpCounts
from lemni.server.routes import Dialects

_REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)
_SLASHES = re.compile("/{2,}")


class Edge:
    """Args: `api_key` None lets everybody in; `url_prefix` is a path before all routes; `counts` is told of answers."""

    def __init__(self, app: ASGIApp, api_key: str | None, url_prefix: str | None, counts: HttpCounts) -> None:
        self._app = app
        self._counts = counts
        self._prefix = url_prefix or ""
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scope["path"] = tidy(scope["path"])
        below = without_prefix(scope["path"], self._prefix)
        dialects: Dialects = scope["app"].state.dialects
        if below in auth.PUBLIC_PATHS or dialects.knows(below):
            scope["path"] = below
        scope.setdefault("state", {})
        request_id = _request_id(headers.get(b"x-request-id"))
        began = time.perf_counter()
        status = 0
        endpoint = dialects.endpoint(scope["method"], scope["path"])

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
            await send(message)

        try:
            if self._api_key is not None:
                auth.check(self._api_key, scope["method"], scope["path"], headers)
            # Most requests: the framework would spend more time on finding the route than all the rest takes.
            if endpoint is not None:
                response = await endpoint(Request(scope, receive))
                await response(scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception as error:
            made = error if isinstance(error, LemniError) else unexpected(error, request_id.decode())
            if not status:  # else it is too late for an answer, and the server closes the connection
                response = answer(made, scope)
                await response(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            if status:  # else the client has gone
                route = scope["path"] if endpoint is not None else getattr(scope.get("route"), "path", NO_ROUTE)
                self._counts.add(route, scope["method"], status, seconds)
            method, path, ms = scope["method"], scope["path"], 1000 * seconds
            log.debug("%s %s -> %d in %.1f ms, %s", method, path, status, ms, request_id.decode())


def tidy(path: str) -> str:
    """`//v1/models/` is `/v1/models`: what a base URL with a slash at its end makes of a path."""
    path = _SLASHES.sub("/", path)
    return path.rstrip("/") or "/"


def without_prefix(path: str, prefix: str) -> str:
    """The path below the prefix that the operator chose; others are left as they are."""
    return path.removeprefix(prefix) or "/" if path == prefix or path.startswith(f"{prefix}/") else path


def _request_id(given: bytes | None) -> bytes:
    """The client's own id, if it is fit for a header and a log line; else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{uuid.uuid4().hex}".encode()
