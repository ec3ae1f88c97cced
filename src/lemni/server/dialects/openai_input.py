"""The `input` of the OpenAI dialect: text, texts, token ids, or lists of token ids. Errors name the item."""

from __future__ import annotations

from typing import Any

from lemni.errors import InvalidRequest, InvalidTokenIds, TooManyItems
from lemni.server.body import kind_of
from lemni.types import Item

_SHAPES = "a string, a list of strings, a list of token ids or a list of lists of token ids"


def items_of(value: Any, max_items: int) -> list[Item]:
    """The items in order. Texts and lists of token ids may be mixed.

    Raises InvalidRequest, TooManyItems or InvalidTokenIds.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InvalidRequest(f"input is {kind_of(value)}; it must be {_SHAPES}", param="input")
    if not value:
        raise InvalidRequest("input is an empty list; it must hold at least one text", param="input")
    # A list that begins with an integer is one item; too many items are refused before each is looked at.
    if len(value) > max_items and type(value[0]) is not int:
        raise TooManyItems(
            f"input has {len(value)} items; this server takes at most {max_items} in one request: send it in parts",
            param="input",
        )
    kinds = set(map(type, value))
    if kinds == {int}:
        return [value]
    if int in kinds and type(value[0]) is int:
        wrong = next(i for i, token in enumerate(value) if type(token) is not int)
        raise _wrong(
            wrong, f"input[{wrong}] is {kind_of(value[wrong])}, but the list begins with token ids, which are integers"
        )
    if kinds != {str}:
        for index, item in enumerate(value):
            _check(index, item)
    return value


def _check(index: int, item: Any) -> None:
    if type(item) is str:
        return
    if type(item) is not list:
        raise _wrong(index, f"input[{index}] is {kind_of(item)}; it must be a string or a list of token ids")
    if not item:
        raise _wrong(index, f"input[{index}] is an empty list; it must hold at least one token id")
    if set(map(type, item)) != {int}:
        wrong = next(i for i, token in enumerate(item) if type(token) is not int)
        raise InvalidTokenIds(
            f"input[{index}][{wrong}] is {kind_of(item[wrong])}; token ids are integers",
            item=index,
            param=f"input[{index}]",
        )


def _wrong(index: int, message: str) -> InvalidRequest:
    return InvalidRequest(message, item=index, param=f"input[{index}]")
