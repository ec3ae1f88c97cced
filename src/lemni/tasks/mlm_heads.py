"""The head of a masked language model over ops: hidden states -> one logit per term of the vocabulary.

SPLADE pools these logits (`sparse.py`). A row per architecture, as they differ in names only. Encoder weights stay
with `lemni.families`; the output matrix is the table of word embeddings unless the file has one of its own.
Reference: transformers, `...ForMaskedLM` of each model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lemni.errors import ModelLoadError
from lemni.families.parts import LayerNorm, Linear
from lemni.families.weights import Weights
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.ops.base import Inputs, Ops, Tensor

CHUNK = 8192
"""Terms whose logits are computed at a time. All of them at once would be gigabytes: 8192 tokens by the 250,002 terms
of XLM-RoBERTa are 8 GB. So chunks bound what one long text needs, which no budget of tokens can."""

Pool = Callable[[Tensor, Inputs], Tensor]
"""Logits of some terms, [T, chunk] -> [B, chunk]."""


@dataclass(frozen=True)
class MLMNames:
    """Where an architecture keeps its head.

    Attributes:
        dense, norm: the transform before the output matrix.
        decoder: the output matrix, if it is not tied.
        biases: of the output; the first that is there. Untied models save one that they do not use beside it.
        words: the table of word embeddings, to which the output matrix is tied.
        activation: key in config.json, or None for the exact GELU.
        eps: key in config.json, or None for 1e-12.
    """

    dense: str
    norm: str
    decoder: str
    biases: tuple[str, ...]
    words: str
    activation: str | None = "hidden_act"
    eps: str | None = "layer_norm_eps"


def _bert(prefix: str, norm: str = "LayerNorm") -> MLMNames:
    head = "cls.predictions"
    return MLMNames(
        f"{head}.transform.dense",
        f"{head}.transform.{norm}",
        f"{head}.decoder.weight",
        (f"{head}.decoder.bias", f"{head}.bias"),
        f"{prefix}.embeddings.word_embeddings.weight",
    )


def _roberta(prefix: str) -> MLMNames:
    return MLMNames(
        "lm_head.dense",
        "lm_head.layer_norm",
        "lm_head.decoder.weight",
        ("lm_head.decoder.bias", "lm_head.bias"),
        f"{prefix}.embeddings.word_embeddings.weight",
        activation=None,
    )


# model_type of config.json -> names.
_NAMES: dict[str, MLMNames] = {
    "albert": MLMNames(
        "predictions.dense",
        "predictions.LayerNorm",
        "predictions.decoder.weight",
        ("predictions.decoder.bias", "predictions.bias"),
        "albert.embeddings.word_embeddings.weight",
    ),
    "bert": _bert("bert"),
    "camembert": _roberta("roberta"),
    "deberta-v2": _bert("deberta"),
    "distilbert": MLMNames(
        "vocab_transform",
        "vocab_layer_norm",
        "vocab_projector.weight",
        ("vocab_projector.bias",),
        "distilbert.embeddings.word_embeddings.weight",
        activation="activation",
        eps=None,
    ),
    "electra": MLMNames(
        "generator_predictions.dense",
        "generator_predictions.LayerNorm",
        "generator_lm_head.weight",
        ("generator_lm_head.bias",),
        "electra.embeddings.word_embeddings.weight",
        activation=None,
    ),
    "modernbert": MLMNames(
        "head.dense",
        "head.norm",
        "decoder.weight",
        ("decoder.bias",),
        "model.embeddings.tok_embeddings.weight",
        activation="classifier_activation",
        eps="norm_eps",
    ),
    "mpnet": _roberta("mpnet"),
    "roberta": _roberta("roberta"),
    "xlm-roberta": _roberta("roberta"),
}


def mlm_head(spec: ModelSpec, pool: Callable[[Ops], Pool]) -> Callable[[Ops], Callable[[Tensor, Inputs], Tensor]]:
    """The head with its logits pooled: hidden states [T, hidden] -> [B, vocabulary].

    Raises:
        ModelLoadError: an architecture whose head is not known here, or weights without one.
    """
    if spec.model_type not in _NAMES:
        raise ModelLoadError(
            f"{spec.files.id}: the masked-LM head of {spec.model_type!r} models is not known; "
            f"known are {', '.join(sorted(_NAMES))}"
        )
    if not spec.weights:
        raise ModelLoadError(f"{spec.files.id}: the masked-LM head of a sparse model is read from safetensors only")
    names = _NAMES[spec.model_type]
    weights = Weights(TensorStore(spec.weights))
    if f"{names.dense}.weight" not in weights:
        raise ModelLoadError(
            f"{spec.files.id}: has no masked-LM head ({names.dense}.weight), which makes the terms of a sparse model"
        )

    def build(ops: Ops) -> Callable[[Tensor, Inputs], Tensor]:
        transform, chunks, pooled = (
            _transform(spec.config, names, weights, ops),
            _chunks(names, weights, ops),
            pool(ops),
        )

        zeros = ops.constant(np.zeros((1, weights[f"{names.norm}.weight"].shape[0]), dtype=np.float32))

        def head(hidden: Tensor, inputs: Inputs) -> Tensor:
            x = transform(hidden)
            broken = ops.segment_sum(ops.linear(x, zeros), inputs)  # [B, 1]: NaN, which a maximum may hide, or 0
            parts = [pooled(ops.linear(x, matrix, bias), inputs) + broken for matrix, bias in chunks]
            return parts[0] if len(parts) == 1 else ops.concat(parts)

        return head

    return build


def _transform(config: dict[str, Any], names: MLMNames, weights: Weights, ops: Ops) -> Callable[[Tensor], Tensor]:
    dense = Linear(weights.scope(names.dense), ops)
    norm = LayerNorm(weights.scope(names.norm), ops, 1e-12 if names.eps is None else config.get(names.eps, 1e-12))
    activation = "gelu" if names.activation is None else str(config.get(names.activation, "gelu"))
    return lambda x: norm(ops.activation(dense(x), activation))


def _chunks(names: MLMNames, weights: Weights, ops: Ops) -> list[tuple[Tensor, Tensor | None]]:
    """Output matrix and bias, cut along the vocabulary. A matrix of its own counts even where the config says tied,
    as in transformers."""
    matrix = weights.matrix(names.decoder if names.decoder in weights else names.words)
    bias = next((weights[name] for name in names.biases if name in weights), None)
    cuts = [slice(at, at + CHUNK) for at in range(0, len(matrix), CHUNK)]
    return [(ops.constant(matrix[cut]), None if bias is None else ops.constant(bias[cut])) for cut in cuts]
