"""A model folder's tokenizer files as one `tokenizers.Tokenizer`, as sentence-transformers would open them.

`tokenizer.json` is read as it is; other formats are converted by transformers. Called by `lemni.tasks.tokenizer` and by
kinds of models that ask their tokenizer before they are loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lemni.errors import ModelLoadError, missing_extra

_SPECIAL_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


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


def lower_case_first(tokenizer: Any) -> None:
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


# By some of which transformers knows a tokenizer.
_OTHER_FILES = ("tokenizer*", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken", "spiece*", "sentencepiece*")


def _convert(folder: Path) -> Any:
    if not any(next(folder.glob(pattern), None) for pattern in _OTHER_FILES):
        raise ModelLoadError(
            f"{folder}: holds no tokenizer: put its tokenizer.json there, or name the model's own folder"
        )
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


def filler_id(tokenizer: Any, folder: Path) -> int:
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


def special_tokens(folder: Path) -> dict[str, str]:
    """`bos_token`, `eos_token` and so on of a tokenizer, by their names in transformers."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        config = _read(folder / name)
        for key in _SPECIAL_TOKENS:
            token = config.get(key)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                found[key] = token
    return found
