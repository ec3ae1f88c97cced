"""Pairs of texts into sequences by a prompt around both, for causal rerankers; `pairs.py` joins without one.

Truncation cuts the document and leaves the prompt's end, where the model answers, as it is. From the right it is token
for token what the references give. From the left (they would cut the system prompt), and under a template that puts
the query after the document (they would cut the query), the document is cut as text and tokenised again.

The prompt is tokenised with the texts in it, as words join across their edges: exact, and cheap beside the forward
pass. As in the references, special tokens that are spelled out in a text become special tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from lemni.errors import InputTooLong, InvalidRequest, LemniError
from lemni.tasks import long_texts
from lemni.tasks.causal_layouts import Frame, Prompts
from lemni.tasks.tokenizer import Named, is_unicode
from lemni.types import Sequence, TruncationSide

_Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class _Open:
    """A pair whose prompt is rendered.

    Attributes:
        document: its text, or a part that is more than the model takes.
        body: the text of the prompt around it.
        truncated: whether a limit of its own has cut the document.
        whole: whether query and document are whole, or cut by their own limits only.
    """

    frame: Frame
    document: str
    body: str
    truncated: bool
    whole: bool


class PromptedPairs:
    """The pairs of one model.

    Args:
        prompts: how it is prompted.
        library: its `tokenizers.Tokenizer`, without truncation and padding.
        max_length: tokens of the longest sequence.
    """

    def __init__(self, prompts: Prompts, library: Any, max_length: int) -> None:
        self._prompts = prompts
        self._library = library
        self._max_length = max_length
        self._whole_size = long_texts.first_size(max_length)

    def fixed_tokens(self, instruction: str) -> int:
        """Tokens of the prompt of two empty texts. Raises InvalidRequest if a chat template refuses the instruction."""
        frame = self._frames(instruction)("")
        return self._total(frame, self._ids(_body(frame, "", "the prompt")))

    def encode(
        self,
        pairs: Seq[tuple[str, str]],
        named: Named,
        side: TruncationSide | None,
        limit: int | None,
        instruction: str,
    ) -> list[Sequence | LemniError]:
        """One sequence or the pair's own error for each pair.

        Args:
            pairs: query and document.
            named: a pair's name for messages, by its place.
            side: of the document, where it is cut; None refuses what is too long.
            limit: tokens of the document by itself.
            instruction: "" for none.
        """
        try:
            frames = self._frames(instruction)
            if (fixed := self.fixed_tokens(instruction)) >= self._max_length:
                raise InputTooLong(
                    f"prompt: with it the model's own words take {fixed} tokens, but this model takes at most "
                    f"{self._max_length} together with query and document"
                )
        except LemniError as error:
            return [error for _ in pairs]
        out: dict[int, Sequence | LemniError] = {}
        opened: dict[int, _Open] = {}
        for place, pair in enumerate(pairs):
            try:
                opened[place] = self._open(pair, frames, side, limit, named(place))
            except LemniError as error:
                out[place] = error
        bodies = list({one.body for one in opened.values()})
        tokens = dict(zip(bodies, self._library.encode_batch_fast(bodies, add_special_tokens=False), strict=True))
        for place, one in opened.items():
            try:
                out[place] = self._sequence(one, _array(tokens[one.body].ids), side, named(place))
            except LemniError as error:
                out[place] = error
        return [out[place] for place in range(len(pairs))]

    def _frames(self, instruction: str) -> Callable[[str], Frame]:
        """Opens the prompt of a query, once for all its documents."""
        try:
            return functools.cache(self._prompts.frames(instruction, self._max_length))
        except TemplateError as error:
            raise InvalidRequest(f"prompt: the model's chat template refuses it: {error}") from error

    def _open(
        self,
        pair: tuple[str, str],
        frames: Callable[[str], Frame],
        side: TruncationSide | None,
        limit: int | None,
        name: str,
    ) -> _Open:
        for text, which in zip(pair, ("first", "second"), strict=True):
            if not is_unicode(text):
                raise InvalidRequest(f"{name}: its {which} text holds a lone surrogate")
        query, document = self._enough(pair[0], "right"), pair[1]
        frame = frames(query)
        if frame.cut_query is not None and side is None:
            has, most = frame.cut_query
            raise InputTooLong(f"{name} has a query of {has} tokens, but this model takes at most {most} of it")
        truncated = frame.cut_query is not None
        if limit is not None:
            document, tokens = self._limited(document, limit, side or "right")
            if tokens is not None and side is None:
                raise InputTooLong(f"{name} has {tokens} tokens, but the request allows {limit}")
            truncated = truncated or tokens is not None
        # Where the query alone is too long, no document is seen.
        part = "" if query is not pair[0] else self._enough(document, side or "right")
        whole = query is pair[0] and part is document
        return _Open(frame, part, _body(frame, part, name), truncated, whole)

    def _sequence(self, one: _Open, ids: _Ids, side: TruncationSide | None, name: str) -> Sequence:
        total = self._total(one.frame, ids)
        if not total:
            raise InvalidRequest(f"{name} and the model's prompt have no text")
        if total <= self._max_length:
            return _joined(one.frame, ids, one.truncated)
        if side is None:
            tokens = str(total) if one.whole else f"more than {max(total - long_texts.MARGIN, self._max_length)}"
            raise InputTooLong(
                f"{name} has {tokens} tokens (query, document and the model's prompt together), but this model takes "
                f"at most {self._max_length}. Shorten it, or let the server truncate it."
            )
        if side == "right" and self._prompts.document_last:
            return self._cut(one.frame, ids)
        room = self._max_length - self._total(one.frame, self._ids(_body(one.frame, "", name)))
        while room > 0:
            document, _ = self._limited(one.document, room, side)
            ids = self._ids(_body(one.frame, document, name))
            if (total := self._total(one.frame, ids)) <= self._max_length:
                return _joined(one.frame, ids, truncated=True)
            room -= total - self._max_length  # words have joined otherwise
        return self._cut(one.frame, self._ids(_body(one.frame, "", name)))

    def _cut(self, frame: Frame, ids: _Ids) -> Sequence:
        """Cut before the end of the prompt, which stays."""
        if self._total(frame, ids) <= self._max_length:
            return _joined(frame, ids, truncated=True)
        room = self._max_length - len(frame.head) - len(frame.tail)
        return Sequence(np.concatenate([frame.head, ids[:room], frame.tail]), truncated=True)

    def _limited(self, text: str, limit: int, side: TruncationSide) -> tuple[str, str | None]:
        """At most `limit` tokens of a text, as text, and how many it had, if it had more."""
        size = long_texts.first_size(limit)
        while True:
            part = long_texts.part(text, size, side)
            offsets = self._library.encode(part, add_special_tokens=False).offsets
            whole, count = len(part) == len(text), len(offsets)
            if whole and count <= limit:
                return text, None
            if whole or count >= limit + long_texts.MARGIN:
                tokens = str(count) if whole else f"more than {count - long_texts.MARGIN}"
                return _first(part, offsets, limit) if side == "right" else _last(part, offsets, limit), tokens
            size *= long_texts.GROWTH

    def _enough(self, text: str, side: TruncationSide) -> str:
        """The text, or a part of it that alone is longer than the model takes."""
        size = self._whole_size
        while len(text) > size:
            part = long_texts.part(text, size, side)
            if len(part) == len(text) or len(self._ids(part)) >= self._max_length + long_texts.MARGIN:
                return text if len(part) == len(text) else part
            size *= long_texts.GROWTH
        return text

    def _total(self, frame: Frame, ids: _Ids) -> int:
        return len(frame.head) + len(ids) + (0 if frame.closed else len(frame.tail))

    def _ids(self, text: str) -> _Ids:
        [encoding] = self._library.encode_batch_fast([text], add_special_tokens=False)
        return _array(encoding.ids)


def _body(frame: Frame, document: str, name: str) -> str:
    try:
        return frame.body(document)
    except TemplateError as error:
        raise InvalidRequest(f"{name}: the model's chat template refuses it: {error}") from error


def _joined(frame: Frame, ids: _Ids, truncated: bool) -> Sequence:
    parts = [frame.head, ids] if frame.closed else [frame.head, ids, frame.tail]
    return Sequence(np.concatenate(parts), truncated=truncated)


def _first(text: str, offsets: Seq[tuple[int, int]], limit: int) -> str:
    """The text of the first tokens; no character is kept of which a token is missing."""
    while limit and offsets[limit][0] < offsets[limit - 1][1]:
        limit -= 1
    return text[: offsets[limit - 1][1]] if limit else ""


def _last(text: str, offsets: Seq[tuple[int, int]], limit: int) -> str:
    start = len(offsets) - limit
    while start < len(offsets) and offsets[start][0] < offsets[start - 1][1]:
        start += 1
    return text[offsets[start][0] :] if start < len(offsets) else ""


def _array(ids: Seq[int]) -> _Ids:
    return np.array(ids, dtype=np.int32)
