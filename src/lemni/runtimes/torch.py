"""PyTorch: a family run eagerly, on GPUs in half precision or on the CPU for comparison."""

from __future__ import annotations

import torch

from lemni.ops.torch import TorchInputs, TorchOps
from lemni.runtimes.base import BackendOptions, Blueprint, by_sequence
from lemni.runtimes.torch_backend import DeviceBackend
from lemni.runtimes.torch_devices import run_heads
from lemni.types import Output, Outputs, PackedBatch


class TorchBackend(DeviceBackend):
    """A family on one or several torch devices."""

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        super().__init__("torch", options, lambda device, dtype: _FamilyModel(blueprint, device, dtype))


class _FamilyModel:
    """A family with its heads on one device."""

    def __init__(self, blueprint: Blueprint, device: torch.device, dtype: torch.dtype) -> None:
        ops = TorchOps(device, dtype)
        self._device, self._dtype = device, dtype
        self._heads = {name: head(ops) for name, head in blueprint.heads.items()}
        self._encoder = blueprint.encoder(ops)
        self.outputs: frozenset[Output] = frozenset(self._heads)
        self.max_positions: int | None = getattr(self._encoder, "max_positions", None)

    def __call__(self, batch: PackedBatch) -> list[Outputs]:
        inputs = TorchInputs(batch, self._device, self._dtype)
        return by_sequence(run_heads(self._heads, self._encoder(inputs), inputs, batch), batch)
