"""PyTorch: a family run eagerly, on GPUs in half precision or on the CPU for comparison.

Each device holds the weights once; replicas on the same device share them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lemni.ops.torch import TorchInputs, TorchOps
from lemni.runtimes.base import BackendOptions, Blueprint, Encoder, Head, Limits, by_sequence
from lemni.runtimes.torch_devices import loading_on, run_heads, running, torch_limits, use_threads
from lemni.types import Output, Outputs, PackedBatch


@dataclass(frozen=True)
class _Loaded:
    device: torch.device
    encoder: Encoder
    heads: dict[Output, Head]


class TorchBackend:
    """A model on one or several torch devices."""

    name = "torch"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        self.device = ",".join(options.devices)
        self.dtype = options.dtype
        self._torch_dtype: torch.dtype = getattr(torch, options.dtype)
        self.outputs = frozenset(blueprint.heads)
        use_threads(options)
        self._loaded = [self._load(blueprint, torch.device(name)) for name in options.devices]
        encoder = self._loaded[0].encoder
        self.max_positions: int | None = getattr(encoder, "max_positions", None)
        self.limits = torch_limits(options)

    def _load(self, blueprint: Blueprint, device: torch.device) -> _Loaded:
        ops = TorchOps(device, self._torch_dtype)
        with loading_on(str(device)):
            heads = {name: head(ops) for name, head in blueprint.heads.items()}
            return _Loaded(device, blueprint.encoder(ops), heads)

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

    def run(self, batch: PackedBatch) -> list[Outputs]:
        if self._loaded is None:
            raise RuntimeError("the replica is closed")
        with running():
            inputs = TorchInputs(batch, self._loaded.device, self._dtype)
            hidden = self._loaded.encoder(inputs)
            return by_sequence(run_heads(self._loaded.heads, hidden, inputs, batch), batch)

    def close(self) -> None:
        self._loaded = None
