"""Model families: one file per architecture, written once over `lemni.ops`.

A family is a class made from (config, weights, ops) and called with one packed batch; it returns the hidden states
[T, hidden] of the last layer. The table holds names only: a family is imported when a model asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from lemni.errors import ModelLoadError
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

# model_type of config.json -> module and class.
FAMILIES: dict[str, tuple[str, str]] = {
    "albert": ("albert", "Albert"),
    "bert": ("bert", "Bert"),
    "camembert": ("bert", "Bert"),
    "deberta-v2": ("deberta", "DebertaV2"),
    "distilbert": ("distilbert", "DistilBert"),
    "electra": ("bert", "Bert"),
    "eurobert": ("eurobert", "EuroBert"),
    "gemma3_text": ("gemma3", "Gemma3"),
    "gte": ("gte", "Gte"),
    "llama": ("decoder", "Decoder"),
    "mistral": ("decoder", "Decoder"),
    "model2vec": ("static", "Static"),
    "modernbert": ("modernbert", "ModernBert"),
    "mpnet": ("mpnet", "MPNet"),
    "new": ("gte", "Gte"),
    "nomic_bert": ("nomic_bert", "NomicBert"),
    "qwen2": ("decoder", "Decoder"),
    "qwen3": ("decoder", "Decoder"),
    "roberta": ("bert", "Bert"),
    "xlm-roberta": ("bert", "Bert"),
}

# Models that borrow another's model_type: what tells them apart in config.json -> module and class.
_BORROWED: dict[tuple[str, str, str], tuple[str, str]] = {
    ("bert", "position_embedding_type", "alibi"): ("jina_bert", "JinaBert"),
}


class Family(Protocol):
    """One architecture with its weights, on one array library.

    Attributes:
        max_positions: tokens of the longest sequence that the positions allow; None if they do not end.
    """

    max_positions: int | None

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None: ...

    def __call__(self, inputs: Inputs) -> Tensor:
        """Hidden states [T, hidden] after the last layer (and its final norm, if the model has one)."""
        ...


def family_class(model_type: str, config: Mapping[str, Any] | None = None) -> type[Family]:
    """The class for a `model_type`, and for the `config` where that does not say enough.

    Raises:
        ModelLoadError: it is not in the table.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ModelLoadError(
            f"model type {model_type!r} is none of Lemni's own families ({known}); "
            "the transformers runtime may run it (--runtime transformers, extra 'torch')"
        )
    module, name = FAMILIES[model_type]
    for (borrowed, key, value), other in _BORROWED.items():
        if model_type == borrowed and config is not None and config.get(key) == value:
            module, name = other
    cls: type[Family] = getattr(import_module(f"lemni.families.{module}"), name)
    return cls
