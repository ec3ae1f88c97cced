"""CPU: a family traced into an OpenVINO graph, straight from the safetensors file.

One compiled model per backend, one inference request (a stream of its own) per replica. The graph is dynamic in
tokens, sequences and rows, so nothing is ever compiled again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.ops.openvino import OpenVINOInputs, OpenVINOOps
from lemni.runtimes.base import BackendOptions, Blueprint, Limits
from lemni.runtimes.cpu import compile_for_cpu, cpu_limits
from lemni.types import PackedBatch, Sequence


class OpenVINOBackend:
    """A model compiled for the CPU. Raises ModelLoadError if the graph cannot be built or
    compiled, ConfigError for a precision that CPUs do not have."""

    name = "openvino"
    device = "cpu"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        import openvino as ov

        self.limits = cpu_limits(options)
        ops, self._inputs = OpenVINOOps(), OpenVINOInputs()
        encoder = blueprint.encoder(ops)
        self.max_positions: int | None = getattr(encoder, "max_positions", None)
        output = blueprint.head(ops)(encoder(self._inputs), self._inputs)
        model = ov.Model([output], list(self._inputs.parameters.values()), "lemni")
        self._compiled, self.dtype = compile_for_cpu(model, options)

    def replica(self, index: int) -> OpenVINORuntime:
        return OpenVINORuntime(self._compiled.create_infer_request(), self._inputs, self.limits)

    def close(self) -> None:
        self._compiled = None


class OpenVINORuntime:
    """One inference request."""

    device = "cpu"

    def __init__(self, request: Any, inputs: OpenVINOInputs, limits: Limits) -> None:
        self._request = request
        self._inputs = inputs
        self.limits = limits
        # One token gets spare tokens but no spare sequence: that tells rows of tokens from rows of sequences.
        one = PackedBatch.pack([Sequence(np.zeros(1, dtype=np.int32))])
        self._of_tokens = len(self._infer(one)) > 1

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        rows = self._infer(batch)[: batch.tokens if self._of_tokens else len(batch)]
        # A copy: the request's own buffer is written again by the next batch.
        return np.array(rows, dtype=np.float32)

    def _infer(self, batch: PackedBatch) -> NDArray[np.float32]:
        outputs = self._request.infer(self._inputs.feed(batch), share_inputs=True, share_outputs=True)
        rows: NDArray[np.float32] = outputs[0]
        return rows

    def close(self) -> None:
        self._request = None
