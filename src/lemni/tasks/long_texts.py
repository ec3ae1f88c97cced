"""The part of a long text that decides its tokens after truncation, so that megabytes are not tokenised for a few.

A part ends where a word ends, as tokenizers do not merge across it. Tokens near the cut may still differ from those of
the whole text, so a part is only enough with `MARGIN` tokens to spare. Called by `lemni.tasks.tokenizer`.
"""

from __future__ import annotations

import re
from typing import Any

from lemni.types import TruncationSide

MARGIN = 256
"""Tokens that a part must have beyond the maximum length. Covers a WordPiece word (up to 100) that is cut inside."""

GROWTH = 4
_CHARACTERS_PER_TOKEN = 16
_WHITESPACE = " \t\n\r"
# How far to look for a word's end; a text without any is cut in the middle of a run that long.
_REACH = 16384
_SQUEEZED = 1000
_LONG_RUN = re.compile(r"[0-9A-Za-z]{1001,}")
_SPACES = re.compile(r"[ \t\n\r]{2,}")


def first_size(max_length: int) -> int:
    """Characters of the first part to try; texts up to that are tokenised whole."""
    return _CHARACTERS_PER_TOKEN * max(max_length, MARGIN)


def part(text: str, size: int, side: TruncationSide) -> str:
    """The first ("right": the end is cut) or last ("left") `size` characters, and more up to a word's end.

    The whole text where little more is left. A part that lost its beginning starts with the whitespace there.
    """
    step = 1 if side == "right" else -1
    at = start = size if side == "right" else len(text) - size
    while 0 < at < len(text) and (text[at] not in _WHITESPACE or text[at - 1] in _WHITESPACE):
        at += step
        if abs(at - start) > _REACH:
            at = start
            break
    if not 0 < at < len(text):
        return text
    return text[:at] if side == "right" else text[at:]


def squeezes(tokenizer: Any) -> bool:
    """Whether `squeeze` leaves the tokens of a `tokenizers.Tokenizer` as they are: those of BERT."""
    limit = getattr(tokenizer.model, "max_input_chars_per_word", _SQUEEZED)
    plain = not any(added.content.isalnum() for added in tokenizer.get_added_tokens_decoder().values())
    return type(tokenizer.pre_tokenizer).__name__ == "BertPreTokenizer" and limit < _SQUEEZED and plain


def squeeze(text: str) -> str:
    """Shorten what a BERT tokenizer makes one token or none of: endless runs of letters, and whitespace."""
    return _SPACES.sub(" ", _LONG_RUN.sub(lambda run: run[0][:_SQUEEZED], text))
