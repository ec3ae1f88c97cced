"""DeBERTa v2 and v3 (arXiv:2006.03654, arXiv:2111.09543): attention scores from contents and from relative positions.

One table of relative positions, in buckets that grow with the distance, serves all layers; each layer makes position
keys and position queries of it, once, when the model is loaded. The xlarge models of v2 have a convolution beside their
first layer. Not DeBERTa v1 (`model_type` "deberta").

Reference: transformers, `models/deberta_v2/modeling_deberta_v2.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.families.parts import MLP, LayerNorm, Linear, either, expect
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.numpy import NumpyOps

_NUMPY = NumpyOps()


class DebertaV2:
    """Post-norm encoder with disentangled attention; learned absolute positions only if `position_biased_input`."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        self.ops = ops
        eps = config.get("layer_norm_eps", 1e-7)
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "deberta."))
        encoder = weights.scope("encoder")
        table = weights.scope("embeddings")
        self.words = ops.constant(table.matrix("word_embeddings.weight"))
        # By the config, for a file may hold positions that its model does not use.
        positions = table["position_embeddings.weight"] if config.get("position_biased_input", True) else None
        self.positions = None if positions is None else ops.constant(positions)
        self.max_positions: int | None = None if positions is None else len(positions)
        self.types = (
            ops.constant(table["token_type_embeddings.weight"]) if config.get("type_vocab_size", 0) > 0 else None
        )
        self.project = Linear(table.scope("embed_proj"), ops) if "embed_proj.weight" in table else None
        self.norm = LayerNorm(table.scope("LayerNorm"), ops, eps)
        relative = _relative(config, encoder, eps)
        self.layers = [
            _Layer(encoder.scope(f"layer.{n}"), config, relative, eps, ops)
            for n in range(either(config, "num_hidden_layers"))
        ]
        kernel = expect(config, "conv_kernel_size", 0, 3)
        self.convolution = _Convolution(encoder.scope("conv"), config, eps, ops) if kernel else None

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        x = embed(self.words, inputs.ids)
        if self.positions is not None:
            x = x + embed(self.positions, inputs.positions)
        if self.types is not None:
            x = x + embed(self.types, inputs.token_types)
        if self.project is not None:
            x = self.project(x)
        embedded = x = self.norm(x)
        for n, layer in enumerate(self.layers):
            x = layer(x, inputs)
            if n == 0 and self.convolution is not None:
                x = self.convolution(embedded, x, inputs)
        return x


@dataclass(frozen=True)
class Buckets:
    """The row of the table of relative positions for each distance key - query (arXiv:2006.03654, eq. 3).

    Attributes:
        span: rows on each side; the table has twice as many.
        farthest: with it, near distances (up to half of `span`) have a row of their own, and farther ones up to this
            one share the other half logarithmically (`make_log_bucket_position`); None gives every distance its own.
    """

    span: int
    farthest: int | None

    def __call__(self, distances: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = -distances  # the table counts query - key
        if self.farthest is not None:
            middle = self.span // 2
            # In float32 as the reference, where a distance on the border of two buckets may fall to either.
            far = np.maximum(np.abs(distances), middle).astype(np.float32) / np.float32(middle)
            steps = np.log(far) / np.log(np.float32((self.farthest - 1) / middle)) * np.float32(middle - 1)
            shared = np.ceil(steps).astype(np.int64) + middle
            rows = np.where(np.abs(distances) <= middle, rows, np.sign(rows) * shared)
        clipped: NDArray[np.int64] = np.clip(rows + self.span, 0, 2 * self.span - 1)
        return clipped


@dataclass(frozen=True)
class _Relative:
    """What all layers share of relative positions: the table, float32 [N, hidden], and its rows by distance."""

    table: NDArray[np.float32]
    buckets: Buckets


def _relative(config: dict[str, Any], encoder: Weights, eps: float) -> _Relative | None:
    """None for a model without relative attention."""
    if not config.get("relative_attention", False):
        return None
    farthest = config.get("max_relative_positions", -1)
    if farthest < 1:
        farthest = either(config, "max_position_embeddings")
    count = config.get("position_buckets", -1)
    buckets = Buckets(count, farthest) if count > 0 else Buckets(farthest, None)
    table = _NUMPY.constant(encoder["rel_embeddings.weight"][: 2 * buckets.span])
    if "layer_norm" in _names(config, "norm_rel_ebd", "none", "layer_norm"):
        table = LayerNorm(encoder.scope("LayerNorm"), _NUMPY, eps)(table)
    return _Relative(table, buckets)


def _names(config: dict[str, Any], key: str, *known: str) -> set[str]:
    """A list of names, or names with `|` between them. Raises ModelLoadError for one that is not `known`."""
    value = config.get(key) or []
    names = value.lower().split("|") if isinstance(value, str) else value
    return {expect({key: name.strip()}, key, *known) for name in names}


class _Layer:
    """Attention, then an MLP, each added to its input and normalised."""

    def __init__(
        self, weights: Weights, config: dict[str, Any], relative: _Relative | None, eps: float, ops: Ops
    ) -> None:
        self.attention = _Attention(weights.scope("attention.self"), config, relative, ops)
        self.out = Linear(weights.scope("attention.output.dense"), ops)
        self.attention_norm = LayerNorm(weights.scope("attention.output.LayerNorm"), ops, eps)
        self.mlp = MLP(weights, "intermediate.dense", "output.dense", config.get("hidden_act", "gelu"), ops)
        self.mlp_norm = LayerNorm(weights.scope("output.LayerNorm"), ops, eps)

    def __call__(self, x: Tensor, inputs: Inputs) -> Tensor:
        x = self.attention_norm(x + self.out(self.attention(x, inputs)))
        return self.mlp_norm(x + self.mlp(x))


class _Attention:
    """Disentangled attention, or plain attention where no term with positions is wanted."""

    def __init__(self, weights: Weights, config: dict[str, Any], relative: _Relative | None, ops: Ops) -> None:
        self.ops = ops
        self.count = either(config, "num_attention_heads")
        qkv = ("query_proj", "key_proj", "value_proj")
        weight, bias = weights.joined([f"{name}.weight" for name in qkv]), weights.joined_biases(qkv)
        self.size = len(weight) // 3
        self.qkv = ops.constant(weight)
        self.bias = None if bias is None else ops.constant(bias)
        terms = _names(config, "pos_att_type", "c2p", "p2c")  # content to position, position to content
        # The reference counts the terms that are named, also where it leaves them out.
        self.scale = 1 / math.sqrt(self.size // self.count * (1 + len(terms)))
        self.position_keys = self.position_queries = None
        self.buckets = None if relative is None or not terms else relative.buckets
        if relative is not None:
            shared = config.get("share_att_key", False)
            if "c2p" in terms:
                self.position_keys = self._positions(relative, weights.scope("key_proj" if shared else "pos_key_proj"))
            if "p2c" in terms:
                name = "query_proj" if shared else "pos_query_proj"
                self.position_queries = self._positions(relative, weights.scope(name))

    def _positions(self, relative: _Relative, weights: Weights) -> Tensor:
        """Constant [heads, N, D], computed in float32."""
        rows = Linear(weights, _NUMPY)(relative.table)
        return self.ops.constant(rows.reshape(len(rows), self.count, -1).transpose(1, 0, 2))

    def __call__(self, x: Tensor, inputs: Inputs) -> Tensor:
        ops = self.ops
        parts = ops.split(ops.linear(x, self.qkv, self.bias), [self.size] * 3)
        query, key, value = (ops.heads(part, self.count) for part in parts)
        if self.buckets is None:
            return ops.attention(query, key, value, inputs, scale=self.scale)
        return ops.disentangled_attention(
            query,
            key,
            value,
            inputs,
            scale=self.scale,
            position_keys=self.position_keys,
            position_queries=self.position_queries,
            buckets=self.buckets,
        )


class _Convolution:
    """norm(x + act(convolution of the embeddings)), after the first layer of v2's xlarge models."""

    def __init__(self, weights: Weights, config: dict[str, Any], eps: float, ops: Ops) -> None:
        expect(config, "conv_groups", 1)
        self.ops = ops
        kernel = weights["conv.weight"]  # [hidden, hidden, 3]
        self.weight = ops.constant(kernel.transpose(0, 2, 1).reshape(len(kernel), -1))
        self.bias = ops.constant(weights["conv.bias"])
        self.activation = config.get("conv_act", "tanh")
        self.norm = LayerNorm(weights.scope("LayerNorm"), ops, eps)

    def __call__(self, embedded: Tensor, x: Tensor, inputs: Inputs) -> Tensor:
        near = self.ops.linear(self.ops.neighbours(embedded, inputs), self.weight, self.bias)
        return self.norm(x + self.ops.activation(near, self.activation))
