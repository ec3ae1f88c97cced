"""Layers that decoder families share: plain objects with their weights, no inheritance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.plan import CAUSAL, FULL, Window

# The same decoder is saved bare (AutoModel), below a causal LM, or below a model that also sees images.
ROOTS = ("", "model.", "language_model.", "model.language_model.", "language_model.model.")


def window_of(width: int | None, *, causal: bool) -> Window:
    """Whom a layer sees: `width` tokens, itself included, to the left; both sides, itself not counted, if not causal.

    Reference: transformers, `masking_utils.py`, where the symmetric window counts differently too.
    """
    if width is None:
        return CAUSAL if causal else FULL
    return (width - 1, 0) if causal else (width, width)


class RMSNorm:
    """Root mean square norm (arXiv:1910.07467). `shift` 1 for weights that are stored less one, as in Gemma."""

    def __init__(self, weights: Weights, ops: Ops, eps: float, shift: float = 0.0) -> None:
        self.ops = ops
        self.eps = eps
        weight = weights["weight"]
        self.weight = ops.constant(weight.astype(np.float32) + np.float32(shift) if shift else weight)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.rms_norm(x, self.weight, self.eps)


@dataclass(frozen=True)
class Heads:
    """Sizes of attention: `count` query heads in groups that share one of `shared` key and value heads."""

    count: int
    shared: int
    dim: int
    scale: float


class GroupedAttention:
    """Rotary attention with grouped heads.

    Args:
        weights: view with q_proj, k_proj, v_proj and o_proj.
        bias: whether query, key and value have one.
        out_bias: whether the output has one.
        norms: of each query head and each key head, or None.
    """

    def __init__(
        self,
        weights: Weights,
        ops: Ops,
        heads: Heads,
        window: Window,
        *,
        bias: bool = False,
        out_bias: bool = False,
        norms: tuple[RMSNorm, RMSNorm] | None = None,
    ) -> None:
        self.ops = ops
        self.heads = heads
        self.window = window
        self.norms = norms
        names = ("q_proj", "k_proj", "v_proj")
        self.qkv = ops.constant(weights.joined([f"{name}.weight" for name in names]))
        self.bias = ops.constant(weights.joined([f"{name}.bias" for name in names])) if bias else None
        self.out = ops.constant(weights.matrix("o_proj.weight"))
        self.out_bias = ops.constant(weights["o_proj.bias"]) if out_bias else None

    def __call__(self, x: Tensor, rope: tuple[Tensor, Tensor], inputs: Inputs) -> Tensor:
        ops, heads = self.ops, self.heads
        sizes = [heads.count * heads.dim, heads.shared * heads.dim, heads.shared * heads.dim]
        query, key, value = ops.split(ops.linear(x, self.qkv, self.bias), sizes)
        query, key = ops.heads(query, heads.count), ops.heads(key, heads.shared)
        value = ops.heads(value, heads.shared)
        if self.norms is not None:
            query, key = self.norms[0](query), self.norms[1](key)
        query, key = ops.rotate(query, *rope), ops.rotate(key, *rope)
        attended = ops.attention(query, key, value, inputs, scale=heads.scale, window=self.window)
        return ops.linear(attended, self.out, self.out_bias)


class GatedMLP:
    """down(act(gate(x)) * up(x)) (GLU variants, arXiv:2002.05202)."""

    def __init__(self, weights: Weights, ops: Ops, activation: str, *, bias: bool = False) -> None:
        self.ops = ops
        self.activation = activation
        self.gate, self.up, self.down = (
            (ops.constant(weights.matrix(f"{name}.weight")), ops.constant(weights[f"{name}.bias"]) if bias else None)
            for name in ("gate_proj", "up_proj", "down_proj")
        )

    def __call__(self, x: Tensor) -> Tensor:
        ops = self.ops
        gated = ops.activation(ops.linear(x, *self.gate), self.activation) * ops.linear(x, *self.up)
        return ops.linear(gated, *self.down)
