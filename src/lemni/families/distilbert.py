"""DistilBERT (arXiv:1910.01108): BERT without token types, with names of its own.

Reference: transformers, `models/distilbert/modeling_distilbert.py`.
"""

from __future__ import annotations

from typing import Any

from lemni.families.parts import LayerNames, LayerNorm, PostNormLayer, either
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_EPS = 1e-12  # written into the architecture

_NAMES = LayerNames(
    qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up=("ffn.lin1",),
    down="ffn.lin2",
    mlp_norm="output_layer_norm",
)


class DistilBert:
    """Post-norm encoder with learned (or sinusoidal, then stored as well) absolute positions."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        self.ops = ops
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "distilbert."))
        table = weights.scope("embeddings")
        self.words = ops.constant(table.matrix("word_embeddings.weight"))
        self.positions = ops.constant(table.matrix("position_embeddings.weight"))
        self.norm = LayerNorm(table.scope("LayerNorm"), ops, _EPS)
        self.max_positions: int | None = len(table["position_embeddings.weight"])
        self.layers = [
            PostNormLayer(
                weights.scope(f"transformer.layer.{n}"),
                _NAMES,
                ops,
                heads=either(config, "n_heads", "num_attention_heads"),
                activation=config.get("activation", "gelu"),
                eps=_EPS,
            )
            for n in range(either(config, "n_layers", "num_hidden_layers"))
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        x = self.norm(embed(self.words, inputs.ids) + embed(self.positions, inputs.positions))
        for layer in self.layers:
            x = layer(x, inputs)
        return x
