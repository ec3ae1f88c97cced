"""Inputs as the JSON of requests: texts, token ids, images, sounds, and texts with images."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import orjson

from lemni.errors import InvalidRequest
from lemni.types import Audio, Image, Item, Mixed, Pair

# The first bytes of files, and their media types: servers look into the file, proxies and people at the type.
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
)


def listed(items: Any, name: str = "texts") -> tuple[list[Item], bool]:
    """The items as a list, and whether there was a lone one. Raises InvalidRequest that names what is none."""
    lone = isinstance(items, str | Image | Audio | Mixed)
    if not lone and (isinstance(items, _NO_LISTS) or not hasattr(items, "__iter__") or getattr(items, "ndim", 1) == 0):
        raise InvalidRequest(f"{name} is of type {type(items).__name__}; it must be a text or a list", param=name)
    found: list[Any] = [items] if lone else list(items)
    for place, item in enumerate(found):
        if type(item) is not str or not item.isascii():
            found[place] = checked(item, name if lone else f"{name}[{place}]", place)
    return found, lone


_NO_LISTS = (bytes, bytearray, dict, set, frozenset)  # a set has no order that vectors could have


def checked(item: Any, where: str, place: int | None = None) -> Any:
    """An item as it can be sent; token ids as a list. Raises InvalidRequest that names what is none."""
    if isinstance(item, str):
        check_text(item, where, place)
    elif isinstance(item, Mixed):
        for part in item.parts:
            if isinstance(part, str):
                check_text(part, where, place)
    elif not isinstance(item, Image | Audio):
        return _ids(item, where, place)
    return item


def check_text(text: str, where: str, place: int | None = None) -> None:
    """Raises InvalidRequest for a text that is not valid Unicode, and so cannot be JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{where} is no valid Unicode: half of a surrogate pair, at character {error.start}"
        raise InvalidRequest(message, item=place, param=where) from error


def _ids(item: Any, where: str, place: int | None) -> list[int]:
    if isinstance(item, list) and item and set(map(type, item)) == {int}:
        return item
    whole = isinstance(item, list | tuple | np.ndarray) and np.ndim(item[:1]) == 1 and len(item) > 0
    if whole and all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in item):
        return [int(one) for one in item]
    shape = " of something else" if isinstance(item, list | tuple | np.ndarray) else ""
    raise InvalidRequest(
        f"{where} is of type {type(item).__name__}{shape}; it must be a text, token ids, a lemni.Image, a lemni.Audio "
        "or a lemni.Mixed",
        item=place,
        param=where,
    )


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """The body of a request. Raises InvalidRequest for what JSON cannot hold."""
    try:
        return orjson.dumps(body)
    except TypeError as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error


def input_of(item: Item) -> Any:
    """One item as the OpenAI dialect's `input` takes it."""
    if isinstance(item, Image):
        return {"image": data_uri(item.data)}
    if isinstance(item, Audio):
        return {"audio": data_uri(item.data)}
    if isinstance(item, Mixed):
        return {"content": [input_of(part) if isinstance(part, Image) else {"text": part} for part in item.parts]}
    return item


def size_of(item: Item) -> int:
    """About the bytes that the item takes in JSON."""
    if isinstance(item, str):
        return len(item) if item.isascii() else len(item.encode())
    if isinstance(item, Pair):
        return size_of(item.first) + size_of(item.second)
    if isinstance(item, Image | Audio):
        return len(item.data) * 4 // 3
    if isinstance(item, Mixed):
        return sum(map(size_of, item.parts))
    return 6 * len(item)


def data_uri(data: bytes) -> str:
    """A file as `data:image/jpeg;base64,...` (RFC 2397)."""
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), "application/octet-stream")
    if kind == "audio/wav" and data[8:12] == b"WEBP":
        kind = "image/webp"
    return f"data:{kind};base64,{b64encode(data).decode('ascii')}"


def split(sizes: Seq[int], most_items: int, most_bytes: int) -> list[range]:
    """Consecutive parts of at most `most_items` items and about `most_bytes`; an item alone may be larger."""
    parts: list[range] = []
    start = total = 0
    for place, size in enumerate(sizes):
        if place > start and (place - start == most_items or total + size > most_bytes):
            parts.append(range(start, place))
            start, total = place, 0
        total += size
    if start < len(sizes):
        parts.append(range(start, len(sizes)))
    return parts
