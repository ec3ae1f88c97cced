"""Layers that several families share: plain objects with their weights, no inheritance."""

from __future__ import annotations

from lemni.families.weights import Weights
from lemni.ops.base import Ops, Tensor


class Linear:
    """`weight` and, if it is there, `bias`."""

    def __init__(self, weights: Weights, ops: Ops) -> None:
        self.ops = ops
        self.weight = ops.constant(weights["weight"])
        bias = weights.get("bias")
        self.bias = None if bias is None else ops.constant(bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.linear(x, self.weight, self.bias)


class LayerNorm:
    """Layer norm with its weights."""

    def __init__(self, weights: Weights, ops: Ops, eps: float) -> None:
        self.ops = ops
        self.eps = eps
        self.weight = ops.constant(weights["weight"])
        bias = weights.get("bias")
        self.bias = None if bias is None else ops.constant(bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps)
