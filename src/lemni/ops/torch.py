"""The vocabulary on PyTorch, computed at once: GPUs, and CPUs for comparison.

On CUDA in half precision attention is the variable-length flash kernel, which needs no rows and no mask; elsewhere,
and for models with an attention bias, it is `scaled_dot_product_attention` over the rows of `lemni.ops.plan`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lemni.ops.base import activation_named
from lemni.ops.plan import FULL, Buckets, RowPlan, Window, neighbours, plan_rows
from lemni.types import PackedBatch

Tensor: TypeAlias = torch.Tensor
VarlenAttention: TypeAlias = Callable[..., Tensor]

logger = logging.getLogger(__name__)

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


class TorchInputs:
    """One packed batch on the device; the parts that a family does not ask for are never made."""

    def __init__(self, batch: PackedBatch, device: torch.device, dtype: torch.dtype) -> None:
        self.batch = batch
        self.device = device
        self.dtype = dtype
        self._masks: dict[Window, Tensor] = {}
        self._bucketed: dict[Buckets, tuple[Tensor, Tensor]] = {}
        self._biased: tuple[Window, Tensor, Tensor] | None = None

    def put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)

    @cached_property
    def ids(self) -> Tensor:
        return self.put(self.batch.ids)

    @cached_property
    def positions(self) -> Tensor:
        return self.put(self.batch.positions)

    @cached_property
    def token_types(self) -> Tensor:
        return self.put(self.batch.token_types)

    @cached_property
    def places(self) -> Tensor:
        return (self.positions + 1).float()[:, None]

    @cached_property
    def lengths(self) -> Tensor:
        return self.put(self.batch.lengths).float()[:, None]

    @cached_property
    def pool_mask(self) -> Tensor:
        keep = self.batch.positions >= np.repeat(self.batch.pool_starts, self.batch.lengths)
        return self.put(keep).float()[:, None]

    @cached_property
    def segments(self) -> Tensor:
        """int [T]: the sequence of each token."""
        return self.put(np.repeat(np.arange(len(self.batch)), self.batch.lengths))

    @cached_property
    def offsets(self) -> Tensor:
        """int32 [B + 1]: where sequences begin and end."""
        return self.put(np.concatenate([[0], np.cumsum(self.batch.lengths)]).astype(np.int32))

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
    """`lemni.ops.base.Ops` on one torch device and dtype."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype
        self._varlen = varlen_attention(device, dtype)

    def constant(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

    def embedding(self, table: Tensor, ids: Tensor) -> Tensor:
        return F.embedding(ids, table)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
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
        plain = bias is None and inputs.batch.unattended is None  # the kernel knows neither
        if self._varlen is not None and plain and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256:
            longest = int(inputs.batch.lengths.max())
            out = self._varlen(
                query, key, value, inputs.offsets, inputs.offsets, longest, longest,
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
        sums = torch.zeros(len(inputs.batch), x.shape[-1], dtype=torch.float32, device=x.device)
        return sums.index_add_(0, inputs.segments, x.float())

    def segment_max(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        index = inputs.segments[:, None].expand_as(x)
        empty = torch.full((len(inputs.batch), x.shape[-1]), -torch.inf, dtype=x.dtype, device=x.device)
        return empty.scatter_reduce(0, index, x, "amax")

    def first(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        return x[inputs.put(inputs.batch.starts + inputs.batch.pool_starts)]

    def last(self, x: Tensor, inputs: TorchInputs) -> Tensor:
        return x[inputs.put(inputs.batch.starts + inputs.batch.lengths - 1)]

    def square_root(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)

    def log1p(self, x: Tensor) -> Tensor:
        return torch.log1p(x)


def varlen_attention(device: torch.device, dtype: torch.dtype) -> VarlenAttention | None:
    """The variable-length flash kernel, if this device (CUDA), dtype (half precision) and torch have it.

    Tried once on a tiny batch, because only the kernel knows which GPUs it runs on; the log says what came of it.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn

        offsets = torch.tensor([0, 1, 3], dtype=torch.int32, device=device)
        query = torch.ones(3, 2, 64, dtype=dtype, device=device)
        key = torch.ones(3, 1, 64, dtype=dtype, device=device)
        # The first versions of the kernel have neither windows nor grouped heads.
        out = varlen_attn(query, key, key, offsets, offsets, 2, 2, scale=0.125, window_size=(-1, 0), enable_gqa=True)
        if not torch.allclose(out, torch.ones_like(out), atol=1e-2):
            raise RuntimeError("its result is wrong")
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        logger.warning("no variable-length attention on %s (%s); masked attention is used", device, error)
        return None
    logger.info("variable-length flash attention on %s", device)
    kernel: VarlenAttention = varlen_attn
    return kernel
