"""Texts into tokens and back, for people to look at: every token with its text and where it stands.

Slow for large requests, so callers use threads. Offsets count bytes of UTF-8, as TEI's do.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

import numpy as np

from lemni.errors import InvalidRequest, InvalidTokenIds, TaskNotSupported
from lemni.server.body import kind_of
from lemni.tasks.model import LoadedModel
from lemni.tasks.tokenizer import Tokenizer

MOST_CHARACTERS = 1 << 20
"""Of all texts that are tokenised at once: what people look at, and some hundred megabytes of tokens already."""


class Token(NamedTuple):
    """`start` and `stop` are None for a special token, which stands for nothing in the text."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def tokenizer_of(model: LoadedModel) -> Tokenizer:
    """Raises TaskNotSupported for a model that takes no texts."""
    if model.tokenizer is None:
        raise TaskNotSupported(f"{model.card.name} has no tokenizer: it takes no texts", param="model")
    return model.tokenizer


def check_size(texts: Seq[str]) -> None:
    """Raises InvalidRequest for more than `MOST_CHARACTERS`."""
    if (characters := sum(map(len, texts))) > MOST_CHARACTERS:
        raise InvalidRequest(
            f"the texts have {characters} characters together; at most {MOST_CHARACTERS} are tokenised"
        )


def tokenized(
    model: LoadedModel, texts: Seq[str], special: bool = True, prompt_name: str | None = None
) -> list[list[Token]]:
    """The tokens of each text, never cut; the prompt counts as a part of the text.

    Raises:
        InvalidRequest: over `MOST_CHARACTERS`, or `prompt_name` is no prompt of the model's.
        TaskNotSupported: the model takes no texts.
    """
    prompts = model.card.prompts
    if prompt_name is not None and prompt_name not in prompts:
        known = ", ".join(f'"{name}"' for name in prompts)
        raise InvalidRequest(
            f"prompt_name {prompt_name[:100]!r} is no prompt of {model.card.name}. Available prompts: [{known}]",
            param="prompt_name",
        )
    check_size(texts)
    whole = [prompts[prompt_name] + text for text in texts] if prompt_name is not None else list(texts)
    encodings = tokenizer_of(model).library.encode_batch(whole, add_special_tokens=special)
    return [_tokens(text, encoding) for text, encoding in zip(whole, encodings, strict=True)]


def decoded(model: LoadedModel, ids: Seq[Seq[int]], skip_special: bool = True) -> list[str]:
    """The text of each list of token ids. Raises TaskNotSupported; InvalidTokenIds for ids outside the vocabulary."""
    tokenizer = tokenizer_of(model)
    for index, one in enumerate(ids):
        wrong = next((token for token in one if not 0 <= token < tokenizer.vocabulary), None)
        if wrong is not None:
            raise InvalidTokenIds(
                f"ids[{index}] holds token id {wrong}, but this model's vocabulary is 0..{tokenizer.vocabulary - 1}",
                item=index,
                param=f"ids[{index}]",
            )
    texts: list[str] = tokenizer.library.decode_batch([list(one) for one in ids], skip_special_tokens=skip_special)
    return texts


def ids_of(value: Any) -> list[list[int]]:
    """A list of token ids, or a list of those, as a list of lists. Raises InvalidRequest or InvalidTokenIds."""
    if not isinstance(value, list):
        raise InvalidRequest(
            f"ids is {kind_of(value)}; it must be a list of token ids, or a list of those", param="ids"
        )
    lists = [value] if all(type(token) is int for token in value) else value
    for index, one in enumerate(lists):
        if not isinstance(one, list) or not all(type(token) is int for token in one):
            raise InvalidTokenIds(f"ids[{index}] must be a list of token ids, like all of ids", item=index, param="ids")
    return lists


def _tokens(text: str, encoding: Any) -> list[Token]:
    data = text.encode()
    bytes_before = _bytes_before(text, data)
    found = []
    parts = zip(encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
    for identity, token, (start, stop), special in parts:
        if special:
            found.append(Token(identity, token, True, None, None))
        else:
            first, last = int(bytes_before[start]), int(bytes_before[stop])
            found.append(Token(identity, data[first:last].decode(), False, first, last))
    return found


def _bytes_before(text: str, data: bytes) -> Any:
    """[characters + 1]: bytes of UTF-8 before each character, and all of them."""
    if len(data) == len(text):
        return range(len(text) + 1)
    [starts] = np.nonzero((np.frombuffer(data, np.uint8) & 0xC0) != 0x80)
    return np.append(starts, len(data))
