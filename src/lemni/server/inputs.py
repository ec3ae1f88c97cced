"""Fields that many dialects share, into the engine's words: texts and token ids, truncation, sides of a search.

Null means absent, as clients send it. Errors name the field in the client's own words.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ValidationError, WithJsonSchema

from lemni.errors import InvalidRequest, InvalidTokenIds, TooManyItems
from lemni.server.body import kind_of
from lemni.types import InputType, ModelCard, Truncate

_Body = TypeVar("_Body", bound=BaseModel)

_SHAPES = "a string, a list of strings, a list of token ids or a list of lists of token ids"
_TRUNCATE: dict[str, Truncate] = {
    "right": "right",
    "end": "right",
    "left": "left",
    "start": "left",
    "error": "error",
    "none": "error",
    "chunk": "chunk",
}
# Words of all dialects for the sides of a search.
_SIDES: dict[str, InputType] = {
    **dict.fromkeys(("query", "search_query", "retrieval.query", "nl2code.query", "web_search_query"), "query"),
    **dict.fromkeys(("document", "passage", "search_document", "corpus", "retrieval.passage"), "document"),
}


def checked(schema: type[_Body], body: Mapping[str, Any], required: tuple[str, ...] = ()) -> _Body:
    """The body as its schema. Raises InvalidRequest that names the field."""
    for name in required:
        if body.get(name) is None:
            raise InvalidRequest(f"{name} is missing", param=name)
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        # Of a union pydantic also names the member: "literal['float32', ...]".
        places = [str(part) for part in first["loc"] if isinstance(part, int) or "[" not in str(part)]
        name = ".".join(places) or "the body"
        given = first["input"]
        shown = repr(given) if isinstance(given, str | int | float) else kind_of(given)
        must = (
            first["msg"]
            .replace("a valid integer", "an integer")
            .replace("Input should", "must")
            .replace("String should", "must")
            .replace("valid ", "")
        )
        raise InvalidRequest(f"{name} is {shown[:100]}: it {must}", param=name.partition(".")[0]) from None


def texts_of(value: Any, max_items: int, field: str) -> list[str]:
    """A list of strings, not empty. Raises InvalidRequest or TooManyItems."""
    if not isinstance(value, list):
        raise InvalidRequest(f"{field} is {kind_of(value)}; it must be a list of strings", param=field)
    check_count(value, max_items, field)
    for index, text in enumerate(value):
        if type(text) is not str:
            raise _wrong(field, index, f"{field}[{index}] is {kind_of(text)}; it must be a string")
    return value


def check_count(value: list[Any], max_items: int, field: str) -> None:
    """Raises InvalidRequest for an empty list, TooManyItems for one over the server's limit."""
    if not value:
        raise InvalidRequest(f"{field} is an empty list; it must hold at least one item", param=field)
    if len(value) > max_items:
        raise TooManyItems(
            f"{field} has {len(value)} items; this server takes at most {max_items} in one request: send it in parts",
            param=field,
        )


def items_of(value: Any, max_items: int, field: str = "input") -> tuple[list[str | list[int]], bool]:
    """A text, texts, token ids, or lists of token ids (mixed with texts if need be), in order; and whether the client
    sent one item by itself. Raises InvalidRequest, TooManyItems or InvalidTokenIds."""
    if isinstance(value, str):
        return [value], True
    if not isinstance(value, list):
        raise InvalidRequest(f"{field} is {kind_of(value)}; it must be {_SHAPES}", param=field)
    if not value:
        raise InvalidRequest(f"{field} is an empty list; it must hold at least one text", param=field)
    # A list that begins with an integer is one item; too many items are refused before each is looked at.
    if type(value[0]) is not int:
        check_count(value, max_items, field)
    kinds = set(map(type, value))
    if kinds == {int}:
        return [value], True
    if int in kinds and type(value[0]) is int:
        wrong = next(i for i, token in enumerate(value) if type(token) is not int)
        begins = "but the list begins with token ids, which are integers"
        raise _wrong(field, wrong, f"{field}[{wrong}] is {kind_of(value[wrong])}, {begins}")
    if kinds != {str}:
        for index, item in enumerate(value):
            _check(field, index, item)
    return value, False


def _check(field: str, index: int, item: Any) -> None:
    if type(item) is str:
        return
    if type(item) is not list:
        raise _wrong(field, index, f"{field}[{index}] is {kind_of(item)}; it must be a string or a list of token ids")
    if not item:
        raise _wrong(field, index, f"{field}[{index}] is an empty list; it must hold at least one token id")
    if set(map(type, item)) != {int}:
        wrong = next(i for i, token in enumerate(item) if type(token) is not int)
        raise InvalidTokenIds(
            f"{field}[{index}][{wrong}] is {kind_of(item[wrong])}; token ids are integers",
            item=index,
            param=f"{field}[{index}]",
        )


def _wrong(field: str, index: int, message: str) -> InvalidRequest:
    return InvalidRequest(message, item=index, param=f"{field}[{index}]")


def truncation(value: Any) -> Any:
    """`truncate` in all its spellings: true, false, NONE, START, END, left, right, error, chunk. For a validator:
    what is none of them comes back as it is."""
    if isinstance(value, bool):
        return "right" if value else "error"
    return _TRUNCATE.get(value.lower(), value) if isinstance(value, str) else value


def lower(value: Any) -> Any:
    """A string in lower case; anything else as it is. For a validator."""
    return value.lower() if isinstance(value, str) else value


TruncateField = Annotated[
    Truncate | None,
    BeforeValidator(truncation),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "enum": sorted(_TRUNCATE)}, {"type": "null"}]}),
]
"""The type of a body's field for truncation."""

EncodingField = Annotated[Literal["float", "base64"] | None, BeforeValidator(lower)]
"""The type of a body's `encoding_format`."""


def side_of(
    word: str | None, card: ModelCard, field: str = "input_type", neutral: Collection[str] = ()
) -> tuple[str | None, InputType | None]:
    """What `input_type` or `task` asks for in a dialect's words: a prompt's name, the side of a search, or both.

    Words for sides are known to every model; others must be names of the model's prompts, or among `neutral`: words of
    the dialect that ask for nothing where the model has no prompt for them. A prompt named "query" is only half of what
    the side means to a model that also expands its queries (ColBERT).

    Raises:
        InvalidRequest: the word is none of these.
    """
    if word is None:
        return None, None
    lower = word.lower()
    own = {name.lower(): name for name in card.prompts}
    if lower in own:
        return own[lower], _SIDES.get(lower)
    if lower in _SIDES:
        return None, _SIDES[lower]
    if lower in neutral:
        return None, None
    known = ", ".join(dict.fromkeys(("query", "document", *neutral, *card.prompts)))
    raise InvalidRequest(f"{field} is {word[:100]!r}; {card.name} knows: {known}", param=field)
