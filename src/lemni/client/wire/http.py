"""An HTTP request and its reply as data, and the errors that replies stand for. Knows no library for HTTP."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal

import orjson

from lemni.client.errors import BadAnswer, StatusError
from lemni.errors import InvalidRequest

JSON = "application/json"
_KEPT = 65536  # of a body that explains an error
_SHOWN = 500  # of it in a message
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1 and 5.5, of which only ASCII is safe
_HEADER_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What is sent.

    Attributes:
        path: what follows the base URL, or, `at_root`, the server's URL without a trailing `/v1`.
        body: JSON, or None for a GET.
        accept: media types of the answer.
    """

    path: str
    body: bytes | None = None
    at_root: bool = False
    accept: str = JSON

    @property
    def method(self) -> Literal["GET", "POST"]:
        return "GET" if self.body is None else "POST"


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What came back, whole.

    Attributes:
        headers: names in lower case.
        url: what was asked, as `converse` knows it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    url: str = ""

    @property
    def media_type(self) -> str:
        """Of the body, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def url_of(base_url: str, request: HttpRequest) -> str:
    """Where a request goes. `base_url` has no trailing slash; its `/v1`, if any, is not part of the root."""
    return (base_url.removesuffix("/v1") if request.at_root else base_url) + request.path


def checked_headers(headers: Mapping[str, str], param: str) -> dict[str, str]:
    """With names in lower case, so that each is sent once. The message shows no value: it may be a secret. Raises
    InvalidRequest."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise InvalidRequest(f"{name!r} is no name of an HTTP header", param=param)
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            rule = "it must be a text of printable ASCII characters, without spaces or line ends around it"
            raise InvalidRequest(f"the value of the HTTP header {name!r} cannot be sent; {rule}", param=param)
    return {name.lower(): value for name, value in headers.items()}


def request_headers(accept: str, has_body: bool, own: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request, with the caller's own, names in lower case. Raises InvalidRequest for what is none."""
    # Vectors do not shrink: decompressing them would be the client's dearest step.
    headers = {"accept": accept, "accept-encoding": "identity"}
    if has_body:
        headers["content-type"] = JSON
    return {**headers, **checked_headers(own, "headers")}


def json_of(reply: HttpReply) -> Any:
    """The reply's JSON. Raises BadAnswer."""
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        shown = reply.body[:_SHOWN].decode("utf-8", "replace")
        raise BadAnswer(f"the server's answer is not JSON ({error}): {shown!r}") from error


# The first index in one of the fields that hold inputs: `input[3]`, `documents[3].text`, FastAPI's `body.input.[3]`.
_INDEX = re.compile(r"(?:body\.)?(?:inputs?|texts|documents|text_[12])\b.*?\[(\d+)\]")


def status_error(reply: HttpReply, url: str) -> StatusError:
    """The error that a reply of status 300 or more stands for, with the server's own words.

    Reads the error bodies of OpenAI, Infinity, vLLM (`error.message`), TEI and Ollama (`error`), Cohere (`message`) and
    FastAPI (`detail`).
    """
    detail, code, param = _explained(reply.body)
    if not detail:
        detail = reply.body[:_SHOWN].decode("utf-8", "replace").strip() or "no explanation"
    if 300 <= reply.status < 400 and (target := reply.headers.get("location")):
        detail = f"redirected to {target}; use that as the base URL"
    hint = "; the client's argument for it is api_key" if reply.status == 401 else ""
    place = _INDEX.match(param) if param else None
    return StatusError(
        f"HTTP {reply.status} from {url}: {detail}{hint}",
        reply.status,
        detail=detail,
        body=reply.body[:_KEPT],
        code=code,
        item=int(place[1]) if place else None,
        param=param,
        retry_after_s=_retry_after(reply.headers),
    )


def _explained(body: bytes) -> tuple[str, str | None, str | None]:
    """Message, code and guilty field, as far as they are there."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", None, None
    if not isinstance(content, dict):
        return (content if isinstance(content, str) else ""), None, None
    error = content.get("error")
    if isinstance(error, dict):
        code, param = error.get("code"), error.get("param")
        return (
            str(error.get("message") or ""),
            code if isinstance(code, str) else None,
            param if isinstance(param, str) else None,
        )
    for words in (error, content.get("message"), content.get("detail")):
        if isinstance(words, str) and words:
            return words, None, None
    details = content.get("detail")
    if isinstance(details, list) and details and isinstance(details[0], dict):
        # FastAPI: [{"loc": ["body", "input", 3], "msg": ...}]
        places = details[0].get("loc")
        named = places if isinstance(places, list) else []
        param = ".".join(f"[{one}]" if isinstance(one, int) else str(one) for one in named)
        return f"{param}: {details[0].get('msg', '')}", None, param
    return "", None, None


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `Retry-After` in seconds or as a date (RFC 9110), or from `retry-after-ms`."""
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after", "")
    if (seconds := _seconds(value)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, OverflowError, OSError):  # no date, or one that this system cannot count
        return None


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return None if math.isnan(number) else max(0.0, number)
