"""An ONNX graph while it is being written: nodes with names that people recognise, and weights that are not copied.

Weights stay views of the model's files until `proto` or `write_weights` puts them where they go. `lemni.ops.onnx` is
the vocabulary on top of it. Reference: https://onnx.ai/onnx/repo-docs/IR.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from lemni.errors import ModelLoadError

Shape = tuple[int | str | None, ...]
"""Sizes that are known while the graph is written; a name for those that a caller chooses; None for others."""

_INLINE_BYTES = 1024
"""Smaller constants always stay in the graph: tools read sizes and axes there."""

_ALIGNMENT = 4096  # of weights in a file beside the graph, so that they can be mapped into memory


class Node:
    """A value of the graph: floats with `+ - * /`, or integers.

    Attributes:
        name: of the value.
        shape: as far as it is known.
    """

    def __init__(self, graph: Graph, name: str, shape: Shape) -> None:
        self.graph = graph
        self.shape = shape
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def __add__(self, other: Node) -> Node:
        return self._with("Add", other)

    def __sub__(self, other: Node) -> Node:
        return self._with("Sub", other)

    def __mul__(self, other: Node) -> Node:
        return self._with("Mul", other)

    def __truediv__(self, other: Node) -> Node:
        return self._with("Div", other)

    def _with(self, op: str, other: Node) -> Node:
        return self.graph.node(op, [self, other], broadcast(self.shape, other.shape))


def broadcast(one: Shape, other: Shape) -> Shape:
    """numpy's rule; of two sizes the one that is known."""
    longest = max(len(one), len(other))
    padded = ((1,) * (longest - len(one)) + one, (1,) * (longest - len(other)) + other)
    return tuple(b if a == 1 or (a is None and b != 1) else a for a, b in zip(*padded, strict=True))


@dataclass
class _Weight:
    array: NDArray[Any]  # a view; a transposed one is turned when it is written
    dtype: np.dtype[Any]

    @property
    def size(self) -> int:
        return int(self.array.size) * self.dtype.itemsize

    def data(self, name: str) -> bytes:
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(self.array, dtype=self.dtype)
        if self.dtype == np.float16 and not np.isfinite(array).all():
            raise ModelLoadError(f"{name} has values over 65504, float16's largest: export it as float32")
        return array.tobytes()


class Graph:
    """Nodes in the order in which they are asked for.

    Args:
        opset: version of ONNX's own operators.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.scope = "inputs"
        self._nodes: list[Any] = []
        self._weights: dict[str, _Weight] = {}
        self._taken: dict[str, int] = {}
        self._small: dict[tuple[str, bytes, tuple[int, ...]], Node] = {}
        self._inputs: dict[str, tuple[Any, bool]] = {}
        self._outputs: list[Any] = []

    def input(self, name: str, shape: Shape, *, optional: bool = False) -> Node:
        """An int64 input; an optional one is left out if nothing is computed from it."""
        self._inputs[name] = helper.make_tensor_value_info(name, TensorProto.INT64, shape), optional
        return Node(self, name, shape)

    def output(self, name: str, value: Node, shape: Shape) -> None:
        """Call a float value by this name and give it out."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name], name=f"/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    @property
    def input_names(self) -> list[str]:
        """The inputs that the graph has so far."""
        used = {name for node in self._nodes for name in node.input}
        return [name for name, (_, optional) in self._inputs.items() if name in used or not optional]

    @contextmanager
    def within(self, scope: str) -> Iterator[None]:
        """Nodes made inside are named after `scope`."""
        before, self.scope = self.scope, scope
        try:
            yield
        finally:
            self.scope = before

    def node(self, op: str, inputs: Seq[Node], shape: Shape, **attributes: Any) -> Node:
        """One value computed by an operator."""
        return self.nodes(op, inputs, [shape], **attributes)[0]

    def nodes(self, op: str, inputs: Seq[Node], shapes: Seq[Shape], **attributes: Any) -> list[Node]:
        """The values that an operator gives."""
        name = self._unique(f"/{_path(self.scope)}/{op}")
        outputs = [Node(self, f"{name}_output_{n}", shape) for n, shape in enumerate(shapes)]
        names = [value.name for value in inputs], [value.name for value in outputs]
        self._nodes.append(helper.make_node(op, *names, name=name, **attributes))
        return outputs

    def weight(self, name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> Node:
        """A constant with a name of its own, stored as `dtype`; a name that is taken gets a number."""
        name = self._unique(name)
        self._weights[name] = _Weight(array, dtype)
        return Node(self, name, tuple(array.shape))

    def ints(self, *values: int) -> Node:
        """int64 [n]."""
        return self._constant("ints", np.array(values, dtype=np.int64))

    def integer(self, value: int) -> Node:
        """int64, no axes."""
        return self._constant("int", np.array(value, dtype=np.int64))

    def number(self, value: float) -> Node:
        """float32, no axes."""
        return self._constant("float", np.array(value, dtype=np.float32))

    def weight_bytes(self) -> int:
        """What the weights take in a file."""
        return sum(weight.size for weight in self._weights.values())

    def proto(self, *, external: str | None, metadata: dict[str, str]) -> Any:
        """The `onnx.ModelProto`, with sizes of all values as far as they can be inferred.

        Args:
            external: name of the file beside it that `write_weights` fills; None puts the weights into the model.
        """
        from lemni import __version__

        tensors, place = [], 0
        for name, weight in self._weights.items():
            tensor = TensorProto(name=name, dims=weight.array.shape)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(weight.dtype)
            if weight.size < _INLINE_BYTES:
                tensor.raw_data = weight.data(name)
            else:
                place = -(-place // _ALIGNMENT) * _ALIGNMENT
                _outside(tensor, external or "weights", place, weight.size)
                place += weight.size
            tensors.append(tensor)
        inputs = [self._inputs[name][0] for name in self.input_names]
        graph = helper.make_graph(self._nodes, "lemni", inputs, self._outputs, tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="lemni",
            producer_version=__version__,
        )
        helper.set_model_props(model, metadata)
        model = onnx.shape_inference.infer_shapes(model)
        if external is None:
            for tensor in model.graph.initializer:
                if tensor.data_location == TensorProto.EXTERNAL:
                    tensor.ClearField("external_data")
                    tensor.data_location = TensorProto.DEFAULT
                    tensor.raw_data = self._weights[tensor.name].data(tensor.name)
        return model

    def write_weights(self, file: BinaryIO) -> None:
        """The weights that `proto` says are outside, one after the other."""
        for name, weight in self._weights.items():
            if weight.size >= _INLINE_BYTES:
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                file.write(weight.data(name))

    def _constant(self, kind: str, array: NDArray[Any]) -> Node:
        key = (array.dtype.str, array.tobytes(), array.shape)
        if key not in self._small:
            words = "_".join(f"{value:g}" for value in array.reshape(-1).tolist())
            name = self._unique(f"{kind}_{words}")
            self._weights[name] = _Weight(array, array.dtype)
            self._small[key] = Node(self, name, tuple(array.shape))
        return self._small[key]

    def _unique(self, name: str) -> str:
        count = self._taken.get(name, 0)
        self._taken[name] = count + 1
        return f"{name}_{count}" if count else name


def _outside(tensor: Any, file: str, offset: int, length: int) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _path(scope: str) -> str:
    """`encoder.layer.0.attention` -> `encoder/layer.0/attention`, as torch's exporter writes it."""
    return re.sub(r"\.(?!\d+(\.|$))", "/", scope)
