"""The vocabulary on OpenVINO: calling a family once with these operations writes its graph.

Weights become constants that share the file's memory map. What changes from batch to batch enters through named
parameters (`openvino_inputs.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, Literal

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as op

from lemni.errors import ModelLoadError
from lemni.hub.codes import Codes, Weight
from lemni.ops.base import activation_named
from lemni.ops.int8 import is_large_table, is_worth_it, quantize_rows
from lemni.ops.openvino_inputs import TOKEN_AXIS, OpenVINOInputs, Tensor, ints, width_of
from lemni.ops.plan import FULL, Buckets, Window


def _shared(array: NDArray[Any]) -> ov.Node:
    """A constant over the array's own memory, where OpenVINO takes it as it is."""
    shared = array.flags.c_contiguous and array.flags.writeable
    return op.constant(array if shared else np.ascontiguousarray(array), shared_memory=shared)


def _unfolded(codes: ov.Node, zeros: ov.Node, scales: NDArray[np.float32]) -> ov.Node:
    """(codes - zeros) * scales, in the form that the plugin knows."""
    centred = op.subtract(op.convert(codes, np.float32), op.convert(zeros, np.float32))
    return op.multiply(centred, op.constant(scales))


def _halves(array: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = array.astype(np.float16, copy=False)
    if not np.isfinite(halves).all() and np.isfinite(array).all():
        raise ModelLoadError(
            f"a weight of shape {array.shape} has values over 65504, float16's largest: use float32 or bfloat16"
        )
    return halves


def _node(x: Tensor) -> ov.Node:
    return x if isinstance(x, ov.Node) else x.get_node()


def _scalar(value: float) -> ov.Node:
    return op.constant(np.float32(value))


_ACTIVATIONS: dict[str, Callable[[Tensor], ov.Node]] = {
    "gelu": lambda x: op.gelu(x, "ERF"),
    "gelu_new": lambda x: op.gelu(x, "TANH"),
    "gelu_fast": lambda x: op.gelu(x, "TANH"),
    "gelu_pytorch_tanh": lambda x: op.gelu(x, "TANH"),
    "quick_gelu": lambda x: op.multiply(x, op.sigmoid(op.multiply(x, _scalar(1.702)))),
    "relu": op.relu,
    "silu": op.swish,
    "swish": op.swish,
    "tanh": op.tanh,
    "sigmoid": op.sigmoid,
    "linear": lambda x: x,
}


class OpenVINOOps:
    """`lemni.ops.base.Ops` that writes a float32 graph; the compiled graph's precision is set when compiling.

    Args:
        weights: "float32"; "float16": rounded to halves, and large matrices kept so, though computed in float32;
            "int8": large matrices and tables are codes of 8 bits. The plugin then quantises activations too, where the
            CPU can and compiling asks for it, and multiplies integers.
    """

    def __init__(self, *, weights: Literal["float32", "float16", "int8"] = "float32") -> None:
        self._weights = weights
        self._codes: dict[str, Codes] = {}  # name of the node that unfolds them -> stored codes
        self._matrices: dict[str, ov.Node] = {}  # name of a weight's node -> what unfolds its unsigned codes

    def constant(self, array: Weight) -> ov.Node:
        if isinstance(array, Codes):
            if self._weights != "int8":
                return self.constant(array.floats())
            unfolded = _unfolded(_shared(array.codes), _shared(array.zeros), array.scales)
            self._codes[unfolded.get_friendly_name()] = array
            return unfolded
        if array.dtype.kind != "f":
            return _shared(array)
        if self._weights == "float16" and array.ndim:
            array = _halves(array)
        if array.dtype == np.float16 and self._weights != "int8" and is_worth_it(array.shape):
            wide = op.convert(_shared(array), np.float32)
            wide.get_rt_info()["decompression_0"] = True  # keeps the plugin from widening it beforehand
            return wide
        return _shared(array.astype(np.float32, copy=False))

    def embedding(self, table: Tensor, ids: Tensor) -> ov.Node:
        node = _node(table)
        if self._weights == "int8" and node.get_type_name() == "Constant" and is_large_table(node.data.shape):
            found = quantize_rows(node.data)
            # Unfolded before the gather: the plugin then gathers codes and unfolds only what it gathered.
            table = _unfolded(op.constant(found.codes), op.constant(found.zeros), found.scales)
        return op.gather(table, ids, ints(TOKEN_AXIS))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> ov.Node:
        product = op.matmul(x, self._matrix(weight), False, True)
        return product if bias is None else op.add(product, bias)

    def _matrix(self, weight: Tensor) -> Tensor:
        if self._weights != "int8":
            return weight
        node = _node(weight)
        name = node.get_name()
        if name in self._matrices:  # of a layer that is used several times
            return self._matrices[name]
        found = self._codes.get(node.get_friendly_name())
        if found is None:
            if node.get_type_name() != "Constant" or not is_worth_it(node.data.shape):
                return weight
            found = quantize_rows(node.data)
        # The plugin multiplies unsigned codes only; signed ones it would unfold.
        codes, zeros = found.unsigned()
        unfolded = self._matrices[name] = _unfolded(op.constant(codes), op.constant(zeros), found.scales)
        return unfolded

    def layer_norm(self, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> ov.Node:
        normal = op.mvn(x, ints(-1), True, eps, "INSIDE_SQRT")
        if weight is not None:
            normal = op.multiply(normal, weight)
        return normal if bias is None else op.add(normal, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> ov.Node:
        mean = op.reduce_mean(op.multiply(x, x), ints(-1), True)
        return op.multiply(op.divide(x, op.sqrt(op.add(mean, _scalar(eps)))), weight)

    def activation(self, x: Tensor, name: str) -> ov.Node:
        return activation_named(name, _ACTIVATIONS)(x)

    def split(self, x: Tensor, sizes: Seq[int]) -> list[Tensor]:
        parts = op.variadic_split(x, ints(-1), ints(*sizes)).outputs()
        # Outputs have no operators, nodes have; compiling drops a conversion to the same type.
        return [op.convert(part, np.float32) for part in parts]

    def concat(self, xs: Seq[Tensor]) -> ov.Node:
        return op.concat(list(xs), -1)

    def heads(self, x: Tensor, count: int) -> ov.Node:
        return op.reshape(x, ints(0, count, -1), True)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> ov.Node:
        dim, width = width_of(x), width_of(cos)
        rotary, rest = (x, None) if dim == width else self.split(x, [width, dim - width])
        half = width // 2
        if interleaved:
            pairs = op.reshape(rotary, ints(0, 0, half, 2), True)
            even, odd = self.split(pairs, [1, 1])
            turned = op.reshape(op.concat([op.negative(odd), even], -1), ints(0, 0, width), True)
        else:
            left, right = self.split(rotary, [half, half])
            turned = op.concat([op.negative(right), left], -1)
        cos, sin = op.unsqueeze(cos, ints(1)), op.unsqueeze(sin, ints(1))
        rotated = op.add(op.multiply(rotary, cos), op.multiply(turned, sin))
        return rotated if rest is None else op.concat([rotated, rest], -1)

    def attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: OpenVINOInputs,
        *,
        scale: float,
        window: Window = FULL,
        bias: Tensor | None = None,
    ) -> ov.Node:
        count, kv_count = width_of(query, 1), width_of(key, 1)

        def shared(x: ov.Node) -> ov.Node:  # every key and value head serves several query heads
            if kv_count == count:
                return x
            spread = op.unsqueeze(x, ints(2))
            repeated = op.broadcast(spread, ints(1, 1, count // kv_count, 1, 1), broadcast_spec="BIDIRECTIONAL")
            return op.reshape(repeated, ints(0, count, -1, width_of(x)), True)

        mask = inputs.mask(window) if bias is None else inputs.biased(window, bias)
        out = op.scaled_dot_product_attention(
            inputs.rows(query), shared(inputs.rows(key)), shared(inputs.rows(value)), mask, _scalar(scale), causal=False
        )
        return inputs.unrows(out)

    def relative_bias(self, table: Tensor, inputs: OpenVINOInputs) -> ov.Node:
        columns = width_of(table)
        shifted = op.add(inputs.parameter("relative"), op.constant(np.int32(columns // 2)))
        clipped = op.minimum(op.maximum(shifted, op.constant(np.int32(0))), op.constant(np.int32(columns - 1)))
        return op.gather(table, clipped, ints(1))

    def disentangled_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inputs: OpenVINOInputs,
        *,
        scale: float,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        buckets: Buckets,
    ) -> ov.Node:
        query, key, value = inputs.rows(query), inputs.rows(key), inputs.rows(value)
        found, by_query, by_key = inputs.bucketed(buckets)
        square = op.concat([ints(0, 0), _length(query), _length(query)], 0)

        def table(positions: Tensor) -> ov.Node:  # [heads, N, D] -> [heads, W, D]
            return op.multiply(op.gather(positions, found, ints(1)), _scalar(scale))

        def spread(by_bucket: ov.Node, cells: ov.Node) -> ov.Node:  # -> [R, heads, L, L]
            # One list of cells for all rows and heads: several times as fast as GatherElements.
            flat = op.reshape(by_bucket, ints(0, 0, -1), True)
            return op.reshape(op.gather(flat, cells, ints(2)), square, True)

        bias = inputs.mask(FULL)
        if position_keys is not None:
            bias = op.add(bias, spread(op.matmul(query, table(position_keys), False, True), by_query))
        if position_queries is not None:
            bias = op.add(bias, spread(op.matmul(table(position_queries), key, False, True), by_key))
        return inputs.unrows(op.scaled_dot_product_attention(query, key, value, bias, _scalar(scale), causal=False))

    def neighbours(self, x: Tensor, inputs: OpenVINOInputs) -> ov.Node:
        dim = width_of(x)
        # Index -1 is the row of zeros at the end.
        padded = op.concat([x, op.constant(np.zeros((1, dim), dtype=np.float32))], TOKEN_AXIS)
        rows = op.gather(padded, inputs.parameter("neighbours"), ints(TOKEN_AXIS))
        return op.reshape(rows, ints(0, 3 * dim), True)

    def segment_sum(self, x: Tensor, inputs: OpenVINOInputs) -> ov.Node:
        return op.matmul(inputs.parameter("segments"), x, False, False)

    def segment_max(self, x: Tensor, inputs: OpenVINOInputs) -> ov.Node:
        # Scattered, as a rectangle of the longest sequence would be many times the size of x.
        sequences = op.gather(op.shape_of(inputs.lengths), ints(0), ints(0))
        rows = op.add(sequences, ints(1))
        lowest = op.broadcast(_scalar(-np.inf), op.concat([rows, ints(width_of(x))], 0))
        owners = op.unsqueeze(inputs.parameter("owners"), ints(1))
        found = op.scatter_nd_update(lowest, owners, x, "max")
        return op.slice(found, ints(1), rows, ints(1), ints(0))

    def first(self, x: Tensor, inputs: OpenVINOInputs) -> ov.Node:
        return op.gather(x, inputs.parameter("first"), ints(TOKEN_AXIS))

    def last(self, x: Tensor, inputs: OpenVINOInputs) -> ov.Node:
        return op.gather(x, inputs.parameter("last"), ints(TOKEN_AXIS))

    def square_root(self, x: Tensor) -> ov.Node:
        return op.sqrt(x)

    def log1p(self, x: Tensor) -> ov.Node:
        return op.log(op.add(x, _scalar(1)))


def _length(rows: ov.Node) -> ov.Node:
    """int64 [1]: L of [R, heads, L, D]."""
    return op.gather(op.shape_of(rows), ints(2), ints(0))
