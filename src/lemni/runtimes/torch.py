"""PyTorch: a family run eagerly, on GPUs in half precision or on the CPU for comparison.

A GPU has two replicas, *lanes*: while it computes the batch of one, the other writes the next batch into pinned memory,
gives the device its work, and then sleeps until the results have arrived. All work of a model goes to one stream, in
the order in which lanes took their turns, so batches never mix; nothing in a forward pass waits for the device.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence as Seq
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from lemni.ops.torch import NotPacked, TorchInputs, TorchOps
from lemni.ops.torch_staging import Downloads, Uploads
from lemni.runtimes.base import BackendOptions, Blueprint, Encoder, by_sequence
from lemni.runtimes.torch_backend import DeviceBackend, DeviceRuntime
from lemni.runtimes.torch_graphs import Graphs
from lemni.runtimes.torch_kernels import Kernels, kernels_of
from lemni.types import Output, Outputs, PackedBatch, Sequence

logger = logging.getLogger(__name__)

LANES = 2
"""Replicas for each GPU: one whose batch is computed, one that prepares or finishes."""

# Token 0 is in every vocabulary. All counts differ, within a batch and between the two, and none is 1, so that a
# compiler takes none for a constant or for another one.
_WARM_UP = [
    PackedBatch.pack([Sequence(np.zeros(length, dtype=np.int32)) for length in lengths])
    for lengths in ((5, 3), (9, 4, 7))
]


class TorchBackend(DeviceBackend):
    """A family on one or several torch devices.

    Raises:
        ConfigError: fp8 on a device that does not compute in it.
    """

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        super().__init__(
            "torch",
            options,
            lambda device, dtype: FamilyModel(blueprint, device, dtype, kernels_of(device, dtype, options)),
            per_gpu=LANES,
        )

    def replica(self, index: int) -> DeviceRuntime:
        device, model = self.placed(index)
        assert isinstance(model, FamilyModel)
        return DeviceRuntime(device, Lane(model), self.limits)


class FamilyModel:
    """A family with its heads on one device.

    Attributes:
        turn: held while work is given to the device.
    """

    def __init__(self, blueprint: Blueprint, device: torch.device, dtype: torch.dtype, kernels: Kernels) -> None:
        ops = TorchOps(device, dtype, varlen=kernels.varlen, fp8=kernels.fp8)
        self.device, self.dtype = device, dtype
        self._heads = {name: head(ops) for name, head in blueprint.heads.items()}
        self._encoder = blueprint.encoder(ops)
        self._compiled: Encoder | None = None
        self._graphs: Graphs | None = None
        self.outputs: frozenset[Output] = frozenset(self._heads)
        self.max_positions: int | None = getattr(self._encoder, "max_positions", None)
        on_gpu = device.type == "cuda"
        self.turn: AbstractContextManager[object] = threading.Lock() if on_gpu or kernels.capture else nullcontext()
        with torch.inference_mode():
            self._specialize(kernels)

    def __call__(self, batch: PackedBatch) -> list[Outputs]:
        return Lane(self)(batch)

    def launch(self, batch: PackedBatch, names: Seq[Output], uploads: Uploads) -> list[torch.Tensor]:
        """Give the device the work of a batch: its outputs by these names, valid until the next call."""
        if self._graphs is not None and (replayed := self._graphs(batch, names, uploads)) is not None:
            return replayed
        inputs = TorchInputs(batch, self.device, self.dtype, staged=uploads.stage(batch))
        return self._forward(inputs, names)

    def names(self, batch: PackedBatch) -> list[Output]:
        """The outputs that somebody in the batch wants, in the model's order."""
        return [name for name in self._heads if name in batch.wanted]

    def _forward(self, inputs: TorchInputs, names: Seq[Output]) -> list[torch.Tensor]:
        hidden = self._encode(inputs)
        return [self._heads[name](hidden, inputs) for name in names]

    def _encode(self, inputs: TorchInputs) -> torch.Tensor:
        # Compiled are sequences that attend to all their tokens; and for single tokens a compiler would start anew.
        if self._compiled is None or inputs.unattended or inputs.longest == 1:
            return self._encoder(inputs)
        return self._compiled(inputs.apart())

    def _specialize(self, kernels: Kernels) -> None:
        """A first pass, in which fp8 makes its codes; then graphs and compiling for models that compute packed."""
        if kernels.varlen is None:
            if kernels.fp8 is not None:
                self._pass(packed_only=False)
            return
        try:
            self._pass(packed_only=True)
        except NotPacked as why:
            logger.info("no graphs and no compiling for this model: %s", why)
            self._pass(packed_only=False)
            return
        if kernels.compiler is not None:
            self._compile(kernels)
        if kernels.capture is not None:
            self._graphs = Graphs(self.device, self.dtype, self._forward, kernels.capture)

    def _compile(self, kernels: Kernels) -> None:
        assert kernels.compiler is not None
        encoder = self._encoder
        try:
            self._compiled = kernels.compiler(lambda inputs: encoder(inputs))
            for batch in _WARM_UP:
                self._pass(batch, packed_only=True)
        except Exception as error:  # a compiler and its own compiler may raise whatever they like
            logger.warning("torch.compile failed, the model is computed eagerly: %s", error)
            self._compiled = None

    def _pass(self, batch: PackedBatch = _WARM_UP[0], *, packed_only: bool) -> None:
        inputs = TorchInputs(batch, self.device, self.dtype, packed_only=packed_only)
        self._forward(inputs, list(self._heads))


class Lane:
    """One replica: the host's memory on the way to the device and back. For one thread at a time."""

    def __init__(self, model: FamilyModel) -> None:
        self._model = model
        self._uploads = Uploads(model.device)
        self._downloads = Downloads(model.device)

    def __call__(self, batch: PackedBatch) -> list[Outputs]:
        names = self._model.names(batch)
        with self._model.turn:
            self._downloads.start(self._model.launch(batch, names, self._uploads))
        arrays = self._downloads.wait()  # another lane has its turn meanwhile
        return by_sequence(dict(zip(names, arrays, strict=True)), batch)
