"""Pairs of texts into one sequence each, as the model's tokenizer joins them: special tokens, segment ids, truncation.

Every distinct text is tokenised once per chunk of pairs, so a query against many documents is tokenised once, and only
as much of a long text as truncation leaves. Token for token what transformers gives for `tokenizer(first, second,
truncation="longest_first")`. Called by tasks whose model reads both texts together.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError, InputTooLong, InvalidRequest, LemniError, ModelLoadError
from lemni.hub.jsonfile import read_json
from lemni.hub.spec import ModelSpec
from lemni.tasks import long_texts
from lemni.tasks.tokenizer import Named, Tokenizer, is_unicode
from lemni.types import Sequence, TruncationSide

_Ids = NDArray[np.int32]

# Classes of transformers (without "Fast") that tell the model which text a token is from, where a folder's tokenizer
# does not list its outputs (`model_input_names`).
_MARK_SEGMENTS = ("BertTokenizer", "ElectraTokenizer", "DebertaV2Tokenizer", "BertJapaneseTokenizer")
# Families whose tokenizer is one of those where a folder does not name it.
_MARKED_FAMILIES = ("bert", "electra", "deberta-v2", "nomic_bert")


@dataclass(frozen=True, slots=True)
class _Text:
    """One side of a pair, without special tokens; not `whole` if it ends before the text does."""

    text: str
    ids: _Ids
    whole: bool

    def tokens(self, others: int = 0) -> str:
        """Their number and that of others, for messages."""
        known = len(self.ids) + others
        return str(known) if self.whole else f"more than {known - long_texts.MARGIN}"


@dataclass(frozen=True, slots=True)
class _Segment:
    """A part of every joined pair: special tokens, or the tokens of its text number `text`."""

    special: _Ids
    text: int | None
    type_id: int


class Pairs:
    """The pairs of one model.

    Raises:
        ConfigError: its maximum length has no room for the special tokens of a pair.
        ModelLoadError: its tokenizer does not tell how it joins a pair.
    """

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._library = tokenizer.library
        self._max_length = tokenizer.max_length
        self._segments = _segments(self._library, spec)
        added = sum(len(segment.special) for segment in self._segments)
        self._room = self._max_length - added
        if self._room < 1:
            raise ConfigError(
                f"max_length is {self._max_length}, but {spec.files.id} puts {added} special tokens around every "
                f"pair: it must be at least {added + 1}"
            )
        self._marks_segments = _marks_segments(spec)
        self._whole_size = long_texts.first_size(self._max_length)
        self._squeezes = long_texts.squeezes(self._library)

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
        distinct = {text for pair in pairs for text in pair}
        bad = {text for text in distinct if not is_unicode(text)}
        texts = self._texts(distinct - bad, side or "right")
        out: list[Sequence | LemniError] = []
        for place, (first, second) in enumerate(pairs):
            if first in bad or second in bad:
                which = "first" if first in bad else "second"
                out.append(InvalidRequest(f"{named(place)}: its {which} text holds a lone surrogate"))
            else:
                out.append(self._sequence(texts[first], texts[second], side, second_limit, named(place)))
        return out

    def _sequence(
        self, first: _Text, second: _Text, side: TruncationSide | None, second_limit: int | None, name: str
    ) -> Sequence | LemniError:
        if not (first.whole and second.whole) and min(len(first.ids), len(second.ids)) > self._room:
            # Both are cut, to halves; which of them gets the odd token depends on which is longer.
            first, second = (self._tokenised(one.text, side or "right", len(one.text)) for one in (first, second))
        truncated = second_limit is not None and len(second.ids) > second_limit
        if second_limit is not None and truncated:
            if side is None:
                return InputTooLong(f"{name} has {second.tokens()} tokens, but the request allows {second_limit}")
            second = _Text(second.text, _cut(second.ids, second_limit, side), True)
        if not (first.whole and second.whole and len(first.ids) + len(second.ids) <= self._room):
            if side is None:
                long, other = (first, second) if second.whole else (second, first)
                tokens = long.tokens(len(other.ids) + self._max_length - self._room)
                return InputTooLong(
                    f"{name} has {tokens} tokens (both texts of the pair together), but this model takes at most "
                    f"{self._max_length}. Shorten it, or let the server truncate it."
                )
            sizes = longest_first(len(first.ids), len(second.ids), self._room)
            ids = [_cut(text.ids, size, side) for text, size in zip((first, second), sizes, strict=True)]
            return self._joined(ids, truncated=True)
        return self._joined([first.ids, second.ids], truncated=truncated)

    def _joined(self, texts: Seq[_Ids], *, truncated: bool) -> Sequence:
        parts = [segment.special if segment.text is None else texts[segment.text] for segment in self._segments]
        ids = np.concatenate(parts)
        if not len(ids):
            return Sequence(np.array([self._tokenizer.filler], dtype=np.int32))
        types = None
        if self._marks_segments:
            marks = np.array([segment.type_id for segment in self._segments], dtype=np.int32)
            types = np.repeat(marks, [len(part) for part in parts])
        return Sequence(ids, token_types=types, truncated=truncated)

    def _texts(self, texts: set[str], side: TruncationSide) -> dict[str, _Text]:
        short = [text for text in texts if len(text) <= self._whole_size]
        encodings = self._library.encode_batch_fast(short, add_special_tokens=False) if short else []
        found = {text: _Text(text, _ids(encoding), True) for text, encoding in zip(short, encodings, strict=True)}
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
                return _Text(text, _ids(encoding), whole)
            if squeezes:
                rest, squeezes = long_texts.squeeze(rest), False
            size *= long_texts.GROWTH


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Tokens that truncation leaves of a first and a second text that are longer than `room` together.

    Reference: tokenizers, `utils/truncation.rs`, `TruncationStrategy::LongestFirst`.
    """
    shorter = min(first, second)
    longer = shorter if shorter > room else max(shorter, room - shorter)
    if shorter + longer > room:
        shorter = room // 2
        longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)


def _cut(ids: _Ids, size: int, side: TruncationSide) -> _Ids:
    return ids[:size] if side == "right" else ids[max(len(ids) - size, 0) :]


def _ids(encoding: Any) -> _Ids:
    return np.array(encoding.ids, dtype=np.int32)


def _segments(library: Any, spec: ModelSpec) -> tuple[_Segment, ...]:
    """How the tokenizer's post-processor joins a pair, from one that it has joined."""
    probe = library.encode("a", "a")
    tokens = zip(probe.sequence_ids, probe.type_ids, probe.ids, strict=True)
    segments = [
        _Segment(np.array([one for *_, one in run] if text is None else [], dtype=np.int32), text, type_id)
        for (text, type_id), run in groupby(tokens, key=lambda token: token[:2])
    ]
    if sorted(segment.text for segment in segments if segment.text is not None) != [0, 1]:
        raise ModelLoadError(f"{spec.files.id}: its tokenizer does not tell how it joins two texts")
    return tuple(segments)


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
