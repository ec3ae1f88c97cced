"""CPU: a family traced into an OpenVINO graph, straight from the safetensors file.

One compiled model per backend, one inference request (a stream of its own) per replica. The graph is dynamic in
tokens, sequences and rows, so nothing is ever compiled again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.ops.openvino import OpenVINOInputs, OpenVINOOps
from lemni.runtimes.base import BackendOptions, Blueprint, Limits, by_sequence
from lemni.runtimes.cpu import compile_for_cpu, cpu_limits, weights_for
from lemni.types import TOKEN_OUTPUTS, Output, Outputs, PackedBatch


class OpenVINOBackend:
    """A model compiled for the CPU. Raises ModelLoadError if the graph cannot be built or
    compiled, ConfigError for a precision that CPUs do not have."""

    name = "openvino"
    device = "cpu"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        import openvino as ov

        self.limits = cpu_limits(options)
        ops, self._inputs = OpenVINOOps(weights=weights_for(options.dtype)), OpenVINOInputs()
        encoder = blueprint.encoder(ops)
        self.max_positions: int | None = getattr(encoder, "max_positions", None)
        hidden = encoder(self._inputs)
        heads = {name: head(ops)(hidden, self._inputs) for name, head in blueprint.heads.items()}
        model = ov.Model(list(heads.values()), list(self._inputs.parameters.values()), "lemni")
        self.outputs = frozenset(heads)
        self._order = tuple(heads)
        self._compiled, self.dtype = compile_for_cpu(model, options)

    def replica(self, index: int) -> OpenVINORuntime:
        return OpenVINORuntime(self._compiled.create_infer_request(), self._inputs, self._order, self.limits)

    def close(self) -> None:
        self._compiled = None


class OpenVINORuntime:
    """One inference request."""

    device = "cpu"

    def __init__(self, request: Any, inputs: OpenVINOInputs, order: tuple[Output, ...], limits: Limits) -> None:
        self._request = request
        self._inputs = inputs
        self._order = order
        self.limits = limits
        self._fed: dict[str, NDArray[Any]] = {}

    def run(self, batch: PackedBatch) -> list[Outputs]:
        # Kept until the next one: the plugin may look at shared inputs after the call.
        self._fed = self._inputs.feed(batch)
        results = self._request.infer(self._fed, share_inputs=True, share_outputs=True)
        found: dict[Output, NDArray[np.float32]] = {}
        for place, name in enumerate(self._order):
            if name in batch.wanted:
                size = batch.tokens if name in TOKEN_OUTPUTS else len(batch)
                # A copy: the request's own buffer is written again by the next batch.
                found[name] = np.array(results[place][:size], dtype=np.float32)
        return by_sequence(found, batch)

    def close(self) -> None:
        self._request = None
