"""Inputs that may be more than text, as dialects write them: {"text"}, {"image"}, {"type": "image_url"}, lists.

A dialect parses them into *raw* items at once; `Call.items` then fetches what is behind URLs, all side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeAlias

from lemni.config import MediaSettings
from lemni.errors import InvalidRequest
from lemni.media import Kind
from lemni.media.sources import Source, load_all
from lemni.server.body import kind_of
from lemni.server.inputs import check_count, items_of
from lemni.types import Audio, Image, Item, Mixed, Modality, ModelCard

if TYPE_CHECKING:
    from lemni.media.fetch import Fetcher


@dataclass(frozen=True, slots=True)
class RawImage:
    """A URL, a data URI, base64, or a file's bytes."""

    source: str | bytes


@dataclass(frozen=True, slots=True)
class RawAudio:
    """A URL, a data URI, base64, or a file's bytes."""

    source: str | bytes


@dataclass(frozen=True, slots=True)
class RawMixed:
    """Parts of one input, in order."""

    parts: tuple[str | RawImage, ...]


Raw: TypeAlias = str | list[int] | RawImage | RawAudio | RawMixed
"""An item as the client sent it."""

# Keys (or values of "type") of an object that holds an image or a sound, and what is inside.
_IMAGES = ("image", "image_url", "image_base64", "input_image")
_AUDIO = ("audio", "audio_url", "input_audio", "audio_base64")
_DEEPEST = 8  # lists in lists: more than any client sends, and far from what Python's stack takes


def content_of(value: Any, name: str, depth: int = 0) -> Raw:
    """One input: a string, an object with a text, an image or a sound, or a list of such parts.

    Raises InvalidRequest; `name` is the input's in the client's words. `depth` counts the lists around it.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return RawImage(value)
    if isinstance(value, list):
        return _mixed(value, name, depth)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} is {kind_of(value)}; it must be a string, or an object with a text or an image")
    if isinstance(value.get("content"), list):
        return _mixed(value["content"], f"{name}.content", depth)
    if isinstance(value.get("content"), str):
        return str(value["content"])
    for key in _IMAGES:
        if value.get(key) is not None:
            return RawImage(_source(value[key], f"{name}.{key}"))
    for key in _AUDIO:
        if value.get(key) is not None:
            return RawAudio(_source(value[key], f"{name}.{key}"))
    if isinstance(value.get("text"), str):
        return str(value["text"])
    known = ", ".join(("text", *_IMAGES[:3], *_AUDIO[:2]))
    raise InvalidRequest(f"{name} is an object without any of: {known}")


def contents_of(
    values: Seq[Any], field: str, read: Callable[[Any, str], Raw] = content_of, *, lone: bool = False
) -> list[Raw]:
    """Each of several inputs; `read` makes one from its value and its name: "input[3]", or `field` if it is `lone`.

    Raises InvalidRequest that names the item.
    """
    found: list[Raw] = []
    for index, value in enumerate(values):
        name = field if lone else f"{field}[{index}]"
        try:
            found.append(read(value, name))
        except InvalidRequest as error:
            raise InvalidRequest(error.message, item=index, param=name) from None
    return found


def inputs_of(value: Any, max_items: int, more: type | UnionType) -> tuple[list[Raw], bool]:
    """An `input` of texts, token ids, and what is of the types `more`: images, sounds or texts in objects or files; and
    whether one came by itself. Raises InvalidRequest, TooManyItems or InvalidTokenIds."""
    lone = isinstance(value, more)
    values = [value] if lone else value
    if not isinstance(values, list) or not any(isinstance(one, more) for one in values):
        items, lone = items_of(value, max_items)
        return list(items), lone
    check_count(values, max_items, "input")
    return contents_of(values, "input", lone=lone), lone


def _mixed(parts: list[Any], name: str, depth: int) -> Raw:
    if depth == _DEEPEST:
        raise InvalidRequest(f"{name} is nested too deep: at most {_DEEPEST} lists")
    found: list[Any] = [content_of(part, f"{name}[{place}]", depth + 1) for place, part in enumerate(parts)]
    if not found:
        raise InvalidRequest(f"{name} is an empty list; it must hold at least one part")
    if len(found) == 1:
        single: Raw = found[0]
        return single
    if wrong := [part for part in found if not isinstance(part, str | RawImage)]:
        raise InvalidRequest(f"{name}: {type(wrong[0]).__name__} cannot be one of several parts; texts and images can")
    return "\n".join(found) if all(isinstance(part, str) for part in found) else RawMixed(tuple(found))


def _source(value: Any, name: str) -> str | bytes:
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("url", "data", "base64") if value.get(key) is not None), None)
    if not isinstance(value, str | bytes):
        raise InvalidRequest(f"{name} must be a URL, a data URI or base64")
    return value


def modality_of(raw: Seq[Raw]) -> Modality:
    """What the items are, if any is more than text."""
    kinds = {type(part) for item in raw for part in (item.parts if isinstance(item, RawMixed) else (item,))}
    return "image" if RawImage in kinds else "audio" if RawAudio in kinds else "text"


def check_modalities(card: ModelCard, raw: Seq[Raw], field: str, *, lone: bool) -> None:
    """Refuse images and sounds that the model does not take: nothing is fetched for nothing."""
    for place, item in enumerate(raw):
        for part in item.parts if isinstance(item, RawMixed) else (item,):
            kind = "image" if isinstance(part, RawImage) else "audio" if isinstance(part, RawAudio) else "text"
            if kind not in card.modalities:
                name = field if lone else f"{field}[{place}]"
                takes = " and ".join(card.modalities)
                raise InvalidRequest(f"{name}: {card.name} takes no {kind}; it takes {takes}", item=place, param=name)


async def fetched(
    raw: Seq[Raw], field: str, settings: MediaSettings, fetcher: Fetcher, *, lone: bool = False
) -> list[Item]:
    """The items, with the bytes of their images and sounds. Raises InvalidRequest that names the guilty one."""
    sources: list[Source] = []
    for place, item in enumerate(raw):
        for part in item.parts if isinstance(item, RawMixed) else (item,):
            if isinstance(part, RawImage | RawAudio):
                kind: Kind = "image" if isinstance(part, RawImage) else "audio"
                sources.append(Source(kind, part.source, place, field if lone else f"{field}[{place}]"))
    files = iter(await load_all(sources, settings, fetcher)) if sources else iter(())

    def made(part: str | RawImage) -> str | Image:
        return Image(next(files)) if isinstance(part, RawImage) else part

    items: list[Item] = []
    for item in raw:
        if isinstance(item, RawMixed):
            items.append(Mixed(tuple(made(part) for part in item.parts)))
        elif isinstance(item, RawImage):
            items.append(Image(next(files)))
        elif isinstance(item, RawAudio):
            items.append(Audio(next(files)))
        else:
            items.append(item)
    return items
