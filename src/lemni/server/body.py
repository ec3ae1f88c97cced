"""A request's body, JSON or a form with files: read within the size limit and parsed. Every dialect begins here."""

from __future__ import annotations

import gc
import json
import re
from typing import Any

import orjson
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from lemni.errors import InvalidRequest, PayloadTooLarge, RequestCancelled, UnsupportedMediaType

_MIB = 1 << 20
_SCALAR = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?|true|false|null")
_TEXT_FIELDS = frozenset({"input", "inputs", "text", "texts", "query", "documents", "prompt", "model"})
_LIST_FIELDS = frozenset({"texts", "documents", "passages"})
_LONE = re.compile("[\ud800-\udfff]")


async def read_body(http: Request, max_mib: float) -> dict[str, Any]:
    """The JSON object that the client sent, or the fields of its form: texts, and files as bytes; a field that comes
    several times is a list. The limit counts while reading, so memory stays bounded.

    Raises:
        UnsupportedMediaType: the headers announce something else than JSON in UTF-8 or a form.
        PayloadTooLarge: more than `max_mib`, announced or sent.
        InvalidRequest: not UTF-8, not JSON, or not an object.
        RequestCancelled: the client hung up while sending.
    """
    if http.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await _read_form(http, max_mib)
    _check_headers(http)
    data = parse(await _read(http, max_mib))
    if not isinstance(data, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {kind_of(data)}")
    return data


def parse(body: bytes) -> Any:
    """JSON, or an InvalidRequest that says where it goes wrong."""
    try:
        return _loads(body)
    except orjson.JSONDecodeError as error:
        if not body.strip():
            raise InvalidRequest("the body is empty; it must be a JSON object") from None
        try:
            body.decode()
        except UnicodeDecodeError as wrong:
            raise InvalidRequest(f"the body is not valid UTF-8: byte {wrong.start} is wrong") from None
        if "surrogate" in error.msg and (place := _surrogate(body)):
            item = int(place[6:-1]) if re.fullmatch(r"input\[\d+\]", place) else None
            raise InvalidRequest(
                f"{place} holds a lone surrogate, which is no character", item=item, param=place
            ) from None
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"the body is not valid JSON: {error.msg} at {where}") from None


def _loads(body: bytes) -> Any:
    # Each list in the body is an object to the garbage collector, which would go over all of them again and again.
    if len(body) < _MIB or not gc.isenabled():
        return orjson.loads(body)
    gc.disable()
    try:
        return orjson.loads(body)
    finally:
        gc.enable()


def _surrogate(body: bytes) -> str | None:
    """Where the object in `body` holds half of a surrogate pair: a field, or an entry of a field's list."""
    if len(body) > _MIB:  # the slow parser must not hold everybody up
        return None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for name, value in data.items() if isinstance(data, dict) else ():
        if isinstance(value, str) and _LONE.search(value):
            return str(name)
        for index, entry in enumerate(value) if isinstance(value, list) else ():
            if isinstance(entry, str) and _LONE.search(entry):
                return f"{name}[{index}]"
    return None


def kind_of(value: Any) -> str:
    """A JSON value's type in JSON's words, for messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"


def _check_headers(http: Request) -> None:
    content_type = http.headers.get("content-type")
    if content_type is not None:  # simple clients send none
        media_type, _, parameters = (part.strip().lower() for part in content_type.partition(";"))
        if media_type != "application/json" and not media_type.endswith("+json"):
            raise UnsupportedMediaType(
                f"Content-Type is {_shown(content_type)}; send JSON with Content-Type: application/json"
            )
        if "charset=" in parameters and "utf-8" not in parameters and "utf8" not in parameters:
            raise UnsupportedMediaType(f"Content-Type is {_shown(content_type)}; JSON is sent in UTF-8")
    encoding = http.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType(f"Content-Encoding is {_shown(encoding)}; send the body uncompressed")


async def _read_form(http: Request, max_mib: float) -> dict[str, Any]:
    body = await _read(http, max_mib)

    async def again() -> Any:
        yield body

    fields: dict[str, list[Any]] = {}
    try:
        parser = MultiPartParser(http.headers, again(), max_part_size=len(body) + 1)
        parser.spool_max_size = len(body) + 1  # what is in memory already needs no file
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InvalidRequest(f"the form cannot be read: {getattr(error, 'message', error)}") from None
    for name, value in form.multi_items():
        # The form's own charset decides, and some of Python's give what is no text.
        if isinstance(value, str) and _LONE.search(value):
            raise InvalidRequest(f"{name} holds a lone surrogate, which is no character", param=name)
        fields.setdefault(name, []).append(_option(name, value) if isinstance(value, str) else await value.read())
    await form.close()
    return {
        name: values[0] if len(values) == 1 and name not in _LIST_FIELDS else values for name, values in fields.items()
    }


def _option(name: str, text: str) -> Any:
    """A form knows only texts: what is written as a number, true, false or null is one, except where texts belong."""
    return text if name in _TEXT_FIELDS or not _SCALAR.fullmatch(text) else orjson.loads(text)


async def _read(http: Request, max_mib: float) -> bytes:
    limit = int(max_mib * _MIB)
    announced = http.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise PayloadTooLarge(f"the body has {announced} bytes; this server takes at most {limit} (max_body_mib)")
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in http.stream():
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(f"the body is over this server's limit of {limit} bytes (max_body_mib)")
            chunks.append(chunk)
    except ClientDisconnect:
        raise RequestCancelled("the client went away") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _shown(header: str) -> str:
    return repr(header if len(header) <= 100 else f"{header[:100]}...")
