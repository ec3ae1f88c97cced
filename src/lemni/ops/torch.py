"""The vocabulary on PyTorch, computed at once: GPUs, and CPUs for comparison.

With the variable-length flash kernel (CUDA in half precision) attention needs no rows and no mask; elsewhere, and for
models with an attention bias, it is `scaled_dot_product_attention` over the rows of `lemni.ops.plan`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lemni.hub.codes import Weight, floats_of
from lemni.ops.base import activation_named
from lemni.ops.plan import FULL, Buckets, RowPlan, Window, neighbours, plan_rows
from lemni.ops.torch_fp8 import Fp8, Matrix
from lemni.ops.torch_staging import Fields, Uploads
from lemni.ops.torch_varlen import VarlenAttention, fits
from lemni.types import PackedBatch

Tensor: TypeAlias = torch.Tensor

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}


class NotPacked(Exception):
    """A model asked for more than the fields of a packed batch, such as rows."""


class TorchInputs:
    """One packed batch on the device; what belongs to rows is made for the models that ask for it.

    Args:
        staged: the batch's fields, where they are on the device already.
        longest: tokens of the longest sequence, or more.
        packed_only: what is not in the fields is refused (`NotPacked`): a recorded or compiled pass must not depend on
            anything else of its batch.
    """

    def __init__(
        self,
        batch: PackedBatch,
        device: torch.device,
        dtype: torch.dtype,
        *,
        staged: Fields | None = None,
        longest: int | None = None,
        packed_only: bool = False,
    ) -> None:
        self.batch = batch
        self.device = device
        self.dtype = dtype
        self.packed_only = packed_only
        self.longest = int(batch.lengths.max()) if longest is None else longest
        self.count = len(batch)
        self.unattended = batch.unattended is not None
        found = Uploads(device).stage(batch) if staged is None else staged
        self.ids, self.positions, self.token_types = found.ids, found.positions, found.token_types
        self.segments, self.offsets = found.segments, found.offsets
        self.first, self.last = found.first, found.last
        self._pool_starts = found.pool_starts
        self._fields = found
        self._masks: dict[Window, Tensor] = {}
        self._bucketed: dict[Buckets, tuple[Tensor, Tensor]] = {}
        self._biased: tuple[Window, Tensor, Tensor] | None = None

    def put(self, array: NDArray[Any]) -> Tensor:
        if self.packed_only:
            raise NotPacked("it needs the rows of its batch")
        return torch.from_numpy(np.ascontiguousarray(floats_of(array))).to(self.device, non_blocking=True)

    def apart(self) -> TorchInputs:
        """The same with every field in memory of its own: where one stands among the others would be a part of its
        shape to a compiler, and change with every batch."""
        copies = Fields(*(field.clone() for field in self._fields))
        return TorchInputs(
            self.batch, self.device, self.dtype, staged=copies, longest=self.longest, packed_only=self.packed_only
        )

    @property
    def places(self) -> Tensor:
        return (self.positions + 1).float()[:, None]

    @property
    def lengths(self) -> Tensor:
        return (self.offsets[1:] - self.offsets[:-1]).float()[:, None]

    @property
    def pool_mask(self) -> Tensor:
        return (self.positions >= self._pool_starts[self.segments]).float()[:, None]

    @cached_property
    def plan(self) -> RowPlan:
        return plan_rows(self.batch.lengths, self.batch.unattended)

    @cached_property
    def tokens(self) -> Tensor:
        """int [R * L]: the token of each cell."""
        return self.put(self.plan.token.reshape(-1))

    @cached_property
    def cells(self) -> Tensor:
        """int [T]: the cell of each token."""
        return self.put(self.plan.cell)

    def mask(self, window: Window) -> Tensor:
        if window not in self._masks:
            self._masks[window] = self.put(self.plan.mask(window)).to(self.dtype)
        return self._masks[window]

    def bucketed(self, buckets: Buckets) -> tuple[Tensor, Tensor]:
        """`RowPlan.bucketed`: int [W] and int64 [L, L]."""
        if buckets not in self._bucketed:
            found, places = self.plan.bucketed(buckets)
            self._bucketed[buckets] = self.put(found), self.put(places.astype(np.int64))
        return self._bucketed[buckets]

    def rows(self, x: Tensor) -> Tensor:
        """[T, heads, D] -> [R, heads, L, D]."""
        return x[self.tokens].view(self.plan.rows, self.plan.width, *x.shape[1:]).transpose(1, 2)

    def unrows(self, x: Tensor) -> Tensor:
        """[R, heads, L, D] -> [T, heads * D]."""
        return x.transpose(1, 2).reshape(self.plan.rows * self.plan.width, -1)[self.cells]

    def biased(self, window: Window, bias: Tensor) -> Tensor:
        """mask + bias [R, heads, L, L]; the last one is kept, for all layers share it."""
        if self._biased is None or self._biased[0] != window or self._biased[1] is not bias:
            self._biased = window, bias, self.mask(window) + bias
        return self._biased[2]


class TorchOps:
    """`lemni.ops.base.Ops` on one torch device and dtype.

    Args:
        varlen: computes attention over the packed batch; without it, it is computed in rows.
        fp8: computes large linear layers in 8-bit floats.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        *,
        varlen: VarlenAttention | None = None,
        fp8: Fp8 | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._varlen = varlen
        self._fp8 = fp8

    def constant(self, array: Weight) -> Any:
        """A tensor; a `Matrix` if it may become codes."""
        tensor = torch.from_numpy(np.ascontiguousarray(floats_of(array)))
        tensor = tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)
        return Matrix(tensor) if self._fp8 is not None and self._fp8.is_worth_it(tensor) else tensor

    def embedding(self, table: Tensor | Matrix, ids: Tensor) -> Tensor:
        if isinstance(table, Matrix):
            assert table.tensor is not None  # no family looks up rows of a linear layer's weight
            table = table.tensor
        return F.embedding(ids, table)

    def linear(self, x: Tensor, weight: Tensor | Matrix, bias: Tensor | None = None) -> Tensor:
        if isinstance(weight, Matrix):
            assert self._fp8 is not None  # who else made it
            return self._fp8.linear(x.to(self.dtype), weight, bias)
        return F.linear(x.to(weight.dtype), weight, bias)

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight.float()).to(x.dtype)

    def activation(self, x: Tensor, name: str) -> Tensor:
        return activation_named(name, _ACTIVATIONS)(x)

    def split(self, x: Tensor, sizes: Seq[int]) -> list[Tensor]:
        return list(torch.split(x, list(sizes), dim=-1))

    def concat(self, xs: Seq[Tensor]) -> Tensor:
        return torch.cat(list(xs), dim=-1)

    def heads(self, x: Tensor, count: int) -> Tensor:
        return x.reshape(x.shape[0], count, -1)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
        width = cos.shape[-1]
        rotary, rest = x[..., :width], x[..., width:]
        if interleaved:
            even, odd = rotary[..., 0::2], rotary[..., 1::2]
            turned = torch.stack((-odd, even), dim=-1).flatten(-2)
        else:
            left, right = rotary.chunk(2, dim=-1)
            turned = torch.cat((-right, left), dim=-1)
        rotary = rotary * cos[:, None, :] + turned * sin[:, None, :]
        return torch.cat((rotary, rest), dim=-1) if rest.shape[-1] else rotary

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: TorchInputs,
        *,
        scale: float,
        window: Window = FULL,
        bias: Tensor | None = None,
    ) -> Tensor:
        plain = bias is None and not inputs.unattended  # the kernel knows neither
        if self._varlen is not None and plain and fits(query.shape[-1]):
            out = self._varlen(
                query, key, value, inputs.offsets, inputs.offsets, inputs.longest, inputs.longest,
                scale=scale, window_size=window, enable_gqa=key.shape[1] != query.shape[1],
            )  # fmt: skip
            return out.flatten(1)
        query, key, value = inputs.rows(query), inputs.rows(key), inputs.rows(value)
        mask = inputs.mask(window) if bias is None else inputs.biased(window, bias)
        grouped = key.shape[1] != query.shape[1]
        return inputs.unrows(F.scaled_dot_product_attention(query, key, value, mask, scale=scale, enable_gqa=grouped))

    def relative_bias(self, table: Tensor, inputs: TorchInputs) -> Tensor:
        columns = np.clip(inputs.plan.relative + table.shape[1] // 2, 0, table.shape[1] - 1)  # [L, L]
        return table[:, inputs.put(columns)]  # [heads, L, L]

    def disentangled_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: TorchInputs,
        *,
        scale: float,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        buckets: Buckets,
    ) -> Tensor:
        query, key, value = inputs.rows(query), inputs.rows(key), inputs.rows(value)
        found, places = inputs.bucketed(buckets)
        places = places.expand(*query.shape[:2], -1, -1)  # [R, heads, L, L], without memory
        bias = inputs.mask(FULL)
        # Scaled before the product, which could overflow float16.
        if position_keys is not None:
            by_bucket = query @ (position_keys[:, found] * scale).transpose(1, 2)  # [R, heads, L, W]
            bias = bias + by_bucket.gather(3, places)
        if position_queries is not None:
            by_bucket = (position_queries[:, found] * scale) @ key.transpose(2, 3)  # [R, heads, W, L]
            bias = bias + by_bucket.gather(2, places)
        return inputs.unrows(F.scaled_dot_product_attention(query, key, value, bias, scale=scale))

    def neighbours(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        # Index -1 is the row of zeros at the end.
        return F.pad(x, (0, 0, 0, 1))[inputs.put(neighbours(inputs.batch.lengths))].flatten(1)

    def segment_sum(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        sums = torch.zeros(inputs.count, x.shape[-1], dtype=torch.float32, device=x.device)
        return sums.index_add_(0, inputs.segments, x.float())

    def segment_max(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        index = inputs.segments.long()[:, None].expand_as(x)
        empty = torch.full((inputs.count, x.shape[-1]), -torch.inf, dtype=x.dtype, device=x.device)
        return empty.scatter_reduce(0, index, x, "amax")

    def first(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        return x[inputs.first]

    def last(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        return x[inputs.last]

    def square_root(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)

    def log1p(self, x: Tensor) -> Tensor:
        return torch.log1p(x)
