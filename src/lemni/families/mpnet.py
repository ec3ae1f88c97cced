"""MPNet (arXiv:2004.09297): BERT without token types, and a bias by distance (T5's buckets) in every attention.

Positions are counted from 2, as in fairseq. Reference: transformers, `models/mpnet/modeling_mpnet.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.families.parts import LayerNames, LayerNorm, PostNormLayer, either, expect
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

_POSITION_OFFSET = 2
_BUCKETS = 32  # the reference computes with 32 whatever config.json says
_FARTHEST = 128  # distances from here on share a bucket

_NAMES = LayerNames(
    qkv=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
    out="attention.attn.o",
    attention_norm="attention.LayerNorm",
    up=("intermediate.dense",),
    down="output.dense",
    mlp_norm="output.LayerNorm",
)


class MPNet:
    """Post-norm encoder with learned absolute positions and one relative bias for all layers."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        expect(config, "relative_attention_num_buckets", _BUCKETS)
        self.ops = ops
        eps = config.get("layer_norm_eps", 1e-12)
        weights = weights.rooted("embeddings.word_embeddings.weight", ("", "mpnet."))
        table = weights.scope("embeddings")
        self.words = ops.constant(table.matrix("word_embeddings.weight"))
        positions = table.matrix("position_embeddings.weight")[_POSITION_OFFSET:]
        self.positions = ops.constant(positions)
        self.max_positions: int | None = len(positions)
        self.norm = LayerNorm(table.scope("LayerNorm"), ops, eps)
        # Beyond the last bucket nothing changes, and `relative_bias` clips.
        distances = np.arange(-_FARTHEST, _FARTHEST + 1)
        self.bias = ops.constant(weights["encoder.relative_attention_bias.weight"][buckets(distances)].T)
        self.layers = [
            PostNormLayer(
                weights.scope(f"encoder.layer.{n}"),
                _NAMES,
                ops,
                heads=either(config, "num_attention_heads"),
                activation=config.get("hidden_act", "gelu"),
                eps=eps,
            )
            for n in range(either(config, "num_hidden_layers"))
        ]

    def __call__(self, inputs: Inputs) -> Tensor:
        embed = self.ops.embedding
        x = self.norm(embed(self.words, inputs.ids) + embed(self.positions, inputs.positions))
        bias = self.ops.relative_bias(self.bias, inputs)
        for layer in self.layers:
            x = layer(x, inputs, bias=bias)
        return x


def buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each distance key - query (arXiv:1910.10683, section 2.1).

    Half of the buckets are for keys to the right. On each side near distances have one of their own, farther ones
    share them logarithmically.
    """
    side = _BUCKETS // 2
    own = side // 2
    far = np.abs(distances)
    with np.errstate(divide="ignore"):
        # In float32 as the reference, where a distance on the border of two buckets may fall to either.
        steps = np.log(far.astype(np.float32) / np.float32(own)) / np.float32(math.log(_FARTHEST / own))
    shared = own + np.maximum(steps * np.float32(side - own), 0).astype(np.int64)
    bucket: NDArray[np.int64] = np.where(far < own, far, np.minimum(shared, side - 1)) + np.where(
        distances > 0, side, 0
    )
    return bucket
