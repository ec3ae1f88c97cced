"""ALBERT (arXiv:1909.11942): BERT with narrow embeddings, and groups of layers that share their weights.

Reference: transformers, `models/albert/modeling_albert.py`.
"""

from __future__ import annotations

from typing import Any

from lemni.families.parts import LayerNames, LayerNorm, Linear, PostNormLayer, either, expect
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_NAMES = LayerNames(
    qkv=("attention.query", "attention.key", "attention.value"),
    out="attention.dense",
    attention_norm="attention.LayerNorm",
    up=("ffn",),
    down="ffn_output",
    mlp_norm="full_layer_layer_norm",
)


class Albert:
    """Post-norm encoder with learned absolute positions, whose layers are used several times."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        expect(config, "position_embedding_type", "absolute")
        self.ops = ops
        eps = config.get("layer_norm_eps", 1e-12)
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "albert."))
        table = weights.scope("embeddings")
        self.words = ops.constant(table.matrix("word_embeddings.weight"))
        self.positions = ops.constant(table.matrix("position_embeddings.weight"))
        self.types = ops.constant(table["token_type_embeddings.weight"])
        self.norm = LayerNorm(table.scope("LayerNorm"), ops, eps)
        self.max_positions: int | None = len(table["position_embeddings.weight"])
        self.project = Linear(weights.scope("encoder.embedding_hidden_mapping_in"), ops)
        groups = config.get("num_hidden_groups", 1)
        built = [
            [
                PostNormLayer(
                    weights.scope(f"encoder.albert_layer_groups.{group}.albert_layers.{n}"),
                    _NAMES,
                    ops,
                    heads=either(config, "num_attention_heads"),
                    activation=config.get("hidden_act", "gelu_new"),
                    eps=eps,
                )
                for n in range(config.get("inner_group_num", 1))
            ]
            for group in range(groups)
        ]
        count = either(config, "num_hidden_layers")
        self.layers = [layer for n in range(count) for layer in built[n * groups // count]]

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        x = embed(self.words, inputs.ids) + embed(self.types, inputs.token_types)
        x = self.project(self.norm(x + embed(self.positions, inputs.positions)))
        for layer in self.layers:
            x = layer(x, inputs)
        return x
