"""A graph whose heads read one token of each sequence need not compute the others to the end.

Pooling by the first or last token is a Gather of rows behind the last layer. What lies before it and works on each row
by itself (linear layers, norms, activations, sums) gives the same rows if the Gather comes first; so it moves up to
where all tokens are needed, the last attention. Works on any family, for it only looks at the operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import openvino as ov
from openvino import opset15 as op

# By row over the last axis only, as `OpenVINOOps` writes them.
_BY_ROW = frozenset((
    "Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "Power", "Sqrt", "Log", "Negative", "Convert",
    "Gelu", "Swish", "Tanh", "Sigmoid", "Relu", "MVN", "ReduceMean", "VariadicSplit", "MatMul",
))  # fmt: skip


def narrow(model: ov.Model, indices: Iterable[ov.Node]) -> int:
    """Move the row choices of `model` up, in place.

    Args:
        indices: the parameters, int [B], by which rows are chosen.

    Returns:
        The number of operations that compute fewer rows now.
    """
    return sum(_narrow(model, index) for index in indices)


def _narrow(model: ov.Model, index: ov.Node) -> int:
    choices = [
        node for node in model.get_ordered_ops() if node.get_type_name() == "Gather" and _source(node, 1) is index
    ]
    ends = {_name(node) for node in choices}
    narrowed: dict[str, ov.Node] = {}
    for node in reversed(model.get_ordered_ops()):
        if _works_by_row(node) and all(name in ends or name in narrowed for name in _readers(node)):
            narrowed[_name(node)] = node
    for node in narrowed.values():
        for port in node.inputs():
            source = port.get_source_output()
            if _has_rows(source) and _name(source.get_node()) not in narrowed:
                port.replace_source_output(op.gather(source, index, op.constant(0)).output(0))
    for choice in choices:
        hidden = choice.input_value(0)
        if _name(hidden.get_node()) in narrowed:
            choice.output(0).replace(hidden)
    model.validate_nodes_and_infer_types()
    return len(narrowed)


def _works_by_row(node: ov.Node) -> bool:
    kind = node.get_type_name()
    if kind not in _BY_ROW or not _has_rows(node.output(0)):
        return False
    # The second matrix must be a weight: products of activations mix rows.
    return kind != "MatMul" or (_has_rows(node.input_value(0)) and not _has_rows(node.input_value(1)))


def _has_rows(output: Any) -> bool:
    """Whether the first of two or more axes is open: tokens."""
    shape = output.get_partial_shape()
    return shape.rank.is_static and len(shape) > 1 and shape[0].is_dynamic


def _readers(node: ov.Node) -> list[str]:
    return [_name(port.get_node()) for output in node.outputs() for port in output.get_target_inputs()]


def _source(node: ov.Node, port: int) -> ov.Node:
    return node.input_value(port).get_node()


def _name(node: ov.Node) -> str:
    name: str = node.get_name()  # unique in a graph; the Python objects of one node are not the same
    return name
