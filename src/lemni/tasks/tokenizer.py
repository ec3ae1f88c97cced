"""Texts and token ids into sequences, as the model's own tokenizer and sentence-transformers do it.

Truncation never passes silently: a sequence that lost tokens says so, and with `truncate="error"` it is refused.
The tokenizers library is thread-safe and releases the GIL while it works.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sized
from collections.abc import Sequence as Seq
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.errors import (
    ConfigError,
    InputTooLong,
    InvalidRequest,
    InvalidTokenIds,
    LemniError,
)
from lemni.families.static import token_ids, unknown_id
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.tasks import long_texts
from lemni.tasks.tokenizer_files import filler_id, load_tokenizer, lower_case_first
from lemni.types import Sequence, Truncate

# Texts are at most about this many characters a token: a far longer one is over any limit without tokenising.
_CHARACTERS_PER_TOKEN_GUESS = 4

Named: TypeAlias = Callable[[int], str]
"""The name of an item in its caller's words, by its place among those that are tokenised now."""


class Tokenizer:
    """The tokenizer of one model, with its maximum length.

    Args:
        spec: the model's facts.
        max_length: tokens of the longest sequence, special tokens included.
        vocabulary: rows of the embedding table; ids at or over it are refused.
        library: a `tokenizers.Tokenizer` to work like, if not the one that the folder's files make.
    """

    def __init__(self, spec: ModelSpec, max_length: int, vocabulary: int | None, library: Any = None) -> None:
        self.max_length = max_length
        plain = load_tokenizer(spec.transformer_path) if library is None else _copy(library)
        if spec.lower_case:
            lower_case_first(plain)
        plain.no_padding()
        plain.no_truncation()
        self._plain = plain
        self._static = spec.model_type == "model2vec"
        # model2vec's own layout leaves the unknown token out of the average, sentence-transformers' does not.
        leaves_out = self._static and "embeddings" in TensorStore(spec.weights)
        self._unknown = unknown_id(plain) if leaves_out else None
        self.vocabulary = vocabulary or plain.get_vocab_size(with_added_tokens=True)
        self._cutting: dict[str, Any] = {}
        self._whole_size = long_texts.first_size(max_length)
        self._squeezes = long_texts.squeezes(plain)
        self._added = 0 if self._static else plain.num_special_tokens_to_add(is_pair=False)
        if max_length <= self._added:
            raise ConfigError(
                f"max_length is {max_length}, but {spec.files.id} puts {self._added} special tokens around every text: "
                f"it must be at least {self._added + 1}"
            )
        self._nothing = filler_id(plain, spec.transformer_path)
        special = {token for token, added in plain.get_added_tokens_decoder().items() if added.special}
        self._special_ids = frozenset(special)

    @property
    def library(self) -> Any:
        """The `tokenizers.Tokenizer` underneath, without truncation and padding; not to be changed."""
        return self._plain

    @property
    def filler(self) -> int:
        """The token that stands for an input without tokens."""
        return self._nothing

    def encode(
        self,
        items: Seq[str | Seq[int]],
        truncate: Truncate,
        named: Named = str,
        prompt: str = "",
        pool_start: int = 0,
    ) -> list[Sequence | LemniError]:
        """One sequence or the item's own error per text or list of token ids; `named` gives an item's name for messages
        by its place. "chunk" cuts like "right": see `windows`."""
        out: list[Sequence | LemniError | None] = [None] * len(items)
        texts: list[str] = []
        places: list[int] = []
        for place, item in enumerate(items):
            if not isinstance(item, str):
                out[place] = self._from_ids(item, truncate, named(place))
            elif not is_unicode(item):
                out[place] = InvalidRequest(f"{named(place)} holds a lone surrogate, which is no character")
            elif len(prompt) + len(item) > self._whole_size:
                out[place] = self._long(prompt + item, truncate, pool_start, named(place))
            else:
                texts.append(prompt + item)
                places.append(place)
        if texts:
            tokenizer = self._tokenizer(truncate)
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=not self._static)
            for place, encoding in zip(places, encodings, strict=True):
                out[place] = self._sequence(encoding, truncate, pool_start, named(place))
        return [result for result in out if result is not None]

    def windows(self, text: str, name: str, prompt: str = "", pool_start: int = 0) -> list[Sequence] | LemniError:
        """A text of any length as consecutive sequences of at most `max_length` tokens, special tokens around each; the
        prompt is in the first only."""
        if not is_unicode(text):
            return InvalidRequest(f"{name} holds a lone surrogate, which is no character")
        if self._static:
            [whole] = self.encode([prompt + text], "error", lambda _: name)
            if not isinstance(whole, InputTooLong):
                return whole if isinstance(whole, LemniError) else [whole]
            ids = token_ids(np.array(self._plain.encode(prompt + text).ids, dtype=np.int32), self._unknown)
            return [Sequence(ids[at : at + self.max_length]) for at in range(0, len(ids), self.max_length)]
        encoding = self._tokenizer("right").encode_batch_fast([prompt + text])[0]
        parts = [np.array(window.ids, dtype=np.int32) for window in (encoding, *encoding.overflowing)]
        found = [self._checked(part, False, 0 if place else pool_start, name) for place, part in enumerate(parts)]
        return [one for one in found if isinstance(one, Sequence)]

    def encode_chunks(self, texts: Seq[str], name: str, prompt: str = "") -> Sequence | LemniError:
        """Parts of one document as one sequence, joined by blanks where they meet without one, and the span of
        tokens of each. A token belongs to the part that its first character is in; markers around belong to none."""
        if not texts:
            return InvalidRequest(f"{name} has no parts; it must have at least one")
        joined, ends = prompt, []
        for text in texts:
            if not is_unicode(text):
                return InvalidRequest(f"{name} holds a lone surrogate, which is no character")
            joined += text if not joined or joined[-1].isspace() or text[:1].isspace() else f" {text}"
            ends.append(len(joined))
        encoding = self._plain.encode(joined, add_special_tokens=not self._static)
        ids = np.array(encoding.ids, dtype=np.int32)
        starts = [first + joined[first:last].startswith(" ") for first, last in encoding.offsets]
        owner = np.searchsorted([len(prompt), *ends], starts, "right") - 1
        owner[np.array(encoding.special_tokens_mask, dtype=bool)] = -1
        if self._unknown is not None:
            ids, owner = ids[ids != self._unknown], owner[ids != self._unknown]
        if len(ids) > self.max_length:
            return InputTooLong(
                f"{name} has {len(ids)} tokens in all its parts, but this model takes at most {self.max_length} "
                "in one context. Send fewer parts."
            )
        spans = []
        for part in range(len(texts)):
            [places] = np.nonzero(owner == part)
            if not len(places):
                return InvalidRequest(f"{name}: part {part} holds no text to embed")
            spans.append((places[0], places[-1] + 1))
        return Sequence(ids, outputs=("tokens",), spans=np.array(spans, dtype=np.int32))

    def _long(self, text: str, truncate: Truncate, pool_start: int, name: str) -> Sequence | LemniError:
        """Tokenise only as much of a long text as truncation leaves, and a bit more to be sure of it."""
        tokenizer = self._tokenizer(truncate)
        size = self._whole_size
        while True:
            part = long_texts.part(text, size, "left" if truncate == "left" else "right")
            [encoding] = tokenizer.encode_batch_fast([part], add_special_tokens=not self._static)
            if len(part) == len(text):
                return self._sequence(encoding, truncate, pool_start, name)
            # Truncation keeps what it cuts off as windows, each with its own special tokens.
            tokens = len(encoding) + sum(len(window) - self._added for window in encoding.overflowing)
            if self._unknown is not None:
                tokens -= encoding.ids.count(self._unknown)
            if tokens >= self.max_length + long_texts.MARGIN:
                if truncate == "error":
                    return self._too_long(f"more than {tokens - long_texts.MARGIN}", name)
                return self._sequence(encoding, truncate, pool_start, name)
            if self._squeezes and size == self._whole_size:
                text = long_texts.squeeze(text)
            size *= long_texts.GROWTH

    def _sequence(self, encoding: Any, truncate: Truncate, pool_start: int, name: str) -> Sequence | LemniError:
        ids = np.array(encoding.ids, dtype=np.int32)
        truncated = bool(encoding.overflowing)
        if self._static:
            ids = token_ids(ids, self._unknown)
            truncated = len(ids) > self.max_length and truncate != "error"
            ids = self._cut(ids, truncate) if truncated else ids
        return self._checked(ids, truncated, pool_start, name)

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens that a prompt takes at the start of a sequence, as sentence-transformers counts them."""
        ids = self._plain.encode(prompt).ids
        return len(ids) - 1 if ids and ids[-1] in self._special_ids else len(ids)

    def _tokenizer(self, truncate: Truncate) -> Any:
        if truncate == "error" or self._static:
            return self._plain
        side = "left" if truncate == "left" else "right"
        if side not in self._cutting:
            from tokenizers import Tokenizer as Library

            clone = Library.from_str(self._plain.to_str())
            clone.enable_truncation(self.max_length, direction=side)
            self._cutting[side] = clone
        return self._cutting[side]

    def _checked(self, ids: NDArray[np.int32], truncated: bool, pool_start: int, name: str) -> Sequence | LemniError:
        if len(ids) > self.max_length:
            return self._too_long(len(ids), name)
        if len(ids) == 0:  # "" where nothing is put around a text
            ids = np.array([self._nothing], dtype=np.int32)
        return Sequence(ids, pool_start=min(pool_start, len(ids) - 1), truncated=truncated)

    def _from_ids(self, item: Seq[int], truncate: Truncate, name: str) -> Sequence | LemniError:
        if error := no_item(item, name):
            return error
        try:
            ids = np.asarray(item)
        except ValueError:  # lists of different lengths
            ids = np.array("")
        integers = ids.dtype.kind in "iu"
        if ids.dtype.kind in "fO" and all(type(token) is int for token in item):  # beyond 64 bits
            ids, integers = np.array(item, dtype=object), True
        if ids.ndim != 1 or len(ids) == 0 or not integers:
            return InvalidTokenIds(f"{name} must be a list of at least one token id")
        wrong = ids[(ids < 0) | (ids >= self.vocabulary)]
        if len(wrong):
            return InvalidTokenIds(
                f"{name} holds token id {int(wrong[0])}, "
                f"but this model's vocabulary is 0..{self.vocabulary - 1}. "
                "The ids come from another tokenizer: send text instead "
                "(langchain-openai: OpenAIEmbeddings(..., check_embedding_ctx_length=False)), "
                "or ids of this model's own tokenizer."
            )
        if len(ids) <= self.max_length:
            return Sequence(ids.astype(np.int32))
        if truncate == "error":
            return self._too_long(len(ids), name)
        return Sequence(self._cut(ids, truncate).astype(np.int32), truncated=True)

    def shortened(self, sequence: Sequence, limit: int, truncate: Truncate, name: str) -> Sequence | LemniError:
        """A sequence of at most `limit` tokens, special tokens included."""
        if len(sequence.ids) <= limit:
            return sequence
        if truncate == "error":
            return InputTooLong(f"{name} has {len(sequence.ids)} tokens, but the request allows {limit}")
        ids = self._cut(sequence.ids, truncate, limit)
        pool_start = min(sequence.pool_start, len(ids) - 1)
        return dataclasses.replace(sequence, ids=ids, pool_start=pool_start, truncated=True)

    def _cut(self, ids: NDArray[Any], truncate: Truncate, limit: int | None = None) -> NDArray[Any]:
        """Cut to the limit or the maximum length, but keep a special token at either end, as the library would."""
        first = ids[:1] if int(ids[0]) in self._special_ids else ids[:0]
        last = ids[-1:] if int(ids[-1]) in self._special_ids else ids[:0]
        body = ids[len(first) : len(ids) - len(last)]
        limit = self.max_length if limit is None else limit
        room = max(limit - len(first) - len(last), 0)
        body = body[len(body) - room :] if truncate == "left" else body[:room]
        return np.concatenate([first, body, last])[:limit]

    def _too_long(self, tokens: int | str, name: str) -> InputTooLong:
        return InputTooLong(
            f"{name} has {tokens} tokens, but this model takes at most {self.max_length}. "
            "Shorten it, or let the server truncate it."
        )

    def estimate(self, item: str | Seq[int], prompt: str = "", *, whole: bool = False) -> int:
        """A guess at the tokens of an item, without tokenising; at least 1. `whole`: nothing will be cut off."""
        if isinstance(item, str):
            tokens = (len(prompt) + len(item)) // _CHARACTERS_PER_TOKEN_GUESS + 2
        else:
            if error := no_item(item, "an item"):
                raise error
            tokens = len(item)
        return max(1, tokens if whole else min(tokens, self.max_length))


def _copy(library: Any) -> Any:
    from tokenizers import Tokenizer as Library

    return Library.from_str(library.to_str())


def no_item(item: object, name: str) -> InvalidRequest | None:
    """What is wrong with something that is neither a text nor a list."""
    if isinstance(item, Sized) and not isinstance(item, bytes | bytearray | Mapping):
        return None
    return InvalidRequest(f"{name} is {repr(item)[:40]}; it must be a text or a list of token ids")


def is_unicode(text: str) -> bool:
    """Whether a Python string is text: without surrogates, which JSON and careless decoding can leave alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
