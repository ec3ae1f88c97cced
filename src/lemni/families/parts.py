"""Layers that encoder families share: plain objects with their weights, no inheritance.

A family says where its weights are and in which order its parts run; what a part computes is written here once.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from lemni.errors import ModelLoadError
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.plan import FULL, Window

Rotation = tuple[Tensor, Tensor]
"""cos and sin of each token, [T, dim], for `Ops.rotate`."""


def expect(config: dict[str, Any], key: str, *values: Any) -> Any:
    """The value of `key` in config.json; the first of `values` if it is not there or null.

    Raises:
        ModelLoadError: it is none of `values`, the ones that the family knows.
    """
    value = config.get(key)
    if value is None:
        return values[0]
    if value not in values:
        known = ", ".join(repr(known) for known in values)
        raise ModelLoadError(
            f"{key} {value!r} in config.json is not supported (known: {known}); "
            "the transformers runtime may run it (--runtime transformers, extra 'torch')"
        )
    return value


def either(config: dict[str, Any], *keys: str) -> Any:
    """The value of the first of `keys` that config.json has: one fact, spelled in several ways.

    Raises:
        ModelLoadError: it has none of them.
    """
    for key in keys:
        if config.get(key) is not None:
            return config[key]
    raise ModelLoadError(f"config.json has no {' or '.join(map(repr, keys))}")


class Linear:
    """`weight` and, if it is there, `bias`."""

    def __init__(self, weights: Weights, ops: Ops) -> None:
        self.ops = ops
        self.weight = ops.constant(weights.matrix("weight"))
        bias = weights.get("bias")
        self.bias = None if bias is None else ops.constant(bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.linear(x, self.weight, self.bias)


class LayerNorm:
    """Layer norm (arXiv:1607.06450) with its weights; the bias may be missing."""

    def __init__(self, weights: Weights, ops: Ops, eps: float) -> None:
        self.ops = ops
        self.eps = eps
        self.weight = ops.constant(weights["weight"])
        bias = weights.get("bias")
        self.bias = None if bias is None else ops.constant(bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.ops.layer_norm(x, self.weight, self.bias, self.eps)


class SelfAttention:
    """softmax(q k^T / sqrt(dim)) v for each head, then a linear layer.

    Args:
        qkv: names of the linear layers that make query, key and value, one for all or one for each.
        out: name of the last linear layer.
        norms: of the queries and of the keys, all heads together, or None.
        window: who sees whom.
    """

    def __init__(
        self,
        weights: Weights,
        qkv: Seq[str],
        out: str,
        heads: int,
        ops: Ops,
        *,
        norms: tuple[LayerNorm, LayerNorm] | None = None,
        window: Window = FULL,
    ) -> None:
        self.ops = ops
        self.count = heads
        weight, bias = weights.joined([f"{name}.weight" for name in qkv]), weights.joined_biases(qkv)
        self.size = len(weight) // 3
        self.qkv = ops.constant(weight)
        self.bias = None if bias is None else ops.constant(bias)
        self.out = Linear(weights.scope(out), ops)
        self.norms = norms
        self.window = window

    def __call__(
        self, x: Tensor, inputs: Inputs, rotation: Rotation | None = None, bias: Tensor | None = None
    ) -> Tensor:
        ops = self.ops
        query, key, value = ops.split(ops.linear(x, self.qkv, self.bias), [self.size] * 3)
        if self.norms is not None:
            query, key = self.norms[0](query), self.norms[1](key)
        query, key, value = (ops.heads(part, self.count) for part in (query, key, value))
        if rotation is not None:
            query, key = ops.rotate(query, *rotation), ops.rotate(key, *rotation)
        scale = (self.size // self.count) ** -0.5
        return self.out(ops.attention(query, key, value, inputs, scale=scale, window=self.window, bias=bias))


class MLP:
    """down(act(up(x)))."""

    def __init__(self, weights: Weights, up: str, down: str, activation: str, ops: Ops) -> None:
        self.ops = ops
        self.up = Linear(weights.scope(up), ops)
        self.down = Linear(weights.scope(down), ops)
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self.ops.activation(self.up(x), self.activation))


class FusedGatedMLP:
    """down(act(gate) * up), where one product makes both (GLU variants, arXiv:2002.05202).

    Args:
        up: names of the linear layers that make both, one for all or one for each.
        gate: which half goes through the activation, 0 or 1.
    """

    def __init__(self, weights: Weights, up: Seq[str], down: str, activation: str, gate: int, ops: Ops) -> None:
        self.ops = ops
        weight, bias = weights.joined([f"{name}.weight" for name in up]), weights.joined_biases(up)
        self.size = len(weight) // 2
        self.weight = ops.constant(weight)
        self.bias = None if bias is None else ops.constant(bias)
        self.down = Linear(weights.scope(down), ops)
        self.activation = activation
        self.gate = gate

    def __call__(self, x: Tensor) -> Tensor:
        halves = self.ops.split(self.ops.linear(x, self.weight, self.bias), [self.size] * 2)
        gate, up = halves[self.gate], halves[1 - self.gate]
        return self.down(self.ops.activation(gate, self.activation) * up)


@dataclass(frozen=True)
class LayerNames:
    """Where a post-norm layer's weights are, in one layout of a model's files.

    `qkv` and `up` name one linear layer, or those that are joined into one.
    """

    qkv: tuple[str, ...]
    out: str
    attention_norm: str
    up: tuple[str, ...]
    down: str
    mlp_norm: str


def layout_of(weights: Weights, layouts: Mapping[str, Seq[LayerNames]]) -> tuple[str, LayerNames]:
    """The first layout that the weights have: where its layers are, and their names.

    Raises:
        ModelLoadError: they have none of them.
    """
    tried = []
    for where, rows in layouts.items():
        for names in rows:
            probe = f"{where}.0.{names.qkv[0]}.weight"
            if probe in weights:
                return where, names
            tried.append(repr(weights.prefix + probe))
    raise ModelLoadError(f"the weights do not fit the architecture: none of {', '.join(tried)} is there")


class PostNormLayer:
    """Attention, then an MLP, each added to its input and normalised: the layer of BERT and its kin.

    Args:
        gate: for a gated MLP, the half of `names.up` that goes through the activation; None for a plain one.
    """

    def __init__(
        self,
        weights: Weights,
        names: LayerNames,
        ops: Ops,
        *,
        heads: int,
        activation: str,
        eps: float,
        gate: int | None = None,
    ) -> None:
        self.attention = SelfAttention(weights, names.qkv, names.out, heads, ops)
        self.attention_norm = LayerNorm(weights.scope(names.attention_norm), ops, eps)
        self.mlp = (
            MLP(weights, names.up[0], names.down, activation, ops)
            if gate is None
            else FusedGatedMLP(weights, names.up, names.down, activation, gate, ops)
        )
        self.mlp_norm = LayerNorm(weights.scope(names.mlp_norm), ops, eps)

    def __call__(
        self, x: Tensor, inputs: Inputs, rotation: Rotation | None = None, bias: Tensor | None = None
    ) -> Tensor:
        x = self.attention_norm(x + self.attention(x, inputs, rotation, bias))
        return self.mlp_norm(x + self.mlp(x))
