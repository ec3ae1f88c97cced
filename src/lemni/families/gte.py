"""GTE (mGTE, arXiv:2407.19669), Alibaba's "new" model: BERT with rotary positions and a gated MLP.

Two layouts of the same model: the original (`qkv_proj`, `up_gate_proj`; model types "new" and, for Snowflake's
Arctic 2, "gte") and that of transformers 5. Token types may be missing.
References: Alibaba-NLP/new-impl, `modeling.py`; transformers, `models/gte/modeling_gte.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lemni.families.parts import LayerNames, LayerNorm, PostNormLayer, either, expect, layout_of
from lemni.families.rope import LONGEST, Rope, rope_parameters
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_THETA = {"new": 10_000.0, "gte": 160_000.0}

_ORIGINAL = LayerNames(
    qkv=("attention.qkv_proj",),
    out="attention.o_proj",
    attention_norm="attn_ln",
    up=("mlp.up_gate_proj",),
    down="mlp.down_proj",
    mlp_norm="mlp_ln",
)
_APART = replace(_ORIGINAL, qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"))  # `pack_qkv: false`
_NATIVE = LayerNames(
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    up=("mlp.up_proj", "mlp.gate_proj"),
    down="mlp.down_proj",
    mlp_norm="post_mlp_layernorm",
)
_LAYOUTS = {"encoder.layer": (_ORIGINAL, _APART), "layers": (_NATIVE,)}


class Gte:
    """Post-norm encoder with rotary positions."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        expect(config, "position_embedding_type", "rope")
        expect(config, "layer_norm_type", "layer_norm")
        expect(config, "logn_attention_scale", False)
        self.ops = ops
        eps = config.get("layer_norm_eps", 1e-12)
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "new.", "gte."))
        self.words = ops.constant(weights.matrix("embeddings.word_embeddings.weight"))
        types = weights.get("embeddings.token_type_embeddings.weight")
        self.types = None if types is None else ops.constant(types)
        self.norm = LayerNorm(weights.scope("embeddings.LayerNorm"), ops, eps)
        heads = either(config, "num_attention_heads")
        dim = config.get("head_dim") or either(config, "hidden_size") // heads
        self.max_positions: int | None = min(config.get("max_position_embeddings", 8192), LONGEST)
        theta = _THETA[config.get("model_type", "gte")]
        self.rope = Rope(rope_parameters(config, theta), dim, self.max_positions, ops)
        where, names = layout_of(weights, _LAYOUTS)
        self.layers = [
            PostNormLayer(
                weights.scope(f"{where}.{n}"),
                names,
                ops,
                heads=heads,
                activation=config.get("hidden_act", "gelu"),
                eps=eps,
                gate=1,
            )
            for n in range(either(config, "num_hidden_layers"))
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        x = self.ops.embedding(self.words, inputs.ids)
        if self.types is not None:
            x = x + self.ops.embedding(self.types, inputs.token_types)
        x = self.norm(x)
        rotation = self.rope(inputs)
        for layer in self.layers:
            x = layer(x, inputs, rotation)
        return x
