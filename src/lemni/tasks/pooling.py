"""From the hidden states of a sequence's tokens to one vector: sentence-transformers' pooling modes.

Reference: sentence-transformers, `models/Pooling.py`. Each mode is a function of (ops, hidden [T, D], inputs) ->
[B, D]; tokens before `pool_start` are left out, as `include_prompt: false` asks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lemni.hub.spec import PoolingMode
from lemni.ops.base import Inputs, Ops, Tensor

Pooling = Callable[[Ops, Tensor, Inputs], Tensor]


def pooling_table(include_prompt: bool) -> dict[PoolingMode, Pooling]:
    """The modes by name; `include_prompt` false leaves out tokens before `pool_start`."""

    def seen(x: Tensor, inputs: Inputs) -> Tensor:
        return x if include_prompt else x * inputs.pool_mask

    def count(ops: Ops, inputs: Inputs) -> Tensor:
        return inputs.lengths if include_prompt else ops.segment_sum(inputs.pool_mask, inputs)

    def mean(ops: Ops, hidden: Tensor, inputs: Inputs) -> Tensor:
        return ops.segment_sum(seen(hidden, inputs), inputs) / count(ops, inputs)

    def mean_sqrt(ops: Ops, hidden: Tensor, inputs: Inputs) -> Tensor:
        return ops.segment_sum(seen(hidden, inputs), inputs) / ops.square_root(count(ops, inputs))

    def weighted_mean(ops: Ops, hidden: Tensor, inputs: Inputs) -> Tensor:
        # SGPT (arXiv:2202.08904): the weight of a token is its place in the sequence, from 1.
        places = seen(inputs.places, inputs)
        return ops.segment_sum(hidden * places, inputs) / ops.segment_sum(places, inputs)

    def maximum(ops: Ops, hidden: Tensor, inputs: Inputs) -> Tensor:
        if not include_prompt:  # 0 stays, the prompt's tokens sink below everything
            one, deep = (ops.constant(np.array(value, dtype=np.float32)) for value in (1, 3e4))  # float16 ends at 65504
            hidden = hidden + (inputs.pool_mask - one) * deep
        return ops.segment_max(hidden, inputs)

    return {
        "cls": lambda ops, hidden, inputs: ops.first(hidden, inputs),
        "lasttoken": lambda ops, hidden, inputs: ops.last(hidden, inputs),
        "max": maximum,
        "mean": mean,
        "mean_sqrt_len_tokens": mean_sqrt,
        "weightedmean": weighted_mean,
    }
