"""How long an input may be and which side is cut: the tokenizer's part of a model's description.

Follows sentence-transformers, where `max_seq_length` of the module wins over the tokenizer, and adds one limit that
it leaves out: a table of learned positions is never read past its end. Called by `describe`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from lemni.types import TruncationSide

_NO_LIMIT = 1_000_000_000  # transformers writes 1e30 for "no limit"
_HEAD_CHARS = 4096  # tokenizer.json begins with truncation and padding; the rest can be megabytes
# Learned absolute positions: whether rows up to the padding id are reserved, as in RoBERTa.
_LEARNED_POSITIONS = {
    "bert": False, "distilbert": False, "electra": False, "albert": False, "roberta": True, "xlm-roberta": True,
    "xlm-roberta-xl": True, "camembert": True, "mpnet": True, "data2vec-text": True,
}  # fmt: skip


def max_length(config: dict[str, Any], transformer: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    """Tokens of the longest input, special tokens included; None if nothing says so.

    Args:
        config: the transformer's `config.json`.
        transformer: sentence-transformers' own file for it (`sentence_bert_config.json`).
        tokenizer: `tokenizer_config.json`.
    """
    positions = _length(config.get("max_position_embeddings", config.get("n_positions")))
    set_for_module = _length(_tokenizer_arguments(transformer).get("model_max_length"))
    set_for_module = set_for_module or _length(transformer.get("max_seq_length"))
    if set_for_module:
        known = [set_for_module]
    else:
        known = [n for n in (_length(tokenizer.get("model_max_length")), positions) if n]
    reserved = _LEARNED_POSITIONS.get(str(config.get("model_type")))
    if positions and reserved is not None and config.get("position_embedding_type", "absolute") == "absolute":
        padding = config.get("pad_token_id")
        known.append(positions - (1 if padding is None else padding) - 1 if reserved else positions)
    return min(known, default=None)


def tokenizer_side(
    what: Literal["truncation", "padding"], folder: Path, transformer: dict[str, Any], tokenizer: dict[str, Any]
) -> TruncationSide:
    """The side that the tokenizer cuts, or would pad: module arguments, tokenizer_config.json, tokenizer.json."""
    side = _tokenizer_arguments(transformer).get(f"{what}_side") or tokenizer.get(f"{what}_side")
    if side is None:
        side = str(_tokenizer_head(folder / "tokenizer.json", what).get("direction", "right")).lower()
    return "left" if side == "left" else "right"


def _tokenizer_arguments(transformer: dict[str, Any]) -> dict[str, Any]:
    arguments = transformer.get("processor_kwargs") or transformer.get("tokenizer_args")
    return arguments if isinstance(arguments, dict) else {}


def _length(value: object) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value < _NO_LIMIT else None  # type: ignore[operator,call-overload]


def _tokenizer_head(file: Path, key: str) -> dict[str, Any]:
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", errors="replace") as text:
        head = text.read(_HEAD_CHARS)
    found = re.search(rf'"{key}"\s*:\s*(?=\{{)', head)
    if found is None:
        return {}
    try:
        value, _ = json.JSONDecoder().raw_decode(head, found.end())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
