"""The vocabulary on ONNX: calling a family once with these operations writes its graph, for a rectangle of texts.

Where the other libraries have an axis of tokens, here are two: batch and sequence. So `[T, D]` of `lemni.ops.base` is
`[batch, sequence, D]`, and what `attention_mask` leaves out is kept from the rest by masks. A text may be padded on
either side: positions are counted from its first token, wherever that is. A file holds what opset 17 has, and what
ONNX Runtime's and OpenVINO's fusions recognise. Reference: https://onnx.ai/onnx/operators/
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from lemni.hub.codes import Weight, floats_of
from lemni.ops.base import activation_named
from lemni.ops.onnx_graph import Graph, Node, Shape
from lemni.ops.onnx_inputs import ONNXInputs
from lemni.ops.plan import FULL, Buckets, Window

Tensor: TypeAlias = Node

_FLOAT32, _FLOAT16, _INT64 = np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.int64)

LEAST_OPSET, MOST_OPSET = 14, 20
"""14 spells the operators below as they are; 20 is the last that ONNX Runtime and OpenVINO were tried with."""

_LAYER_NORM_OPSET, _AXES_ARE_INPUT_OPSET, _GELU_OPSET = 17, 18, 20


class Constant(Node):
    """A weight that is written when it is first used, in the form that is used.

    Args:
        array: a view of the model's file, if the file has it as it is.
        half: whether it is stored as float16 if it is a matrix.
    """

    def __init__(self, graph: Graph, label: str, array: NDArray[Any], *, half: bool) -> None:
        super().__init__(graph, label, tuple(array.shape))
        self.array = array
        self.dtype: np.dtype[Any] = _INT64
        if array.dtype.kind == "f":
            self.dtype = _FLOAT16 if half and array.ndim > 1 else _FLOAT32
        self.scope = label.removesuffix(".weight").removesuffix(".bias")

    @property
    def name(self) -> str:
        return self._plain.name

    @cached_property
    def stored(self) -> Node:
        """It in its storage type, for an operator that chooses rows before they become float32."""
        return self.graph.weight(self._name, self.array, self.dtype)

    @cached_property
    def transposed(self) -> Node:
        """float32 [in, out] of [out, in], turned in the file."""
        return _floats(self.graph.weight(f"{self._name}_transposed", self.array.T, self.dtype), self.dtype)

    @cached_property
    def _plain(self) -> Node:
        return _floats(self.stored, self.dtype)


def _floats(x: Node, dtype: np.dtype[Any]) -> Node:
    """float32 of what is stored as float16."""
    return x if dtype != _FLOAT16 else x.graph.node("Cast", [x], x.shape, to=TensorProto.FLOAT)


def _gelu_tanh(x: Node) -> Node:
    graph = x.graph
    if graph.opset >= _GELU_OPSET:
        return graph.node("Gelu", [x], x.shape, approximate="tanh")
    cubed = graph.node("Pow", [x, graph.number(3)], x.shape)
    inner = (x + cubed * graph.number(0.044715)) * graph.number(math.sqrt(2 / math.pi))
    return x * (graph.node("Tanh", [inner], x.shape) + graph.number(1)) * graph.number(0.5)


def _gelu(x: Node) -> Node:
    graph = x.graph
    if graph.opset >= _GELU_OPSET:
        return graph.node("Gelu", [x], x.shape)
    erf = graph.node("Erf", [x / graph.number(math.sqrt(2))], x.shape)
    return x * (erf + graph.number(1)) * graph.number(0.5)


def _simple(op: str) -> Callable[[Node], Node]:
    return lambda x: x.graph.node(op, [x], x.shape)


def _silu(x: Node) -> Node:
    return x * x.graph.node("Sigmoid", [x], x.shape)


_ACTIVATIONS: dict[str, Callable[[Node], Node]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_fast": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": lambda x: x * _simple("Sigmoid")(x * x.graph.number(1.702)),
    "relu": _simple("Relu"),
    "silu": _silu,
    "swish": _silu,
    "tanh": _simple("Tanh"),
    "sigmoid": _simple("Sigmoid"),
    "linear": lambda x: x,
}


class ONNXOps:
    """`lemni.ops.base.Ops` that writes a graph which computes in float32.

    Args:
        half: whether the matrices that come from the model's files are stored as float16.
        name_of: the name of a weight, if it has one.

    Attributes:
        section: put before the names of weights that have none.
    """

    def __init__(
        self, graph: Graph, *, half: bool = False, name_of: Callable[[NDArray[Any]], str | None] = lambda array: None
    ) -> None:
        self.graph = graph
        self.section = ""
        self._half = half
        self._name_of = name_of

    def constant(self, array: Weight) -> Constant:
        array = floats_of(array)
        name = self._name_of(array)
        label = name or f"{self.section}constant"
        return Constant(self.graph, label, array, half=self._half and name is not None)

    def embedding(self, table: Constant, ids: Tensor) -> Node:
        if len(table.array) == 1:  # the token types of RoBERTa: no input has to say that they are all 0
            return table
        self.graph.scope = table.scope
        rows = self.graph.node("Gather", [table.stored, ids], (*ids.shape, *table.shape[1:]), axis=0)
        return _floats(rows, table.dtype)

    def linear(self, x: Tensor, weight: Constant, bias: Tensor | None = None) -> Node:
        self.graph.scope = weight.scope
        product = self.graph.node("MatMul", [x, weight.transposed], (*x.shape[:-1], weight.shape[0]))
        return product if bias is None else product + bias

    def layer_norm(self, x: Tensor, weight: Constant | None, bias: Constant | None, eps: float) -> Node:
        graph = self.graph
        if weight is not None:
            graph.scope = weight.scope
        if graph.opset >= _LAYER_NORM_OPSET:
            scale = graph.weight("ones", np.ones(_size(x), np.float32), _FLOAT32) if weight is None else weight
            inputs = [x, scale] if bias is None else [x, scale, bias]
            return graph.node("LayerNormalization", inputs, x.shape, axis=-1, epsilon=float(eps))
        centred = x - self._mean(x)
        normal = centred / self.square_root(self._mean(self._squared(centred)) + graph.number(eps))
        if weight is not None:
            normal = normal * weight
        return normal if bias is None else normal + bias

    def rms_norm(self, x: Tensor, weight: Constant, eps: float) -> Node:
        self.graph.scope = weight.scope
        return x / self.square_root(self._mean(self._squared(x)) + self.graph.number(eps)) * weight

    def activation(self, x: Tensor, name: str) -> Node:
        return activation_named(name, _ACTIVATIONS)(x)

    def split(self, x: Tensor, sizes: Seq[int]) -> list[Tensor]:
        shapes = [(*x.shape[:-1], size) for size in sizes]
        return list(self.graph.nodes("Split", [x, self.graph.ints(*sizes)], shapes, axis=-1))

    def concat(self, xs: Seq[Tensor]) -> Node:
        return self.graph.node("Concat", xs, (*xs[0].shape[:-1], sum(map(_size, xs))), axis=-1)

    def heads(self, x: Tensor, count: int) -> Node:
        return self._reshape(x, (0, 0, count, _size(x) // count), (*x.shape[:2], count, _size(x) // count))

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Node:
        dim, width = _size(x), _size(cos)
        rotary, rest = (x, None) if dim == width else self.split(x, [width, dim - width])
        half = width // 2
        if interleaved:
            count = _size(x, -2)
            pairs = self._reshape(rotary, (0, 0, count, half, 2), (*x.shape[:2], count, half, 2))
            even, odd = self.split(pairs, [1, 1])
            turned = self.concat([self._negative(odd), even])
            turned = self._reshape(turned, (0, 0, count, width), rotary.shape)
        else:
            left, right = self.split(rotary, [half, half])
            turned = self.concat([self._negative(right), left])
        cos, sin = (self._over_heads(table) for table in (cos, sin))
        rotated = rotary * cos + turned * sin
        return rotated if rest is None else self.concat([rotated, rest])

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: ONNXInputs,
        *,
        scale: float,
        window: Window = FULL,
        bias: Tensor | None = None,
    ) -> Node:
        count = _size(query, 2)
        mask = inputs.mask(window) if bias is None else inputs.biased(window, bias)
        key, value = self._shared(self._rows(key), count), self._shared(self._rows(value), count)
        return self._attended(self._scaled(query, scale), key, value, [mask])

    def relative_bias(self, table: Constant, inputs: ONNXInputs) -> Node:
        places = inputs.clipped_distances(_size(table) // 2)
        self.graph.scope = table.scope
        rows = self.graph.node("Gather", [table.stored, places], (table.shape[0], None, None), axis=1)
        return _floats(rows, table.dtype)

    def disentangled_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: ONNXInputs,
        *,
        scale: float,
        position_keys: Constant | None,
        position_queries: Constant | None,
        buckets: Buckets,
    ) -> Node:
        graph = self.graph
        query, key, value = self._scaled(query, scale), self._rows(key), self._rows(value)
        found = inputs.bucketed(buckets)
        terms = [inputs.mask(FULL)]
        if position_keys is not None:  # by query and bucket
            count = graph.integer(_size(position_keys, 1))
            rows = self._column(inputs.columns) * count
            by_query = graph.node("MatMul", [query, self._turned(position_keys)], (None,) * 4)
            terms.append(self._spread(by_query, found + rows, inputs))
        if position_queries is not None:  # by bucket and key
            by_key = graph.node("MatMul", [position_queries, self._turned(key)], (None,) * 4)
            terms.append(self._spread(by_key, found * inputs.size + inputs.columns, inputs) * graph.number(scale))
        return self._attended(query, key, value, terms)

    def neighbours(self, x: Tensor, inputs: ONNXInputs) -> Node:
        graph = self.graph
        padded = graph.node("Pad", [x * inputs.token_mask, graph.ints(0, 1, 0, 0, 1, 0)], (None, None, _size(x)))
        axis, end = graph.ints(1), graph.ints(np.iinfo(np.int64).max)
        before = graph.node("Slice", [padded, graph.ints(0), graph.ints(-2), axis], x.shape)
        after = graph.node("Slice", [padded, graph.ints(2), end, axis], x.shape)
        return self.concat([before, x, after])

    def segment_sum(self, x: Tensor, inputs: ONNXInputs) -> Node:
        known = x * inputs.token_mask
        return self.graph.node("ReduceSum", [known, self.graph.ints(1)], ("batch", _size(x)), keepdims=0)

    def segment_max(self, x: Tensor, inputs: ONNXInputs) -> Node:
        # A large negative is added nowhere, for it would take the digits of what it is added to.
        graph = self.graph
        there = graph.node("Cast", [inputs.token_mask], ("batch", "sequence", 1), to=TensorProto.BOOL)
        lowest = graph.number(float(np.finfo(np.float32).min))
        known = graph.node("Where", [there, x, lowest], x.shape)
        return self._reduce("ReduceMax", known, 1, ("batch", _size(x)), keepdims=0)

    def first(self, x: Tensor, inputs: ONNXInputs) -> Node:
        return self.graph.node("GatherND", [x, inputs.start], ("batch", _size(x)), batch_dims=1)

    def last(self, x: Tensor, inputs: ONNXInputs) -> Node:
        return self.graph.node("GatherND", [x, inputs.end], ("batch", _size(x)), batch_dims=1)

    def square_root(self, x: Tensor) -> Node:
        return self.graph.node("Sqrt", [x], x.shape)

    def log1p(self, x: Tensor) -> Node:
        return self.graph.node("Log", [x + self.graph.number(1)], x.shape)

    def unit_length(self, x: Tensor) -> Node:
        """Rows over their Euclidean length, zeros as they are."""
        graph = self.graph
        squares = graph.node("ReduceSum", [self._squared(x), graph.ints(-1)], (*x.shape[:-1], 1), keepdims=1)
        return x / graph.node("Max", [self.square_root(squares), graph.number(1e-12)], (*x.shape[:-1], 1))

    def _attended(self, query: Node, key: Node, value: Node, terms: Seq[Node]) -> Node:
        """softmax(q k^T + terms) v of [batch, heads, sequence, D] -> [batch, sequence, heads * D]."""
        graph, (_, count, _, dim) = self.graph, query.shape
        scores = graph.node("MatMul", [query, self._turned(key)], ("batch", count, "sequence", "sequence"))
        for term in terms:
            scores = scores + term
        weights = graph.node("Softmax", [scores], scores.shape, axis=-1)
        mixed = graph.node("MatMul", [weights, value], ("batch", count, "sequence", dim))
        side_by_side = graph.node("Transpose", [mixed], ("batch", "sequence", count, dim), perm=[0, 2, 1, 3])
        width = _size(query, 1) * _size(query)
        return self._reshape(side_by_side, (0, 0, width), ("batch", "sequence", width))

    def _scaled(self, query: Node, scale: float) -> Node:
        """Rows of queries; it costs less to scale these than the scores, which are many more."""
        return self._rows(query) * self.graph.number(scale)

    def _rows(self, x: Node) -> Node:
        """[batch, sequence, heads, D] -> [batch, heads, sequence, D]."""
        batch, sequence, count, dim = x.shape
        return self.graph.node("Transpose", [x], (batch, count, sequence, dim), perm=[0, 2, 1, 3])

    def _shared(self, x: Node, count: int) -> Node:
        """Every key and value head serves several query heads."""
        groups, dim = _size(x, 1), _size(x)
        if groups == count:
            return x
        spread = self.graph.node("Unsqueeze", [x, self.graph.ints(2)], (None, groups, 1, None, dim))
        times = self.graph.ints(1, 1, count // groups, 1, 1)
        repeated = self.graph.node("Expand", [spread, times], (None, groups, count // groups, None, dim))
        return self._reshape(repeated, (0, count, -1, dim), ("batch", count, "sequence", dim))

    def _spread(self, by_bucket: Node, cells: Node, inputs: ONNXInputs) -> Node:
        """Of the last two axes, the values in these cells: [batch, heads, sequence, sequence]."""
        graph = self.graph
        flat = self._reshape(by_bucket, (0, 0, -1), (None, None, None))
        listed = self._reshape(cells, (-1,), (None,))
        chosen = graph.node("Gather", [flat, listed], (None, None, None), axis=2)
        size = graph.node("Unsqueeze", [inputs.size, graph.ints(0)], (1,))
        square = graph.node("Concat", [graph.ints(0, 0), size, size], (4,), axis=0)
        return graph.node("Reshape", [chosen, square], ("batch", None, "sequence", "sequence"))

    def _turned(self, x: Node) -> Node:
        """The last two axes exchanged."""
        *rest, rows, columns = x.shape
        order = [*range(len(rest)), len(rest) + 1, len(rest)]
        return self.graph.node("Transpose", [x], (*rest, columns, rows), perm=order)

    def _column(self, x: Node) -> Node:
        return self.graph.node("Unsqueeze", [x, self.graph.ints(1)], (*x.shape, 1))

    def _over_heads(self, table: Node) -> Node:
        """[batch, sequence, D] -> [batch, sequence, 1, D]."""
        shape = (*table.shape[:-1], 1, table.shape[-1])
        return self.graph.node("Unsqueeze", [table, self.graph.ints(2)], shape)

    def _negative(self, x: Node) -> Node:
        return self.graph.node("Neg", [x], x.shape)

    def _squared(self, x: Node) -> Node:
        return self.graph.node("Pow", [x, self.graph.number(2)], x.shape)

    def _mean(self, x: Node) -> Node:
        return self._reduce("ReduceMean", x, -1, (*x.shape[:-1], 1), keepdims=1)

    def _reduce(self, op: str, x: Node, axis: int, shape: Shape, keepdims: int) -> Node:
        if self.graph.opset >= _AXES_ARE_INPUT_OPSET:
            return self.graph.node(op, [x, self.graph.ints(axis)], shape, keepdims=keepdims)
        return self.graph.node(op, [x], shape, axes=[axis], keepdims=keepdims)

    def _reshape(self, x: Node, sizes: tuple[int, ...], shape: Shape) -> Node:
        return self.graph.node("Reshape", [x, self.graph.ints(*sizes)], shape)


def _size(x: Node, axis: int = -1) -> int:
    """A size that is known while the graph is written."""
    size = x.shape[axis]
    assert isinstance(size, int), x.shape
    return size
