"""BERT (arXiv:1810.04805) and the encoders that differ from it by a flag: RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA.

RoBERTa and its kin count positions from `pad_token_id + 1`; ELECTRA may have embeddings narrower than its layers.
Reference: transformers, `models/bert/modeling_bert.py`, `models/roberta/…`, `models/electra/…`.
"""

from __future__ import annotations

from typing import Any

from lemni.errors import ModelLoadError
from lemni.families.parts import LayerNorm, Linear
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_ROBERTA = ("roberta", "xlm-roberta", "camembert")


class Bert:
    """Post-norm encoder with learned absolute positions."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ModelLoadError(f"position_embedding_type {config['position_embedding_type']!r} is not supported")
        self.ops = ops
        self.eps = config.get("layer_norm_eps", 1e-12)
        weights = weights.rooted(
            "embeddings.word_embeddings.weight", ("", "bert.", "roberta.", "electra.", "xlm_roberta.", "camembert.")
        )
        table = weights.scope("embeddings")
        self.words = ops.constant(table["word_embeddings.weight"])
        self.positions = ops.constant(table["position_embeddings.weight"])
        self.types = ops.constant(table["token_type_embeddings.weight"])
        self.norm = LayerNorm(table.scope("LayerNorm"), ops, self.eps)
        self.position_offset = config["pad_token_id"] + 1 if config["model_type"] in _ROBERTA else 0
        self.max_positions: int | None = int(table["position_embeddings.weight"].shape[0]) - self.position_offset
        self.project = (
            Linear(weights.scope("embeddings_project"), ops) if "embeddings_project.weight" in weights else None
        )
        self.layers = [
            Layer(config, weights.scope(f"encoder.layer.{n}"), ops) for n in range(config["num_hidden_layers"])
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        positions = inputs.positions + self.position_offset if self.position_offset else inputs.positions
        x = embed(self.words, inputs.ids) + embed(self.types, inputs.token_types) + embed(self.positions, positions)
        x = self.norm(x)
        if self.project is not None:
            x = self.project(x)
        for layer in self.layers:
            x = layer(x, inputs)
        return x


class Layer:
    """Self-attention, then two linear layers, each added to its input and normalised."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        self.ops = ops
        self.heads = config["num_attention_heads"]
        self.activation = config["hidden_act"]
        eps = config.get("layer_norm_eps", 1e-12)
        names = [f"attention.self.{name}" for name in ("query", "key", "value")]
        self.qkv = ops.constant(weights.joined([f"{name}.weight" for name in names]))
        self.qkv_bias = ops.constant(weights.joined([f"{name}.bias" for name in names]))
        self.attention_out = Linear(weights.scope("attention.output.dense"), ops)
        self.attention_norm = LayerNorm(weights.scope("attention.output.LayerNorm"), ops, eps)
        self.up = Linear(weights.scope("intermediate.dense"), ops)
        self.down = Linear(weights.scope("output.dense"), ops)
        self.norm = LayerNorm(weights.scope("output.LayerNorm"), ops, eps)
        self.size = int(weights["attention.output.dense.weight"].shape[0])

    def __call__(self, x: Tensor, inputs: Inputs) -> Tensor:
        ops = self.ops
        projected = ops.split(ops.linear(x, self.qkv, self.qkv_bias), [self.size] * 3)
        query, key, value = (ops.heads(part, self.heads) for part in projected)
        attended = ops.attention(query, key, value, inputs, scale=(self.size // self.heads) ** -0.5)
        x = self.attention_norm(x + self.attention_out(attended))
        return self.norm(x + self.down(ops.activation(self.up(x), self.activation)))
