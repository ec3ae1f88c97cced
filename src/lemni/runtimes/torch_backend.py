"""What every runtime on torch is made of: a model on each device, and replicas that share it.

The runtimes differ in how a model is loaded and what it does with a batch; `DeviceModel` is that part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from lemni.runtimes.base import BackendOptions, Limits
from lemni.runtimes.torch_devices import loading_on, running, torch_dtype, torch_limits, use_threads
from lemni.types import Output, Outputs, PackedBatch


class DeviceModel(Protocol):
    """A model on one device.

    Attributes:
        outputs: what it can give.
        max_positions: tokens of the longest sequence the weights allow, or None.
    """

    outputs: frozenset[Output]
    max_positions: int | None

    def __call__(self, batch: PackedBatch) -> list[Outputs]:
        """As `Runtime.run`; called without gradients."""
        ...


class DeviceBackend:
    """A model on one or several torch devices, each of which holds the weights once.

    Args:
        load: puts the model on a device in a precision.
        per_gpu: replicas that a GPU wants.

    Raises:
        ModelLoadError: the model does not fit a device's memory, and what `load` raises.
    """

    def __init__(
        self,
        name: str,
        options: BackendOptions,
        load: Callable[[torch.device, torch.dtype], DeviceModel],
        per_gpu: int = 1,
    ) -> None:
        self.name = name
        self.device = ",".join(options.devices)
        self.dtype = options.dtype
        self.limits = torch_limits(options, per_gpu)
        use_threads(options)
        self._models: list[tuple[str, DeviceModel]] = []
        for device in options.devices:
            with loading_on(device):
                self._models.append((device, load(torch.device(device), torch_dtype(options.dtype))))
        first = self._models[0][1]
        self.outputs = first.outputs
        self.max_positions = first.max_positions

    def replica(self, index: int) -> DeviceRuntime:
        device, model = self.placed(index)
        return DeviceRuntime(device, model, self.limits)

    def placed(self, index: int) -> tuple[str, DeviceModel]:
        """Where replica `index` runs, and the model there."""
        return self._models[index % len(self._models)]

    def close(self) -> None:
        self._models = []


class DeviceRuntime:
    """One replica; replicas of one device share its model.

    Args:
        compute: as `run`; called without gradients.
    """

    def __init__(self, device: str, compute: Callable[[PackedBatch], list[Outputs]], limits: Limits) -> None:
        self.device = device
        self.limits = limits
        self._compute: Callable[[PackedBatch], list[Outputs]] | None = compute

    def run(self, batch: PackedBatch) -> list[Outputs]:
        if self._compute is None:
            raise RuntimeError("the replica is closed")
        with running():
            return self._compute(batch)

    def close(self) -> None:
        self._compute = None
