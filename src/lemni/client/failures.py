"""What goes wrong on the way to a server and back, as the client's errors: exceptions of httpx and httpcore."""

from __future__ import annotations

import httpcore
import httpx

from lemni.client.conversation import Send
from lemni.client.errors import BadAnswer, ClientError, ConnectionFailed, RequestTimeout
from lemni.errors import InvalidRequest

FAILURES = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)
"""Exceptions that `failed` knows."""

_UNCONNECTED = (httpx.ConnectTimeout, httpx.PoolTimeout, httpcore.ConnectTimeout, httpcore.PoolTimeout)


def failed(error: Exception, send: Send) -> ClientError:
    """What is returned of one of FAILURES. Raises InvalidRequest for a URL that is none."""
    if isinstance(error, _UNCONNECTED):
        message = f"could not connect to {send.url} within {send.timeout_s:.3g} s"
        return RequestTimeout(message, send.timeout_s, connected=False)
    if isinstance(error, httpx.TimeoutException | httpcore.TimeoutException):
        return late(send)
    if isinstance(error, httpx.DecodingError):
        return BadAnswer(f"the answer of {send.url} cannot be decompressed: {error}")
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL | httpcore.UnsupportedProtocol):
        raise no_url(send.url, error) from error
    root = _root(error)
    words = str(root) or type(root).__name__
    if isinstance(error, httpx.ConnectError | httpcore.ConnectError):
        refused = isinstance(root, ConnectionRefusedError)
        question = ". Is a server running there?" if refused else ""
        return ConnectionFailed(f"cannot connect to {send.url}: {words}{question}", words, refused=refused)
    return ConnectionFailed(f"the connection to {send.url} broke: {words}", f"the connection broke: {words}")


def _root(error: BaseException) -> BaseException:
    """What the operating system said, if it did: anyio only says that all attempts failed."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return cause
        inner = getattr(cause, "exceptions", None)  # of an ExceptionGroup, one for each address
        cause = inner[0] if inner else cause.__cause__ or cause.__context__
    return error


def late(send: Send) -> RequestTimeout:
    """No answer in time."""
    return RequestTimeout(f"no answer from {send.url} within {send.timeout_s:.3g} s", send.timeout_s)


def no_url(url: str, why: object) -> InvalidRequest:
    """What is raised for a base URL that is none."""
    return InvalidRequest(f"{url!r} is no URL of a server: {why}", param="base_url")
