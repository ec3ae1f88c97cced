"""Heads of sequence classification, by family: from the hidden states of a sequence's tokens to its logits.

Most pool one token, put it through a dense layer with an activation and a last linear layer; they differ in names,
activations and in what is pooled. Dropout does nothing here. `head` is what `lemni.tasks.classifier` builds.
Reference: transformers, the `...ForSequenceClassification` classes and `modeling_layers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lemni.errors import ModelLoadError
from lemni.families.parts import LayerNorm, Linear, expect
from lemni.families.weights import Weights
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.runtimes.base import Head

_Pool = Callable[[Ops, Tensor, Inputs], Tensor]


def _mean(ops: Ops, x: Tensor, inputs: Inputs) -> Tensor:
    return ops.segment_sum(x, inputs) / inputs.lengths


# Names that configs give to what is pooled.
_POOLS: dict[str, _Pool] = {
    "cls": lambda ops, x, inputs: ops.first(x, inputs),
    "bos": lambda ops, x, inputs: ops.first(x, inputs),
    "mean": _mean,
    "last": lambda ops, x, inputs: ops.last(x, inputs),
}


@dataclass(frozen=True)
class Layout:
    """Where a family keeps its head, and what that computes: out(norm(activation(dense(pooled)))).

    Attributes:
        out: name of the last linear layer.
        dense: names that the layer before it may have; empty if there is none.
        activation: after `dense`.
        activation_key: the key of config.json that overrides it.
        norm: name of a layer norm after the activation.
        pooling: which of "cls", "bos", "mean", "last"; "late" pools the logits of all tokens instead.
        choices: what `classifier_pooling` of config.json may choose, the default first; empty if it is not read.
    """

    out: str
    dense: tuple[str, ...] = ()
    activation: str = "tanh"
    activation_key: str | None = None
    norm: str | None = None
    pooling: str = "cls"
    choices: tuple[str, ...] = ()


_ROBERTA = Layout("classifier.out_proj", ("classifier.dense",))
_DECODER = Layout("score", pooling="last")

# model_type -> layout.
_LAYOUTS: dict[str, Layout] = {
    "albert": Layout("classifier", ("albert.pooler",)),
    "bert": Layout("classifier", ("bert.pooler.dense",)),
    "camembert": _ROBERTA,
    "deberta-v2": Layout("classifier", ("pooler.dense",), "gelu", "pooler_hidden_act"),
    "distilbert": Layout("classifier", ("pre_classifier",), "relu"),
    "electra": Layout("classifier.out_proj", ("classifier.dense",), "gelu"),
    "eurobert": Layout("classifier", ("dense",), "gelu", choices=("late", "bos", "mean")),
    "gemma3_text": _DECODER,
    "gte": Layout("classifier", ("gte.pooler.dense",)),
    "llama": _DECODER,
    "mistral": _DECODER,
    "modernbert": Layout(
        "classifier", ("head.dense",), "gelu", "classifier_activation", "head.norm", choices=("cls", "mean")
    ),
    "mpnet": _ROBERTA,
    "new": Layout("classifier", ("new.pooler.dense",)),
    "nomic_bert": Layout("classifier", ("nomic_bert.pooler.dense", "bert.pooler.dense")),
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}


def pools_last(model_type: str) -> bool:
    """Whether a family's head sees the last token only: that of a causal decoder."""
    return _LAYOUTS.get(model_type) is _DECODER


def head(spec: ModelSpec) -> Callable[[Ops], Head]:
    """The head of a model, over ops: hidden states [T, hidden] -> logits [B, labels].

    The function that is returned raises ModelLoadError for a family without a head here, an unknown setting in
    config.json or weights that are not there.
    """

    def build(ops: Ops) -> Head:
        layout = _LAYOUTS.get(spec.model_type)
        if layout is None:
            raise ModelLoadError(
                f"Lemni has no classification head for model type {spec.model_type!r} (known: "
                f"{', '.join(_LAYOUTS)}); the transformers runtime may run it (--runtime transformers, extra 'torch')"
            )
        return _head(layout, spec.config, Weights(TensorStore(spec.weights)), ops)

    return build


def _head(layout: Layout, config: Mapping[str, Any], weights: Weights, ops: Ops) -> Head:
    pooling = expect(dict(config), "classifier_pooling", *layout.choices) if layout.choices else layout.pooling
    logits = _layers(layout, config, weights, ops)
    if pooling == "late":
        return lambda hidden, inputs: _mean(ops, logits(hidden), inputs)
    pool = _POOLS[pooling]
    return lambda hidden, inputs: logits(pool(ops, hidden, inputs))


def _layers(layout: Layout, config: Mapping[str, Any], weights: Weights, ops: Ops) -> Callable[[Tensor], Tensor]:
    """[N, hidden] -> [N, labels]."""
    out = Linear(weights.scope(layout.out), ops)
    if not layout.dense:
        return out
    name = next((name for name in layout.dense if f"{name}.weight" in weights), layout.dense[0])
    dense = Linear(weights.scope(name), ops)
    activation = (layout.activation_key and config.get(layout.activation_key)) or layout.activation
    norm = LayerNorm(weights.scope(layout.norm), ops, config.get("norm_eps", 1e-5)) if layout.norm else None

    def logits(x: Tensor) -> Tensor:
        x = ops.activation(dense(x), activation)
        return out(x if norm is None else norm(x))

    return logits
