"""What a GPU has, emulated on the CPU, so that the code of the torch runtime that uses it is tested without one."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lemni.families import family_class
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.runtimes.base import Blueprint, Heads
from lemni.runtimes.torch import FamilyModel
from lemni.runtimes.torch_graphs import Work
from lemni.runtimes.torch_kernels import Kernels
from tests.families.decoders import HIDDEN, config_of

CPU = torch.device("cpu")


@torch.library.custom_op("lemni_tests::varlen", mutates_args={})
def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    offsets: torch.Tensor,
    scale: float,
    left: int,
    right: int,
) -> torch.Tensor:
    """One sequence at a time. A custom op, as the kernel is one: compilers do not look into it."""
    out = torch.full_like(query, torch.nan)  # every token must belong to a sequence
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        if start == end:
            continue
        parts = (x[start:end].transpose(0, 1) for x in (query, key, value))
        places = torch.arange(end - start)
        distances = places[None, :] - places[:, None]
        seen = torch.ones_like(distances, dtype=torch.bool)
        if left >= 0:
            seen &= distances >= -left
        if right >= 0:
            seen &= distances <= right
        attended = F.scaled_dot_product_attention(*parts, seen, scale=scale, enable_gqa=True)
        out[start:end] = attended.transpose(0, 1)
    return out


@_varlen.register_fake
def _(query: torch.Tensor, *others: object) -> torch.Tensor:
    return torch.empty_like(query)


def varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`torch.nn.attention.varlen.varlen_attn`, with its demands."""
    assert cu_seq_k is cu_seq_q
    assert cu_seq_q.dtype is torch.int32
    assert max_q == max_k
    assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
    assert enable_gqa or query.shape[1] == key.shape[1]
    assert scale is not None
    return _varlen(query, key, value, cu_seq_q, scale, *window_size)


class Replays:
    """A capture that computes again, into the same memory; counts what it recorded and replayed."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, work: Work) -> tuple[Callable[[], None], list[torch.Tensor]]:
        self.recorded += 1
        results = [torch.full_like(result, torch.nan) for result in work()]  # recording computes nothing

        def replay() -> None:
            self.replayed += 1
            for result, again in zip(results, work(), strict=True):
                result.copy_(again)

        return replay, results


def model_of(folder: Path, kernels: Kernels, heads: Heads = HIDDEN, dtype: torch.dtype = torch.float32) -> FamilyModel:
    """A folder's family on the torch runtime, with emulated kernels."""
    config = config_of(folder)
    store = TensorStore(sorted(folder.glob("*.safetensors")))
    blueprint: Any = Blueprint(
        None,  # type: ignore[arg-type]  # a family needs no more than its config
        lambda ops: family_class(config["model_type"], config)(config, Weights(store), ops),
        heads,
    )
    return FamilyModel(blueprint, CPU, dtype, kernels)


def cosines(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the rows."""
    product: NDArray[np.float32] = (one * two).sum(axis=-1)
    return product / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)


def concatenated(rows: Seq[Any], name: str) -> NDArray[np.float32]:
    return np.concatenate([row[name] for row in rows])
