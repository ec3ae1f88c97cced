"""CPU: a family traced into an OpenVINO graph, straight from the safetensors file.

One compiled graph per backend, one inference request (a stream of its own) per replica. The graph is dynamic in
tokens, sequences and rows, so nothing is ever compiled again. Where pooling reads one token of each sequence, the other
tokens are left out of the last layer; vectors of all tokens then come from a second graph, compiled when asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.ops.openvino import OpenVINOOps
from lemni.ops.openvino_inputs import OpenVINOInputs
from lemni.ops.openvino_rows import narrow
from lemni.runtimes.base import BackendOptions, Blueprint, Limits, by_sequence
from lemni.runtimes.cpu import compile_for_cpu, cpu_limits, weights_for
from lemni.types import TOKEN_OUTPUTS, Output, Outputs, PackedBatch

# The inputs by which pooling chooses one token of each sequence.
_CHOICES = ("first", "last")


# Up to so much of matrices the express replica may hold a second time: 128 million weights in float32.
_EXPRESS_BYTES = 512 << 20


@dataclass(frozen=True, eq=False)
class Graph:
    """A compiled graph: its inputs, and its outputs by place."""

    compiled: Any
    inputs: OpenVINOInputs
    outputs: tuple[Output, ...]


class OpenVINOBackend:
    """A model compiled for the CPU. Raises ModelLoadError if the graph cannot be built or
    compiled, ConfigError for a precision that CPUs do not have."""

    name = "openvino"
    device = "cpu"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        self.limits = cpu_limits(options)
        self.max_positions: int | None = None
        self.dtype = options.dtype
        self.outputs = frozenset(blueprint.heads)
        self._blueprint = blueprint
        self._options = options
        self._lock = threading.Lock()
        self._weight_bytes = 0
        # All outputs in one graph, but hidden states of tokens are seldom asked for.
        self._graphs = [self._compile(self.outputs - {"tokens"} or self.outputs)]
        # Its weights are packed once more.
        self.limits = replace(self.limits, express=self._weight_bytes <= _EXPRESS_BYTES)

    def graph(self, wanted: Iterable[Output]) -> Graph:
        """The compiled graph that gives `wanted`."""
        needed = set(wanted)
        if (found := self._found(needed)) is None:
            with self._lock:
                if (found := self._found(needed)) is None:
                    found = self._compile(self.outputs)
                    self._graphs.append(found)
        return found

    def _found(self, needed: set[Output]) -> Graph | None:
        return next((graph for graph in self._graphs if needed <= set(graph.outputs)), None)

    def replica(self, index: int) -> OpenVINORuntime:
        return OpenVINORuntime(self)

    def express(self) -> OpenVINORuntime:
        options = replace(self._options, threads=1, replicas=1)
        return OpenVINOBackend(self._blueprint, options).replica(0)

    def close(self) -> None:
        self._graphs = []

    def _compile(self, wanted: frozenset[Output]) -> Graph:
        import openvino as ov

        ops, inputs = OpenVINOOps(weights=weights_for(self._options.dtype)), OpenVINOInputs()
        encoder = self._blueprint.encoder(ops)
        self.max_positions = getattr(encoder, "max_positions", None)
        hidden = encoder(inputs)
        heads = self._blueprint.heads
        results = {name: head(ops)(hidden, inputs) for name, head in heads.items() if name in wanted}
        choices = [inputs.parameters[name] for name in _CHOICES if name in inputs.parameters]
        if not choices or not TOKEN_OUTPUTS.isdisjoint(results):
            results |= {name: head(ops)(hidden, inputs) for name, head in heads.items() if name not in wanted}
        model = ov.Model(list(results.values()), list(inputs.parameters.values()), "lemni")
        narrow(model, choices)
        self._weight_bytes = matrix_bytes(model)
        compiled, self.dtype = compile_for_cpu(model, self._options)
        self._blueprint.release()
        return Graph(compiled, inputs, tuple(results))


def matrix_bytes(model: Any) -> int:
    """Of the constants with two axes that are no tables of embeddings."""
    total = 0
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) == 2:
            readers = {port.get_node().get_type_name() for port in node.output(0).get_target_inputs()}
            total += 0 if "Gather" in readers else node.data.nbytes
    return total


class OpenVINORuntime:
    """One inference request for each graph that it has needed."""

    device = "cpu"

    def __init__(self, backend: OpenVINOBackend) -> None:
        self.limits: Limits = backend.limits
        self._backend: OpenVINOBackend | None = backend
        self._requests: dict[Graph, Any] = {}
        self._fed: dict[str, NDArray[Any]] = {}

    def run(self, batch: PackedBatch) -> list[Outputs]:
        if self._backend is None:
            raise RuntimeError("the replica is closed")
        graph = self._backend.graph(batch.wanted)
        request = self._requests.get(graph)
        if request is None:
            request = self._requests[graph] = graph.compiled.create_infer_request()
        # Kept until the next one: the plugin may look at shared inputs after the call.
        self._fed = graph.inputs.feed(batch)
        results = request.infer(self._fed, share_inputs=True, share_outputs=True)
        found: dict[Output, NDArray[np.float32]] = {}
        for place, name in enumerate(graph.outputs):
            if name in batch.wanted:
                size = batch.tokens if name in TOKEN_OUTPUTS else len(batch)
                # A copy: the request's own buffer is written again by the next batch.
                found[name] = np.array(results[place][:size], dtype=np.float32)
        return by_sequence(found, batch)

    def close(self) -> None:
        self._backend = None
        self._requests = {}
