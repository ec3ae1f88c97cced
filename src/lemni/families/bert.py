"""BERT (arXiv:1810.04805) and the encoders that differ from it by a flag: RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA.

RoBERTa and its kin count positions from `pad_token_id + 1`; ELECTRA may have embeddings narrower than its layers.
Reference: transformers, `models/bert/modeling_bert.py`, `models/roberta/…`, `models/electra/…`.
"""

from __future__ import annotations

from typing import Any

from lemni.families.parts import LayerNames, LayerNorm, Linear, PostNormLayer, either, expect
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_ROBERTA = ("roberta", "xlm-roberta", "camembert")

_NAMES = LayerNames(
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up=("intermediate.dense",),
    down="output.dense",
    mlp_norm="output.LayerNorm",
)


class Bert:
    """Post-norm encoder with learned absolute positions."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        expect(config, "position_embedding_type", "absolute")
        expect(config, "is_decoder", False)
        self.ops = ops
        eps = config.get("layer_norm_eps", 1e-12)
        weights = weights.rooted(
            "embeddings.word_embeddings.weight", ("", "bert.", "roberta.", "electra.", "xlm_roberta.", "camembert.")
        )
        table = weights.scope("embeddings")
        self.words = ops.constant(table.matrix("word_embeddings.weight"))
        roberta = config.get("model_type") in _ROBERTA
        positions = table.matrix("position_embeddings.weight")[config.get("pad_token_id", 1) + 1 if roberta else 0 :]
        self.positions = ops.constant(positions)
        self.max_positions: int | None = len(positions)
        self.types = ops.constant(table["token_type_embeddings.weight"])
        self.norm = LayerNorm(table.scope("LayerNorm"), ops, eps)
        self.project = (
            Linear(weights.scope("embeddings_project"), ops) if "embeddings_project.weight" in weights else None
        )
        self.layers = [
            PostNormLayer(
                weights.scope(f"encoder.layer.{n}"),
                _NAMES,
                ops,
                heads=either(config, "num_attention_heads"),
                activation=config.get("hidden_act", "gelu"),
                eps=eps,
            )
            for n in range(either(config, "num_hidden_layers"))
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        x = embed(self.words, inputs.ids) + embed(self.types, inputs.token_types)
        x = self.norm(x + embed(self.positions, inputs.positions))
        if self.project is not None:
            x = self.project(x)
        for layer in self.layers:
            x = layer(x, inputs)
        return x
