"""Errors as HTTP answers: the status and headers here, the body by the dialect of the path.

`lemni.errors` says which kind has which status. Also the two kinds that only HTTP knows, and what becomes of an
exception that nobody expected: an id for the caller, the text for the log.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lemni.errors import InternalError, InvalidRequest, LemniError, Overloaded, Unauthorized, Unavailable

if TYPE_CHECKING:
    from starlette.types import Scope

    from lemni.server.dialect import Dialect

log = logging.getLogger("lemni.server")

DEFAULT_RETRY_AFTER_S = 1.0


class NoSuchRoute(LemniError):
    status = 404
    code = "route_not_found"


class MethodNotAllowed(LemniError):
    status = 405
    code = "method_not_allowed"


def answer(error: LemniError, scope: Scope) -> Response:
    """The response to a request that failed, in the dialect that was spoken, or else in that of its path."""
    path = scope["path"]
    log.debug("%s: %s (%d %s)", path, error.message, error.status, error.code)
    dialect: Dialect = scope["state"].get("dialect") or scope["app"].state.dialects.of(path)
    return Response(dialect.error_body(error), dialect.status(error), _headers(error), "application/json")


def _headers(error: LemniError) -> dict[str, str]:
    if isinstance(error, Unauthorized):
        return {"www-authenticate": "Bearer"}
    if error.retry_after_s is None and not isinstance(error, Overloaded | Unavailable):
        return {}
    seconds = DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
    # Retry-After knows whole seconds only; the openai client prefers milliseconds where they are given.
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(math.ceil(seconds * 1000))}


def unexpected(error: Exception, request_id: str) -> InternalError:
    """Log an exception that is a bug of ours; the error to tell the caller."""
    log.error("request %s failed", request_id, exc_info=error)
    return InternalError(f"internal error; the server's log has its text under request id {request_id}")


async def on_lemni_error(http: Request, error: Exception) -> Response:
    """Exception handler of the application."""
    assert isinstance(error, LemniError)
    return answer(error, http.scope)


async def on_http_exception(http: Request, error: Exception) -> Response:
    """What the framework itself refuses, above all unknown paths and wrong methods."""
    assert isinstance(error, HTTPException)
    path = http.scope["path"]
    shown = path if len(path) <= 200 else f"{path[:200]}..."
    if error.status_code == 404:
        made: LemniError = NoSuchRoute(f"there is no {http.method} {shown}; /docs lists what there is")
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        made = MethodNotAllowed(f"{shown} does not take {http.method}; it takes {allowed}")
    else:
        made = InvalidRequest(error.detail)
        made.status = error.status_code
    response = answer(made, http.scope)
    response.headers.update(error.headers or {})
    return response
