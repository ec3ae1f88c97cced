"""The vocabulary in plain numpy: what every op means, one sequence at a time and without tricks.

The other libraries are compared with it. Static embeddings and the pooling of ONNX models run on it too; whole
transformers would be slow. Everything is float32; attention and norms are the formulas of the papers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.hub.codes import Weight, floats_of
from lemni.ops.base import activation_named
from lemni.ops.plan import FULL, Buckets, Window
from lemni.types import PackedBatch

Tensor: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float32]

_erf = np.vectorize(math.erf, otypes=[np.float32])


def _sigmoid(x: Floats) -> Floats:
    # Through tanh, which does not overflow for large negative values.
    result: Floats = np.float32(0.5) * (1 + np.tanh(x / 2))
    return result


def _gelu(x: Floats) -> Floats:
    result: Floats = x * (1 + _erf(x / np.float32(math.sqrt(2)))) / 2
    return result


def _gelu_tanh(x: Floats) -> Floats:
    result: Floats = x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3))) / 2
    return result


_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * _sigmoid(np.float32(1.702) * x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * _sigmoid(x),
    "swish": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "linear": lambda x: x,
}


class NumpyInputs:
    """`lemni.ops.base.Inputs` of one packed batch."""

    def __init__(self, batch: PackedBatch) -> None:
        self.batch = batch

    @property
    def ids(self) -> Tensor:
        return self.batch.ids

    @property
    def positions(self) -> Tensor:
        return self.batch.positions

    @property
    def token_types(self) -> Tensor:
        return self.batch.token_types

    @property
    def places(self) -> Tensor:
        return (self.batch.positions[:, None] + 1).astype(np.float32)

    @property
    def lengths(self) -> Tensor:
        return self.batch.lengths[:, None].astype(np.float32)

    @property
    def pool_mask(self) -> Tensor:
        pooled = self.batch.positions >= np.repeat(self.batch.pool_starts, self.batch.lengths)
        return pooled[:, None].astype(np.float32)

    @cached_property
    def spans(self) -> list[slice]:
        """The tokens of each sequence."""
        starts = self.batch.starts
        return [slice(start, start + length) for start, length in zip(starts, self.batch.lengths, strict=True)]

    @cached_property
    def attended(self) -> NDArray[np.int32]:
        """int32 [B]: how many tokens of each sequence are seen, from its first on."""
        unattended = self.batch.unattended
        return self.batch.lengths if unattended is None else self.batch.lengths - unattended


class NumpyOps:
    """`lemni.ops.base.Ops` in float32."""

    def constant(self, array: Weight) -> Tensor:
        array = floats_of(array)
        return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array

    def embedding(self, table: Tensor, ids: Tensor) -> Tensor:
        rows: Tensor = table[ids]
        return rows

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        product: Tensor = x @ weight.T
        return product if bias is None else product + bias

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        centred = x - x.mean(-1, keepdims=True)
        normal: Tensor = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(eps))
        if weight is not None:
            normal = normal * weight
        return normal if bias is None else normal + bias

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normal: Tensor = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(eps)) * weight
        return normal

    def activation(self, x: Tensor, name: str) -> Tensor:
        return activation_named(name, _ACTIVATIONS)(x)

    def split(self, x: Tensor, sizes: Seq[int]) -> list[Tensor]:
        return np.split(x, np.cumsum(sizes)[:-1], axis=-1)

    def concat(self, xs: Seq[Tensor]) -> Tensor:
        return np.concatenate(list(xs), axis=-1)

    def heads(self, x: Tensor, count: int) -> Tensor:
        return x.reshape(len(x), count, -1)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
        width = cos.shape[-1]
        rotary, rest = x[..., :width], x[..., width:]
        turned = np.empty_like(rotary)
        # The pairs (a, b) that are turned into (-b, a).
        first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else _halves(width)
        turned[..., first], turned[..., second] = -rotary[..., second], rotary[..., first]
        return np.concatenate([rotary * cos[:, None] + turned * sin[:, None], rest], axis=-1)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: NumpyInputs,
        *,
        scale: float,
        window: Window = FULL,
        bias: Tensor | None = None,
    ) -> Tensor:
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat(group, axis=1), value.repeat(group, axis=1)
        parts = []
        for span, attended in zip(inputs.spans, inputs.attended, strict=True):
            scores = np.float32(scale) * np.einsum("qhd,khd->hqk", query[span], key[span])
            length = scores.shape[-1]
            if bias is not None:
                scores = scores + bias[:, :length, :length]
            visible = _visible(length, window) & (np.arange(length) < attended)
            scores = np.where(visible, scores, -np.inf)
            parts.append(_weighted(scores, value[span]))
        return np.concatenate(parts)

    def relative_bias(self, table: Tensor, inputs: NumpyInputs) -> Tensor:
        longest = np.arange(int(inputs.batch.lengths.max()))
        middle = table.shape[1] // 2
        bias: Tensor = table[:, np.clip(longest - longest[:, None], -middle, middle) + middle]
        return bias

    def disentangled_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: NumpyInputs,
        *,
        scale: float,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        buckets: Buckets,
    ) -> Tensor:
        parts = []
        for span, attended in zip(inputs.spans, inputs.attended, strict=True):
            scores = np.einsum("qhd,khd->hqk", query[span], key[span])
            places = np.arange(scores.shape[-1])
            bucket = buckets(places - places[:, None])[None]  # [1, queries, keys]
            if position_keys is not None:
                by_bucket = np.einsum("qhd,hnd->hqn", query[span], position_keys)
                scores = scores + np.take_along_axis(by_bucket, bucket, axis=2)
            if position_queries is not None:
                by_bucket = np.einsum("hnd,khd->hnk", position_queries, key[span])
                scores = scores + np.take_along_axis(by_bucket, bucket, axis=1)
            scores = np.where(places < attended, np.float32(scale) * scores, -np.inf)
            parts.append(_weighted(scores, value[span]))
        return np.concatenate(parts)

    def neighbours(self, x: Tensor, inputs: NumpyInputs) -> Tensor:
        parts = []
        for span in inputs.spans:
            padded = np.pad(x[span], ((1, 1), (0, 0)))
            parts.append(np.concatenate([padded[:-2], padded[1:-1], padded[2:]], axis=1))
        return np.concatenate(parts)

    def segment_sum(self, x: Tensor, inputs: NumpyInputs) -> Tensor:
        return np.stack([x[span].sum(0) for span in inputs.spans])

    def segment_max(self, x: Tensor, inputs: NumpyInputs) -> Tensor:
        return np.stack([x[span].max(0) for span in inputs.spans])

    def first(self, x: Tensor, inputs: NumpyInputs) -> Tensor:
        rows: Tensor = x[inputs.batch.starts + inputs.batch.pool_starts]
        return rows

    def last(self, x: Tensor, inputs: NumpyInputs) -> Tensor:
        rows: Tensor = x[inputs.batch.starts + inputs.batch.lengths - 1]
        return rows

    def square_root(self, x: Tensor) -> Tensor:
        root: Tensor = np.sqrt(x)
        return root

    def log1p(self, x: Tensor) -> Tensor:
        logarithm: Tensor = np.log1p(x)
        return logarithm


def _halves(width: int) -> tuple[slice, slice]:
    return slice(0, width // 2), slice(width // 2, width)


def _weighted(scores: Floats, value: Floats) -> Floats:
    """softmax(scores) value of one sequence: [heads, queries, keys], [keys, heads, D] -> [queries, heads * D]."""
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed: Floats = np.einsum("hqk,khd->qhd", weights, value)
    return mixed.reshape(len(mixed), -1)


def _visible(length: int, window: Window) -> NDArray[np.bool_]:
    """bool [queries, keys]: whether the key is within the query's window."""
    places = np.arange(length)
    distance = places - places[:, None]
    left, right = (length if side < 0 else side for side in window)
    visible: NDArray[np.bool_] = (distance >= -left) & (distance <= right)
    return visible
