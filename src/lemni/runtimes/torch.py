"""PyTorch: a family run eagerly, on GPUs in half precision or on the CPU for comparison.

Each device holds the weights once; replicas on the same device share them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lemni.ops.torch import TorchInputs, TorchOps
from lemni.runtimes.base import BackendOptions, Blueprint, Encoder, Head, Limits
from lemni.runtimes.torch_devices import loading_on, running, torch_limits, use_threads
from lemni.types import PackedBatch


@dataclass(frozen=True)
class _Loaded:
    device: torch.device
    encoder: Encoder
    head: Head


class TorchBackend:
    """A model on one or several torch devices."""

    name = "torch"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        self.device = ",".join(options.devices)
        self.dtype = options.dtype
        self._torch_dtype: torch.dtype = getattr(torch, options.dtype)
        use_threads(options)
        self._loaded = [self._load(blueprint, torch.device(name)) for name in options.devices]
        encoder = self._loaded[0].encoder
        self.max_positions: int | None = getattr(encoder, "max_positions", None)
        self.limits = torch_limits(options)

    def _load(self, blueprint: Blueprint, device: torch.device) -> _Loaded:
        ops = TorchOps(device, self._torch_dtype)
        with loading_on(str(device)):
            return _Loaded(device, blueprint.encoder(ops), blueprint.head(ops))

    def replica(self, index: int) -> TorchRuntime:
        return TorchRuntime(self._loaded[index % len(self._loaded)], self._torch_dtype, self.limits)

    def close(self) -> None:
        self._loaded = []


class TorchRuntime:
    """One replica; replicas of one device share its weights."""

    def __init__(self, loaded: _Loaded, dtype: torch.dtype, limits: Limits) -> None:
        self.device = str(loaded.device)
        self.limits = limits
        self._loaded: _Loaded | None = loaded
        self._dtype = dtype

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        if self._loaded is None:
            raise RuntimeError("the replica is closed")
        with running():
            inputs = TorchInputs(batch, self._loaded.device, self._dtype)
            rows = self._loaded.head(self._loaded.encoder(inputs), inputs)
            array: NDArray[np.float32] = rows.float().cpu().numpy()
        return array

    def close(self) -> None:
        self._loaded = None
