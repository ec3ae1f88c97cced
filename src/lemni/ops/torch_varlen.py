"""torch's variable-length flash attention, where a device has it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import torch

VarlenAttention: TypeAlias = Callable[..., torch.Tensor]
"""As `torch.nn.attention.varlen.varlen_attn`: (query [T, heads, D], key, value [T, kv_heads, D], offsets int32 [B + 1]
twice, longest sequence twice; scale, window_size, enable_gqa) -> [T, heads, D]."""

logger = logging.getLogger(__name__)

_WIDEST_HEAD = 256


def fits(head: int) -> bool:
    """Whether the kernel computes heads of this dimension."""
    return head % 8 == 0 and head <= _WIDEST_HEAD


def varlen_attention(device: torch.device, dtype: torch.dtype) -> VarlenAttention | None:
    """The variable-length flash kernel, if this device (CUDA), dtype (half precision) and torch have it.

    Tried once on a tiny batch, because only the kernel knows which GPUs it runs on; the log says what came of it.
    """
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn

        # The last sequence is empty: batches that graphs compute have such.
        offsets = torch.tensor([0, 1, 3, 3], dtype=torch.int32, device=device)
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
