"""Gemma 3 (arXiv:2503.19786), text only: EmbeddingGemma, which sees both sides, and the causal original.

Embeddings are scaled by sqrt(hidden size), norms stand before and after each part with weights stored less one,
and most layers see a window and turn positions faster. The final norm is included.
Reference: transformers, `models/gemma3/modeling_gemma3.py`, `configuration_gemma3.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lemni.errors import ModelLoadError
from lemni.families.decoder_parts import ROOTS, GatedMLP, GroupedAttention, Heads, RMSNorm, window_of
from lemni.families.rope import LONGEST, Rope, rope_parameters
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.plan import Window

_THETA = {"full_attention": 1_000_000.0, "sliding_attention": 10_000.0}


class Gemma3:
    """Decoder with norms on both sides of each part and two kinds of layers."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        if config.get("attn_logit_softcapping") is not None:
            raise ModelLoadError("attn_logit_softcapping is not supported")
        self.ops = ops
        weights = weights.rooted("embed_tokens.weight", ROOTS)
        dim = config.get("head_dim", 256)
        heads = Heads(
            config.get("num_attention_heads", 8),
            config.get("num_key_value_heads", 4),
            dim,
            config.get("query_pre_attn_scalar", 256) ** -0.5,
        )
        self.words = ops.constant(weights.matrix("embed_tokens.weight"))
        # A constant, so that it is rounded to the precision of the computation, as the reference does.
        self.scale = ops.constant(np.array(config["hidden_size"] ** 0.5, dtype=np.float32))
        self.kinds = _layer_kinds(config)
        self.max_positions: int | None = min(config.get("max_position_embeddings", 131072), LONGEST)
        self.ropes = {
            kind: Rope(_rope_parameters(config, kind), dim, self.max_positions, ops) for kind in sorted(set(self.kinds))
        }
        self.layers = [
            Layer(config, weights.scope(f"layers.{n}"), ops, heads, _window(config, kind))
            for n, kind in enumerate(self.kinds)
        ]
        self.norm = RMSNorm(weights.scope("norm"), ops, config.get("rms_norm_eps", 1e-6), shift=1)

    def __call__(self, inputs: Inputs) -> Tensor:
        x = self.ops.embedding(self.words, inputs.ids) * self.scale
        ropes = {kind: rope(inputs) for kind, rope in self.ropes.items()}
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            x = layer(x, ropes[kind], inputs)
        return self.norm(x)


class Layer:
    """Attention, then a gated MLP, each normalised before and after and added to its input."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops, heads: Heads, window: Window) -> None:
        def norm(name: str) -> RMSNorm:
            return RMSNorm(weights.scope(name), ops, config.get("rms_norm_eps", 1e-6), shift=1)

        bias = bool(config.get("attention_bias", False))
        norms = norm("self_attn.q_norm"), norm("self_attn.k_norm")
        self.attention = GroupedAttention(
            weights.scope("self_attn"), ops, heads, window, bias=bias, out_bias=bias, norms=norms
        )
        self.mlp = GatedMLP(weights.scope("mlp"), ops, config.get("hidden_activation") or "gelu_pytorch_tanh")
        self.before_attention, self.after_attention = norm("input_layernorm"), norm("post_attention_layernorm")
        self.before_mlp, self.after_mlp = norm("pre_feedforward_layernorm"), norm("post_feedforward_layernorm")

    def __call__(self, x: Tensor, rope: tuple[Tensor, Tensor], inputs: Inputs) -> Tensor:
        x = x + self.after_attention(self.attention(self.before_attention(x), rope, inputs))
        return x + self.after_mlp(self.mlp(self.before_mlp(x)))


def _layer_kinds(config: dict[str, Any]) -> list[str]:
    layers = config["num_hidden_layers"]
    if config.get("layer_types"):
        return list(config["layer_types"][:layers])
    # Older files: every Nth layer sees everything.
    pattern = config.get("sliding_window_pattern", 6)
    return ["sliding_attention" if (n + 1) % pattern else "full_attention" for n in range(layers)]


def _window(config: dict[str, Any], kind: str) -> Window:
    width = config.get("sliding_window", 4096) if kind == "sliding_attention" else None
    if config.get("use_bidirectional_attention"):
        # config.json holds the width of the whole window, both sides together.
        return window_of(None if width is None else width // 2, causal=False)
    return window_of(width, causal=config.get("is_causal") is not False)


def _rope_parameters(config: dict[str, Any], kind: str) -> dict[str, Any]:
    by_kind = (config.get("rope_parameters") or {}).get(kind)
    if by_kind is not None:
        config = {**config, "rope_parameters": by_kind, "rope_scaling": None}
    elif kind == "sliding_attention":
        # Scaling in the old spelling is for the layers that see everything.
        theta = config.get("rope_local_base_freq", _THETA[kind])
        config = {**config, "rope_theta": theta, "rope_scaling": None, "rope_parameters": None}
    return rope_parameters(config, _THETA[kind])
