"""JinaBERT (arXiv:2310.19923): BERT without position embeddings; symmetric ALiBi and a gated MLP instead.

Its config.json says "bert" and `position_embedding_type: alibi`. Two layouts: jina-embeddings-v2 (`gated_layers`),
and the one of its code model, which normalises queries and keys and has a second norm after the attention
(`up_gated_layer`). References: jinaai/jina-bert-implementation and jina-bert-v2-qk-post-norm, `modeling_bert.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.families.parts import FusedGatedMLP, LayerNames, LayerNorm, PostNormLayer, SelfAttention, either, expect
from lemni.families.rope import LONGEST
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_GATES = {"geglu": "gelu", "reglu": "relu"}

_NAMES = LayerNames(
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up=("mlp.gated_layers",),
    down="mlp.wo",
    mlp_norm="mlp.layernorm",
)


class JinaBert:
    """Post-norm encoder whose attention falls off linearly with distance."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        expect(config, "position_embedding_type", "alibi")
        expect(config, "is_decoder", False)
        self.ops = ops
        eps = config.get("layer_norm_eps", 1e-12)
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "bert."))
        self.words = ops.constant(weights.matrix("embeddings.word_embeddings.weight"))
        self.types = ops.constant(weights["embeddings.token_type_embeddings.weight"])
        self.norm = LayerNorm(weights.scope("embeddings.LayerNorm"), ops, eps)
        self.max_positions: int | None = min(config.get("max_position_embeddings", 512), LONGEST)
        heads = either(config, "num_attention_heads")
        distances = np.abs(np.arange(1 - self.max_positions, self.max_positions, dtype=np.float32))
        self.bias = ops.constant(-slopes(heads)[:, None] * distances)
        self.layers = [
            _layer(config, weights.scope(f"encoder.layer.{n}"), ops, heads, eps)
            for n in range(either(config, "num_hidden_layers"))
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        x = self.norm(embed(self.words, inputs.ids) + embed(self.types, inputs.token_types))
        bias = self.ops.relative_bias(self.bias, inputs)
        for layer in self.layers:
            x = layer(x, inputs, bias=bias)
        return x


def slopes(heads: int) -> NDArray[np.float32]:
    """ALiBi's slope of each head (arXiv:2108.12409, section 3): a geometric series from 2^(-8/heads).

    If the heads are no power of two, the missing ones take every other slope of the next power's series.
    """
    power = 2 ** math.floor(math.log2(heads))
    series = [2 ** (-8 * (n + 1) / power) for n in range(power)]
    between = [2 ** (-8 * (n + 1) / (2 * power)) for n in range(0, 2 * power, 2)]
    return np.array((series + between)[:heads], dtype=np.float32)


def _layer(config: dict[str, Any], weights: Weights, ops: Ops, heads: int, eps: float) -> PostNormLayer | CodeLayer:
    activation = _GATES[expect(config, "feed_forward_type", *_GATES)]
    if "layer_norm_1.weight" in weights:
        return CodeLayer(weights, ops, heads, activation, eps)
    return PostNormLayer(weights, _NAMES, ops, heads=heads, activation=activation, eps=eps, gate=0)


class CodeLayer:
    """The code model's layer: normalised queries and keys, and the attention added and normalised twice."""

    def __init__(self, weights: Weights, ops: Ops, heads: int, activation: str, eps: float) -> None:
        def norm(name: str) -> LayerNorm:
            return LayerNorm(weights.scope(name), ops, eps)

        norms = norm("attention.self.layer_norm_q"), norm("attention.self.layer_norm_k")
        self.attention = SelfAttention(weights, _NAMES.qkv, _NAMES.out, heads, ops, norms=norms)
        self.attention_norm = norm(_NAMES.attention_norm)
        self.norm_1, self.norm_2 = norm("layer_norm_1"), norm("layer_norm_2")
        self.mlp = FusedGatedMLP(weights, ["mlp.up_gated_layer"], "mlp.down_layer", activation, 1, ops)

    def __call__(self, x: Tensor, inputs: Inputs, *, bias: Tensor) -> Tensor:
        x = self.norm_1(x + self.attention_norm(x + self.attention(x, inputs, bias=bias)))
        return self.norm_2(x + self.mlp(x))
