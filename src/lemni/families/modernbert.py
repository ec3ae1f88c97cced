"""ModernBERT (arXiv:2412.13663): pre-norm, rotary positions, GeGLU, and a window in two layers of three.

Layers that see everything and layers that see a window turn positions at different speeds. The first layer has no
norm before its attention. The final norm is included.
Reference: transformers, `models/modernbert/modeling_modernbert.py`, `configuration_modernbert.py`.
"""

from __future__ import annotations

from typing import Any

from lemni.families.parts import FusedGatedMLP, LayerNorm, Rotation, SelfAttention, either, expect
from lemni.families.rope import LONGEST, Rope
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.plan import FULL, Window

_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


class ModernBert:
    """Pre-norm encoder with two kinds of layers."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        expect(config, "position_embedding_type", "absolute", "rope", "sans_pos")  # old files; never read
        expect(config, "rope_scaling", None)
        self.ops = ops
        eps = config.get("norm_eps", 1e-5)
        weights = weights.rooted("embeddings.tok_embeddings.weight", ("", "model."))
        self.words = ops.constant(weights.matrix("embeddings.tok_embeddings.weight"))
        self.norm = LayerNorm(weights.scope("embeddings.norm"), ops, eps)
        self.kinds = _layer_kinds(config)
        self.max_positions: int | None = min(config.get("max_position_embeddings", 8192), LONGEST)
        dim = either(config, "hidden_size") // either(config, "num_attention_heads")
        self.ropes = {
            kind: Rope(_rope_parameters(config, kind), dim, self.max_positions, ops) for kind in sorted(set(self.kinds))
        }
        half = config.get("local_attention", 128) // 2
        windows = {_GLOBAL: FULL, _LOCAL: (half, half)}
        self.layers = [
            Layer(config, weights.scope(f"layers.{n}"), ops, eps, windows[kind], first=n == 0)
            for n, kind in enumerate(self.kinds)
        ]
        self.final_norm = LayerNorm(weights.scope("final_norm"), ops, eps)

    def __call__(self, inputs: Inputs) -> Tensor:
        x = self.norm(self.ops.embedding(self.words, inputs.ids))
        rotations = {kind: rope(inputs) for kind, rope in self.ropes.items()}
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            x = layer(x, inputs, rotations[kind])
        return self.final_norm(x)


class Layer:
    """Attention, then a gated MLP, each on the normalised input and added to it."""

    def __init__(
        self, config: dict[str, Any], weights: Weights, ops: Ops, eps: float, window: Window, *, first: bool
    ) -> None:
        self.attention_norm = None if first else LayerNorm(weights.scope("attn_norm"), ops, eps)
        heads = either(config, "num_attention_heads")
        self.attention = SelfAttention(weights, ["attn.Wqkv"], "attn.Wo", heads, ops, window=window)
        self.mlp_norm = LayerNorm(weights.scope("mlp_norm"), ops, eps)
        activation = config.get("hidden_activation", "gelu")
        self.mlp = FusedGatedMLP(weights, ["mlp.Wi"], "mlp.Wo", activation, 0, ops)

    def __call__(self, x: Tensor, inputs: Inputs, rotation: Rotation) -> Tensor:
        seen = x if self.attention_norm is None else self.attention_norm(x)
        x = x + self.attention(seen, inputs, rotation)
        return x + self.mlp(self.mlp_norm(x))


def _layer_kinds(config: dict[str, Any]) -> list[str]:
    layers = either(config, "num_hidden_layers")
    kinds = config.get("layer_types")
    if kinds:
        return [expect({"layer_types": kind}, "layer_types", _GLOBAL, _LOCAL) for kind in kinds[:layers]]
    every = config.get("global_attn_every_n_layers", 3)
    return [_LOCAL if n % every else _GLOBAL for n in range(layers)]


def _rope_parameters(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Files of the hub write one theta for each kind of layer, transformers 5 one dict for each."""
    everywhere = config.get("global_rope_theta", 160_000.0)
    # A null local theta means the global one: the models' own code.
    local = config.get("local_rope_theta", 10_000.0) or everywhere
    return {
        "rope_type": "default",
        "rope_theta": everywhere if kind == _GLOBAL else local,
        "original_max_position_embeddings": config.get("max_position_embeddings"),
        **((config.get("rope_parameters") or {}).get(kind) or {}),
    }
