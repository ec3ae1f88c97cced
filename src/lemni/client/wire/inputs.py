"""Inputs as the JSON of requests: texts, token ids, images, sounds, and texts with images."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence as Seq
from typing import Any

from lemni.errors import InvalidRequest
from lemni.types import Audio, Image, Item, Mixed

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
    if not lone and (isinstance(items, bytes | bytearray | dict) or not hasattr(items, "__iter__")):
        raise InvalidRequest(f"{name} is of type {type(items).__name__}; it must be a text or a list", param=name)
    found: list[Any] = [items] if lone else list(items)
    for place, item in enumerate(found):
        if not (type(item) is str or isinstance(item, str | Image | Audio | Mixed) or _is_ids(item)):
            where = name if lone else f"{name}[{place}]"
            raise InvalidRequest(
                f"{where} is of type {type(item).__name__}; it must be a text, token ids, a lemni.Image, "
                "a lemni.Audio or a lemni.Mixed",
                item=place,
                param=where,
            )
    return found, lone


def _is_ids(item: Any) -> bool:
    return isinstance(item, list | tuple) and bool(item) and all(type(one) is int for one in item)


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
        return len(item)
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
