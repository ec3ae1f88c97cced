"""What a client sent as an image or audio → the file's bytes: http(s) URL, data URI, bare base64, or bytes.

Looks at no media type: the decoders go by content. The dialects and the library call `load_all` on the event loop;
large base64 is decoded in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media import Kind

if TYPE_CHECKING:
    from lemni.media.fetch import Fetcher

_LARGE = 1 << 18  # characters that are decoded on the event loop at most
_DOWNLOADS_PER_REQUEST = 8  # so that a long list leaves room for others
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]{0,30}):", re.IGNORECASE | re.ASCII)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class Source:
    """An image or a sound that belongs to item number `item` of a request, which the client calls `name`."""

    kind: Kind
    data: str | bytes
    item: int
    name: str


async def load_all(sources: Sequence[Source], settings: MediaSettings, fetcher: Fetcher) -> list[bytes]:
    """The files of one request, in order; URLs side by side.

    Raises:
        InvalidRequest: as `load`, with `item`; or all together are over `max_request_media_mib`. What is being
            fetched besides is given up.
    """
    turns = asyncio.Semaphore(_DOWNLOADS_PER_REQUEST)
    room = int(settings.max_request_media_mib * 2**20)

    async def one(source: Source) -> bytes:
        nonlocal room
        try:
            async with turns:
                data = await load(source.data, source.kind, settings, fetcher)
        except InvalidRequest as error:
            raise InvalidRequest(f"{source.name}: {error.message}", item=source.item, param=source.name) from error
        room -= len(data)
        if room < 0:
            raise InvalidRequest(
                f"{source.name}: the images and audio of this request are larger than "
                f"{settings.max_request_media_mib:g} MiB together",
                item=source.item,
                param=source.name,
            )
        return data

    tasks = [asyncio.create_task(one(source)) for source in sources]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def load(source: str | bytes, kind: Kind, settings: MediaSettings, fetcher: Fetcher) -> bytes:
    """The file that one source stands for.

    Raises:
        InvalidRequest: it is none of the four forms, over `max_media_mib`, or cannot be fetched. `item` is not set.
    """
    if isinstance(source, str) and _scheme(source) in ("http", "https"):
        return await fetcher.fetch(source.strip(), kind)
    if len(source) > _LARGE and isinstance(source, str):
        return await asyncio.to_thread(decode, source, kind, settings)
    return decode(source, kind, settings)


def decode(source: str | bytes, kind: Kind, settings: MediaSettings) -> bytes:
    """The bytes of a data URI (RFC 2397), of base64 (RFC 4648, either alphabet, padding optional), or as given.

    Raises:
        InvalidRequest: it is none of these, is empty, or is over `max_media_mib`. `item` is not set.
    """
    limit = int(settings.max_media_mib * 2**20)
    too_large = InvalidRequest(f"the {kind} is larger than {settings.max_media_mib:g} MiB")
    if len(source) > 4 * limit + 1024:  # percent-encoding takes three characters for a byte
        raise too_large
    if isinstance(source, bytes):
        data = source
    elif (scheme := _scheme(source)) == "data":
        data = _data_uri(source, kind)
    elif scheme is not None:
        raise InvalidRequest(f"the {kind} is a URL of scheme {scheme!r}; it must be http, https or data")
    else:
        data = _base64(source, f"the {kind} is neither an http(s) URL nor a data URI nor base64")
    if not data:
        raise InvalidRequest(f"the {kind} is empty")
    if len(data) > limit:
        raise too_large
    return data


def _scheme(source: str) -> str | None:
    # Base64 has no colon.
    found = _SCHEME.match(source)
    return found[1].lower() if found else None


def _data_uri(uri: str, kind: Kind) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma:
        raise InvalidRequest(f"the {kind} is a data URI without a comma before its data")
    if "base64" in (parameter.strip().lower() for parameter in head.split(";")[1:]):
        text = unquote_to_bytes(body).decode("latin-1") if "%" in body else body
        return _base64(text, f"the {kind} is a data URI whose data is not base64")
    return unquote_to_bytes(body)


def _base64(text: str, otherwise: str) -> bytes:
    try:
        digits = text.encode("ascii").translate(_URL_SAFE, delete=b" \t\r\n").rstrip(b"=")
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise InvalidRequest(otherwise) from error
