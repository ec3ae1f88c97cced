"""What the runtimes on torch have in common: budgets by device, heads, and running out of a GPU's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.ops.base import Inputs
from lemni.runtimes.base import BackendOptions, Head, Limits
from lemni.types import Output, PackedBatch

_CPU_BATCH_TOKENS = 2048
_GPU_BATCH_TOKENS = 16384


def torch_limits(options: BackendOptions, per_gpu: int = 1) -> Limits:
    """Budget by kind of device; a replica for each CPU, `per_gpu` for each GPU."""
    if torch.device(options.devices[0]).type == "cpu":
        return Limits(_CPU_BATCH_TOKENS, options.replicas or 1)
    return Limits(_GPU_BATCH_TOKENS, options.replicas or per_gpu * len(options.devices))


def torch_dtype(name: str) -> torch.dtype:
    """The precision between linear layers, which alone may be computed in fp8."""
    dtype = torch.bfloat16 if name == "fp8" else getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def use_threads(options: BackendOptions) -> None:
    """Set torch's threads, which are the whole process's, if the settings say how many."""
    if options.threads and options.devices == ("cpu",):
        torch.set_num_threads(options.threads)


@contextmanager
def loading_on(device: str) -> Iterator[None]:
    """A model that does not fit the device is an error of the model."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelLoadError(f"the model does not fit the memory of {device}: {error}") from error


@contextmanager
def running() -> Iterator[None]:
    """No gradients; out of memory as the engine knows it."""
    try:
        with torch.inference_mode():
            yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error


def run_heads(
    heads: Mapping[Output, Head], hidden: torch.Tensor, inputs: Inputs, batch: PackedBatch
) -> dict[Output, NDArray[np.float32]]:
    """The outputs that somebody in the batch wants, on the host."""
    return {name: head(hidden, inputs).float().cpu().numpy() for name, head in heads.items() if name in batch.wanted}
