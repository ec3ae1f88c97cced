"""Pooling when a device computes in half precision: nothing overflows, nothing becomes NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lemni.hub.spec import PoolingMode
from lemni.ops.torch import TorchInputs, TorchOps
from lemni.tasks.pooling import pooling_table
from lemni.types import PackedBatch, Sequence


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("mode", pooling_table(True))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_agrees_with_float32(mode: PoolingMode, include_prompt: bool, dtype: torch.dtype) -> None:
    starts = [0, 5, 100]
    batch = PackedBatch.pack(
        [Sequence(np.zeros(n, np.int32), pool_start=start) for n, start in zip([1, 30, 3000], starts, strict=True)]
    )
    device = torch.device("cpu")
    # Values as large as real models have in some dimensions, and a mean far from zero.
    hidden = (torch.randn(batch.tokens, 4, generator=torch.Generator().manual_seed(0)) * 3 + 60).to(dtype)
    pool = pooling_table(include_prompt)[mode]
    exact = pool(TorchOps(device, torch.float32), hidden.float(), TorchInputs(batch, device, torch.float32))
    half = pool(TorchOps(device, dtype), hidden, TorchInputs(batch, device, dtype))
    torch.testing.assert_close(half.float(), exact, rtol=2e-2 if dtype == torch.bfloat16 else 2e-3, atol=0)
