"""Pairs of texts into one sequence each, as the model's tokenizer joins them: special tokens, segment ids, truncation.

Every distinct text is tokenised once per chunk of pairs, so a query against many documents is tokenised once, and only
as much of a long text as truncation leaves. Token for token what transformers gives for `tokenizer(first, second,
truncation="longest_first")`. Called by tasks whose model reads both texts together.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np

from lemni.errors import ConfigError, InputTooLong, InvalidRequest, LemniError
from lemni.hub.jsonfile import read_json
from lemni.hub.spec import ModelSpec
from lemni.tasks import long_texts
from lemni.tasks.tokenizer import Named, Tokenizer, is_unicode
from lemni.types import Sequence, TruncationSide

# Classes of transformers (without "Fast") that tell the model which text a token is from, where a folder's tokenizer
# does not list its outputs (`model_input_names`).
_MARK_SEGMENTS = ("BertTokenizer", "ElectraTokenizer", "DebertaV2Tokenizer", "BertJapaneseTokenizer")
# Families whose tokenizer is one of those where a folder does not name it.
_MARKED_FAMILIES = ("bert", "electra", "deberta-v2", "nomic_bert")


@dataclass(frozen=True, slots=True)
class _Text:
    """One side of a pair, without special tokens; not `whole` if it ends before the text does."""

    text: str
    encoding: Any
    whole: bool

    @property
    def tokens(self) -> str:
        """Their number, for messages."""
        known = len(self.encoding)
        return str(known) if self.whole else f"more than {known - long_texts.MARGIN}"

    def cut(self, limit: int, side: TruncationSide) -> _Text:
        """At most `limit` tokens of it, which are whole then."""
        copy = type(self.encoding).merge([self.encoding])
        copy.truncate(limit, direction=side)
        return _Text(self.text, copy, True)


class Pairs:
    """The pairs of one model.

    Raises:
        ConfigError: its maximum length has no room for the special tokens of a pair.
    """

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._library = tokenizer.library
        self._added = self._library.num_special_tokens_to_add(is_pair=True)
        self._max_length = tokenizer.max_length
        if self._max_length <= self._added:
            raise ConfigError(
                f"max_length is {self._max_length}, but {spec.files.id} puts {self._added} special tokens around "
                f"every pair: it must be at least {self._added + 1}"
            )
        self._segments = _marks_segments(spec)
        self._whole_size = long_texts.first_size(self._max_length)
        self._squeezes = long_texts.squeezes(self._library)
        self._cutting = {side: self._joiner(side) for side in ("right", "left")}

    def encode(
        self,
        pairs: Seq[tuple[str, str]],
        named: Named,
        side: TruncationSide | None = "right",
        second_limit: int | None = None,
    ) -> list[Sequence | LemniError]:
        """One sequence or the pair's own error for each pair; `named` gives its name for messages by its place.

        Args:
            side: where the longer text of a pair over the maximum length is cut, then both alike; None refuses it.
            second_limit: tokens of the second text by itself, without special tokens.
        """
        bad = {text for pair in pairs for text in pair if not is_unicode(text)}
        texts = self._texts({text for pair in pairs for text in pair} - bad, side or "right")
        out: list[Sequence | LemniError] = []
        for place, (first, second) in enumerate(pairs):
            if first in bad or second in bad:
                which = "first" if first in bad else "second"
                out.append(InvalidRequest(f"{named(place)}: its {which} text holds a lone surrogate"))
            else:
                out.append(self._joined([texts[first], texts[second]], side, second_limit, named(place)))
        return out

    def _joined(
        self, sides: list[_Text], side: TruncationSide | None, second_limit: int | None, name: str
    ) -> Sequence | LemniError:
        room = self._max_length - self._added
        if not all(text.whole for text in sides) and min(len(text.encoding) for text in sides) > room:
            # Both are cut, to halves; which of them gets the odd token depends on which is longer.
            sides = [self._tokenised(text.text, side or "right", len(text.text)) for text in sides]
        first, second = sides
        cut_second = second_limit is not None and len(second.encoding) > second_limit
        if second_limit is not None and cut_second:
            if side is None:
                return InputTooLong(f"{name} has {second.tokens} tokens, but the request allows {second_limit}")
            second = second.cut(second_limit, side)
        tokens = len(first.encoding) + len(second.encoding)
        whole = first.whole and second.whole
        truncated = not whole or tokens > room
        if truncated and side is None:
            known = tokens + self._added if whole else f"more than {tokens + self._added - long_texts.MARGIN}"
            return InputTooLong(
                f"{name} has {known} tokens (both texts of the pair together), but this model takes at most "
                f"{self._max_length}. Shorten it, or let the server truncate it."
            )
        library = self._cutting[side] if truncated and side else self._library
        encoding = library.post_process(first.encoding, second.encoding)
        ids = np.array(encoding.ids or [self._tokenizer.filler], dtype=np.int32)
        types = None
        if self._segments and any(encoding.type_ids):
            types = np.array(encoding.type_ids, dtype=np.int32)
        return Sequence(ids, token_types=types, truncated=truncated or cut_second)

    def _texts(self, texts: set[str], side: TruncationSide) -> dict[str, _Text]:
        short = [text for text in texts if len(text) <= self._whole_size]
        encodings = self._library.encode_batch_fast(short, add_special_tokens=False) if short else []
        found = {text: _Text(text, encoding, True) for text, encoding in zip(short, encodings, strict=True)}
        for text in texts - found.keys():
            found[text] = self._tokenised(text, side, self._whole_size)
        return found

    def _tokenised(self, text: str, side: TruncationSide, size: int) -> _Text:
        """As much of a text as truncation leaves, and a bit more to be sure of it; `size` characters at first."""
        rest, squeezes = text, self._squeezes
        while True:
            part = long_texts.part(rest, size, side)
            [encoding] = self._library.encode_batch_fast([part], add_special_tokens=False)
            whole = len(part) == len(rest)
            if whole or len(encoding) >= self._max_length + long_texts.MARGIN:
                return _Text(text, encoding, whole)
            if squeezes:
                rest, squeezes = long_texts.squeeze(rest), False
            size *= long_texts.GROWTH

    def _joiner(self, side: str) -> Any:
        from tokenizers import Tokenizer as Library

        clone = Library.from_str(self._library.to_str())
        clone.enable_truncation(self._max_length, strategy="longest_first", direction=side)
        return clone


def _marks_segments(spec: ModelSpec) -> bool:
    """Whether the tokens of the second text have a segment id of their own, as transformers' tokenizer decides."""
    if int(spec.config.get("type_vocab_size", 2)) < 2:
        return False
    file = spec.transformer_path / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    listed = config.get("model_input_names")
    if isinstance(listed, list):
        return "token_type_ids" in listed
    name = config.get("tokenizer_class")
    if not isinstance(name, str):
        return spec.model_type in _MARKED_FAMILIES
    return name.removesuffix("Fast") in _MARK_SEGMENTS
