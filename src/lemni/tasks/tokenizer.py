"""Texts and token ids into sequences, as the model's own tokenizer and sentence-transformers do it.

Truncation never passes silently: a sequence that lost tokens says so, and with `truncate="error"` it is refused.
The tokenizers library is thread-safe and releases the GIL while it works.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import (
    ConfigError,
    InputTooLong,
    InvalidRequest,
    InvalidTokenIds,
    LemniError,
    ModelLoadError,
    missing_extra,
)
from lemni.families.static import token_ids, unknown_id
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.tasks import long_texts
from lemni.types import Item, Sequence, Truncate

# Texts are at most about this many characters a token: a far longer one is over any limit without tokenising.
_CHARACTERS_PER_TOKEN_GUESS = 4


class Tokenizer:
    """The tokenizer of one model, with its maximum length.

    Args:
        spec: the model's facts.
        max_length: tokens of the longest sequence, special tokens included.
        vocabulary: rows of the embedding table; ids at or over it are refused.
    """

    def __init__(self, spec: ModelSpec, max_length: int, vocabulary: int | None) -> None:
        self.max_length = max_length
        plain = load_tokenizer(spec.transformer_path)
        if spec.lower_case:
            _lower_case_first(plain)
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
        self._nothing = _filler(plain, spec.transformer_path)
        special = {token for token, added in plain.get_added_tokens_decoder().items() if added.special}
        self._special_ids = frozenset(special)

    def encode(
        self,
        items: Seq[Item],
        truncate: Truncate,
        prompt: str = "",
        pool_start: int = 0,
        offset: int = 0,
    ) -> list[Sequence | LemniError]:
        """One sequence or the item's own error per item; `offset` is the index of the first item, for messages."""
        out: list[Sequence | LemniError | None] = [None] * len(items)
        texts: list[str] = []
        places: list[int] = []
        for place, item in enumerate(items):
            if not isinstance(item, str):
                out[place] = self._from_ids(item, truncate, offset + place)
            elif not is_unicode(item):
                index = offset + place
                message = f"input[{index}] holds a lone surrogate, which is no character"
                out[place] = InvalidRequest(message, item=index, param="input")
            elif len(prompt) + len(item) > self._whole_size:
                out[place] = self._long(prompt + item, truncate, pool_start, offset + place)
            else:
                texts.append(prompt + item)
                places.append(place)
        if texts:
            tokenizer = self._tokenizer(truncate)
            encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=not self._static)
            for place, encoding in zip(places, encodings, strict=True):
                out[place] = self._sequence(encoding, truncate, pool_start, offset + place)
        return [result for result in out if result is not None]

    def _long(self, text: str, truncate: Truncate, pool_start: int, index: int) -> Sequence | LemniError:
        """Tokenise only as much of a long text as truncation leaves, and a bit more to be sure of it."""
        tokenizer = self._tokenizer(truncate)
        size = self._whole_size
        while True:
            part = long_texts.part(text, size, "left" if truncate == "left" else "right")
            [encoding] = tokenizer.encode_batch_fast([part], add_special_tokens=not self._static)
            if len(part) == len(text):
                return self._sequence(encoding, truncate, pool_start, index)
            # Truncation keeps what it cuts off as windows, each with its own special tokens.
            tokens = len(encoding) + sum(len(window) - self._added for window in encoding.overflowing)
            if self._unknown is not None:
                tokens -= encoding.ids.count(self._unknown)
            if tokens >= self.max_length + long_texts.MARGIN:
                if truncate == "error":
                    return self._too_long(f"more than {tokens - long_texts.MARGIN}", index)
                return self._sequence(encoding, truncate, pool_start, index)
            if self._squeezes and size == self._whole_size:
                text = long_texts.squeeze(text)
            size *= long_texts.GROWTH

    def _sequence(self, encoding: Any, truncate: Truncate, pool_start: int, index: int) -> Sequence | LemniError:
        ids = np.array(encoding.ids, dtype=np.int32)
        truncated = bool(encoding.overflowing)
        if self._static:
            ids = token_ids(ids, self._unknown)
            truncated = len(ids) > self.max_length and truncate != "error"
            ids = self._cut(ids, truncate) if truncated else ids
        return self._checked(ids, truncated, pool_start, index)

    def prompt_tokens(self, prompt: str) -> int:
        """Tokens that a prompt takes at the start of a sequence, as sentence-transformers counts them."""
        ids = self._plain.encode(prompt).ids
        return len(ids) - 1 if ids and ids[-1] in self._special_ids else len(ids)

    def _tokenizer(self, truncate: Truncate) -> Any:
        if truncate == "error" or self._static:
            return self._plain
        if truncate not in self._cutting:
            from tokenizers import Tokenizer as Library

            clone = Library.from_str(self._plain.to_str())
            clone.enable_truncation(self.max_length, direction=truncate)
            self._cutting[truncate] = clone
        return self._cutting[truncate]

    def _checked(self, ids: NDArray[np.int32], truncated: bool, pool_start: int, index: int) -> Sequence | LemniError:
        if len(ids) > self.max_length:
            return self._too_long(len(ids), index)
        if len(ids) == 0:  # "" where nothing is put around a text
            ids = np.array([self._nothing], dtype=np.int32)
        return Sequence(ids, pool_start=min(pool_start, len(ids) - 1), truncated=truncated)

    def _from_ids(self, item: Seq[int], truncate: Truncate, index: int) -> Sequence | LemniError:
        if error := no_item(item, index):
            return error
        try:
            ids = np.asarray(item)
        except ValueError:  # lists of different lengths
            ids = np.array("")
        integers = ids.dtype.kind in "iu"
        if ids.dtype.kind in "fO" and all(type(token) is int for token in item):  # beyond 64 bits
            ids, integers = np.array(item, dtype=object), True
        if ids.ndim != 1 or len(ids) == 0 or not integers:
            return InvalidTokenIds(f"input[{index}] must be a list of at least one token id", item=index, param="input")
        wrong = ids[(ids < 0) | (ids >= self.vocabulary)]
        if len(wrong):
            return InvalidTokenIds(
                f"input[{index}] holds token id {int(wrong[0])}, "
                f"but this model's vocabulary is 0..{self.vocabulary - 1}. "
                "The ids come from another tokenizer: send text instead "
                "(langchain-openai: OpenAIEmbeddings(..., check_embedding_ctx_length=False)), "
                "or ids of this model's own tokenizer.",
                item=index,
                param="input",
            )
        if len(ids) <= self.max_length:
            return Sequence(ids.astype(np.int32))
        if truncate == "error":
            return self._too_long(len(ids), index)
        return Sequence(self._cut(ids, truncate).astype(np.int32), truncated=True)

    def _cut(self, ids: NDArray[Any], truncate: Truncate) -> NDArray[Any]:
        """Cut to the maximum length, but keep a special token at either end, as the tokenizer itself would."""
        first = ids[:1] if int(ids[0]) in self._special_ids else ids[:0]
        last = ids[-1:] if int(ids[-1]) in self._special_ids else ids[:0]
        body = ids[len(first) : len(ids) - len(last)]
        room = max(self.max_length - len(first) - len(last), 0)
        body = body[:room] if truncate == "right" else body[len(body) - room :]
        return np.concatenate([first, body, last])[: self.max_length]

    def _too_long(self, tokens: int | str, index: int) -> InputTooLong:
        return InputTooLong(
            f"input[{index}] has {tokens} tokens, but this model takes at most {self.max_length}. "
            "Shorten it, or let the server truncate it.",
            item=index,
            param="input",
        )

    def estimate(self, item: Item, prompt: str = "") -> int:
        """A guess at the tokens of an item, without tokenising; at least 1."""
        if isinstance(item, str):
            tokens = (len(prompt) + len(item)) // _CHARACTERS_PER_TOKEN_GUESS + 2
        else:
            if error := no_item(item, None):
                raise error
            tokens = len(item)
        return max(1, min(tokens, self.max_length))


def no_item(item: object, index: int | None) -> InvalidRequest | None:
    """What is wrong with something that is neither a text nor a list."""
    if isinstance(item, Sized) and not isinstance(item, bytes | bytearray | Mapping):
        return None
    name = "an item" if index is None else f"input[{index}]"
    shown = repr(item)[:40]
    return InvalidRequest(f"{name} is {shown}; it must be a text or a list of token ids", item=index, param="input")


def is_unicode(text: str) -> bool:
    """Whether a Python string is text: without surrogates, which JSON and careless decoding can leave alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_tokenizer(folder: Path) -> Any:
    """A `tokenizers.Tokenizer` from the folder's files.

    `tokenizer.json` first; then a WordPiece `vocab.txt`; then whatever transformers can convert (extra "torch").

    Raises:
        ModelLoadError: no file that can be read.
    """
    from tokenizers import Tokenizer as Library

    config = _read(folder / "tokenizer_config.json")
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    if whole.is_file():
        try:
            tokenizer = Library.from_file(str(whole))
        except Exception as error:  # the library raises bare Exception
            raise ModelLoadError(f"{whole}: not a readable tokenizer: {error}") from error
        _apply_lower_case(tokenizer, config)
    elif vocabulary.is_file():
        tokenizer = _word_piece(vocabulary, config)
    else:
        tokenizer = _convert(folder)
    _append_end(tokenizer, config)
    return tokenizer


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path}: not valid JSON: {error}") from error
    return config


def _lower_case_first(tokenizer: Any) -> None:
    # sentence-transformers' `do_lower_case` puts a normalizer in front of the tokenizer's own.
    from tokenizers import normalizers

    own = tokenizer.normalizer
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([] if own is None else [own])])


def _apply_lower_case(tokenizer: Any, config: dict[str, Any]) -> None:
    # transformers' BertTokenizerFast lets tokenizer_config.json overrule the normalizer of tokenizer.json.
    normalizer = tokenizer.normalizer
    lower = config.get("do_lower_case")
    if lower is not None and type(normalizer).__name__ == "BertNormalizer" and normalizer.lowercase != lower:
        normalizer.lowercase = lower
        tokenizer.normalizer = normalizer


def _word_piece(vocabulary: Path, config: dict[str, Any]) -> Any:
    from tokenizers import BertWordPieceTokenizer

    return BertWordPieceTokenizer(
        str(vocabulary),
        lowercase=config.get("do_lower_case", True),
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )._tokenizer


def _convert(folder: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise missing_extra("transformers", "torch", f"{folder}: a tokenizer without tokenizer.json") from None
    try:
        return AutoTokenizer.from_pretrained(folder, use_fast=True).backend_tokenizer
    except Exception as error:  # whatever a converter raises, the cause is the folder's files
        raise ModelLoadError(
            f"{folder}: no tokenizer.json, and transformers cannot read the tokenizer: {error}"
        ) from error


def _filler(tokenizer: Any, folder: Path) -> int:
    """The token that stands for a text without tokens, as no sequence may be empty: what a padded batch would hold."""
    config = _read(folder / "tokenizer_config.json")
    for key in ("pad_token", "eos_token", "unk_token"):
        token = config.get(key)
        token = token.get("content") if isinstance(token, dict) else token
        identity: int | None = tokenizer.token_to_id(token) if isinstance(token, str) else None
        if identity is not None:
            return identity
    return 0


def _append_end(tokenizer: Any, config: dict[str, Any]) -> None:
    """`add_eos_token` in tokenizer_config.json counts even where tokenizer.json was saved without it."""
    end = config.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    if not config.get("add_eos_token") or not isinstance(end, str):
        return
    identity = tokenizer.token_to_id(end)
    ids = tokenizer.encode("a").ids
    if identity is None or (ids and ids[-1] == identity):
        return
    from tokenizers import processors

    ending = processors.TemplateProcessing(single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, identity)])
    existing = tokenizer.post_processor
    tokenizer.post_processor = ending if existing is None else processors.Sequence([existing, ending])
