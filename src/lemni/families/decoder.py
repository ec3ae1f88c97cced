"""Decoders used as embedders: Llama (arXiv:2302.13971) and what differs from it by a flag: Mistral, Qwen2, Qwen3.

Causal unless config.json says `is_causal: false`, as in transformers. Qwen2 has biases on query, key and value;
Qwen3 normalises each query and key head; Mistral's layers see a window. The final norm is included.
Reference: transformers, `models/llama/modeling_llama.py`, `models/mistral/…`, `models/qwen2/…`, `models/qwen3/…`.
"""

from __future__ import annotations

from typing import Any

from lemni.families.decoder_parts import ROOTS, GatedMLP, GroupedAttention, Heads, RMSNorm, window_of
from lemni.families.rope import LONGEST, Rope, rope_parameters
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.plan import Window


class Decoder:
    """Pre-norm decoder with rotary positions."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        self.ops = ops
        heads = _heads(config)
        weights = weights.rooted("embed_tokens.weight", ROOTS)
        self.words = ops.constant(weights.matrix("embed_tokens.weight"))
        self.max_positions: int | None = min(config.get("max_position_embeddings", LONGEST), LONGEST)
        self.rope = Rope(rope_parameters(config), heads.dim, self.max_positions, ops)
        self.layers = [
            Layer(config, weights.scope(f"layers.{n}"), ops, heads, window) for n, window in enumerate(_windows(config))
        ]
        self.norm = RMSNorm(weights.scope("norm"), ops, config.get("rms_norm_eps", 1e-6))

    def __call__(self, inputs: Inputs) -> Tensor:
        x = self.ops.embedding(self.words, inputs.ids)
        rope = self.rope(inputs)
        for layer in self.layers:
            x = layer(x, rope, inputs)
        return self.norm(x)


class Layer:
    """Attention, then a gated MLP, each on the normalised input and added to it."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops, heads: Heads, window: Window) -> None:
        kind, eps = config["model_type"], config.get("rms_norm_eps", 1e-6)
        attention = weights.scope("self_attn")
        norms = None
        if kind == "qwen3":
            norms = (
                RMSNorm(attention.scope("q_norm"), ops, eps),
                RMSNorm(attention.scope("k_norm"), ops, eps),
            )
        biased = kind in ("llama", "qwen3") and bool(config.get("attention_bias", False))
        self.attention = GroupedAttention(
            attention, ops, heads, window, bias=biased or kind == "qwen2", out_bias=biased, norms=norms
        )
        self.mlp = GatedMLP(
            weights.scope("mlp"),
            ops,
            config.get("hidden_act", "silu"),
            bias=kind == "llama" and bool(config.get("mlp_bias", False)),
        )
        self.attention_norm = RMSNorm(weights.scope("input_layernorm"), ops, eps)
        self.mlp_norm = RMSNorm(weights.scope("post_attention_layernorm"), ops, eps)

    def __call__(self, x: Tensor, rope: tuple[Tensor, Tensor], inputs: Inputs) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, inputs)
        return x + self.mlp(self.mlp_norm(x))


def _heads(config: dict[str, Any]) -> Heads:
    # What a key means that is not there differs by architecture: transformers, `configuration_*.py`.
    count = config["num_attention_heads"]
    derived = 128 if config["model_type"] == "qwen3" else config["hidden_size"] // count
    dim = config.get("head_dim") or derived
    shared = config.get("num_key_value_heads", 8 if config["model_type"] == "mistral" else None)
    return Heads(count, shared or count, dim, dim**-0.5)


def _windows(config: dict[str, Any]) -> list[Window]:
    """Whom each layer sees: a window on all layers (Mistral), on the layers listed or the last ones (Qwen), on none."""
    layers, kind = config["num_hidden_layers"], config["model_type"]
    causal = config.get("is_causal") is not False
    width = None if kind == "llama" else config.get("sliding_window", 4096)
    if kind == "mistral":
        sliding = [width is not None] * layers
    else:
        if not config.get("use_sliding_window", False):
            width = None
        first = config.get("max_window_layers", 28)
        types = config.get("layer_types") or [
            "sliding_attention" if n >= first else "full_attention" for n in range(layers)
        ]
        sliding = [types[n] == "sliding_attention" for n in range(layers)]
    return [window_of(width if slides else None, causal=causal) for slides in sliding]
