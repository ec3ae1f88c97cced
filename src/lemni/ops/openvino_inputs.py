"""What changes from batch to batch, on OpenVINO: the parameters of a graph, made when a family first asks for one.

`feed` computes the values of those that are in the graph, with spare tokens and sequences, so that shapes repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset15 as op

from lemni.ops.plan import Buckets, RowPlan, Window, neighbours, plan_rows, rounded
from lemni.types import PackedBatch

Tensor: TypeAlias = ov.Output | ov.Node

TOKEN_AXIS = 0

_Feeder = Callable[[PackedBatch, RowPlan], NDArray[Any]]


def _owners(batch: PackedBatch, plan: RowPlan) -> NDArray[np.int32]:
    """int32 [T]: the sequence of each token, counted from 1, for spare tokens are of sequence 0."""
    return np.repeat(np.arange(1, len(batch) + 1, dtype=np.int32), batch.lengths)


def _segments(batch: PackedBatch, plan: RowPlan) -> NDArray[np.float32]:
    """float32 [B, T]: 1 where the token belongs to the sequence; a matrix product with it is a sum by sequence."""
    owner = np.repeat(np.arange(len(batch)), batch.lengths)
    belongs: NDArray[np.bool_] = owner == np.arange(len(batch))[:, None]
    return belongs.astype(np.float32)


def _pool_mask(batch: PackedBatch) -> NDArray[np.float32]:
    pooled: NDArray[np.bool_] = batch.positions >= np.repeat(batch.pool_starts, batch.lengths)
    return pooled[:, None].astype(np.float32)


# Parameter name -> its shape and how a batch fills it.
_FEEDERS: dict[str, tuple[list[int], _Feeder]] = {
    "ids": ([-1], lambda batch, plan: batch.ids),
    "positions": ([-1], lambda batch, plan: batch.positions),
    "token_types": ([-1], lambda batch, plan: batch.token_types),
    "places": ([-1, 1], lambda batch, plan: (batch.positions[:, None] + 1).astype(np.float32)),
    "lengths": ([-1, 1], lambda batch, plan: batch.lengths[:, None].astype(np.float32)),
    "pool_mask": ([-1, 1], lambda batch, plan: _pool_mask(batch)),
    "first": ([-1], lambda batch, plan: batch.starts + batch.pool_starts),
    "last": ([-1], lambda batch, plan: batch.starts + batch.lengths - 1),
    "segments": ([-1, -1], _segments),
    "owners": ([-1], _owners),
    "row_tokens": ([-1, -1], lambda batch, plan: plan.token),
    "row_cells": ([-1], lambda batch, plan: plan.cell),
    "relative": ([-1, -1], lambda batch, plan: plan.relative),
    "neighbours": ([-1, 3], lambda batch, plan: neighbours(batch.lengths)),
}

_FLOATS = ("places", "lengths", "pool_mask", "segments")

# Parameters with an axis of tokens or of sequences, and which: there they get spare ones at the end, so that shapes
# repeat. A spare token is of no sequence; a spare sequence has one token's length, so that nothing is divided by zero.
_TOKEN_AXES = {
    "ids": 0, "positions": 0, "token_types": 0, "places": 0, "pool_mask": 0, "row_cells": 0, "neighbours": 0,
    "segments": 1, "owners": 0,
}  # fmt: skip
_SEQUENCE_AXES = {"lengths": 0, "first": 0, "last": 0, "segments": 0}


class OpenVINOInputs:
    """The parameters of the graph that is being written."""

    def __init__(self) -> None:
        self.parameters: dict[str, ov.Node] = {}
        self._feeders: dict[str, _Feeder] = {}
        self._bucketed: dict[Buckets, int] = {}
        self._biased: dict[Window, tuple[Tensor, ov.Node]] = {}

    def parameter(self, name: str) -> ov.Node:
        shape, feeder = _FEEDERS[name]
        return self._parameter(name, shape, feeder)

    def mask(self, window: Window) -> ov.Node:
        """float [R, 1, L or 1, L], one parameter for each kind of window in the model."""
        return self._parameter(f"mask_{window[0]}_{window[1]}", [-1, 1, -1, -1], lambda batch, plan: plan.mask(window))

    def bucketed(self, buckets: Buckets) -> tuple[ov.Node, ov.Node, ov.Node]:
        """Parameters from `RowPlan.bucketed`: int [W], and two of int [L * L] with the cell of each query and key,
        in [L, W] by the query and its bucket, and in [W, L] by the bucket and its key."""
        number = self._bucketed.setdefault(buckets, len(self._bucketed))

        def by_query(batch: PackedBatch, plan: RowPlan) -> NDArray[np.int32]:
            found, places = plan.bucketed(buckets)
            cells: NDArray[np.int32] = places + np.arange(plan.width, dtype=np.int32)[:, None] * np.int32(len(found))
            return cells.reshape(-1)

        def by_key(batch: PackedBatch, plan: RowPlan) -> NDArray[np.int32]:
            _, places = plan.bucketed(buckets)
            cells: NDArray[np.int32] = places * np.int32(plan.width) + np.arange(plan.width, dtype=np.int32)
            return cells.reshape(-1)

        return (
            self._parameter(f"buckets_{number}", [-1], lambda batch, plan: plan.bucketed(buckets)[0]),
            self._parameter(f"buckets_{number}_by_query", [-1], by_query),
            self._parameter(f"buckets_{number}_by_key", [-1], by_key),
        )

    def rows(self, x: Tensor) -> ov.Node:
        """[T, heads, D] -> [R, heads, L, D]."""
        rows = op.gather(x, self.parameter("row_tokens"), ints(TOKEN_AXIS))
        return op.transpose(rows, ints(0, 2, 1, 3))

    def unrows(self, x: Tensor) -> ov.Node:
        """[R, heads, L, D] -> [T, heads * D]."""
        flat = op.reshape(op.transpose(x, ints(0, 2, 1, 3)), ints(-1, width_of(x, 1) * width_of(x)), False)
        return op.gather(flat, self.parameter("row_cells"), ints(TOKEN_AXIS))

    def biased(self, window: Window, bias: Tensor) -> ov.Node:
        """mask + bias [R, heads, L, L]; one node for all layers that share the bias."""
        if window not in self._biased or self._biased[window][0] is not bias:
            self._biased[window] = bias, op.add(self.mask(window), bias)
        return self._biased[window][1]

    def _parameter(self, name: str, shape: list[int], feeder: _Feeder) -> ov.Node:
        if name not in self.parameters:
            floats = name in _FLOATS or name.startswith("mask")
            node = op.parameter(shape, np.float32 if floats else np.int32, name=name)
            node.output(0).set_names({name})
            self.parameters[name] = node
            self._feeders[name] = feeder
        return self.parameters[name]

    def feed(self, batch: PackedBatch) -> dict[str, NDArray[Any]]:
        """The value of every parameter in the graph for one batch, with spare tokens, sequences and cells."""
        plan = plan_rows(batch.lengths, batch.unattended).with_spare_cells()
        tokens = rounded(batch.tokens) - batch.tokens
        sequences = rounded(len(batch), parts=4, least=1) - len(batch)
        values: dict[str, NDArray[Any]] = {}
        for name, feeder in self._feeders.items():
            value = feeder(batch, plan)
            ends = [(0, 0)] * value.ndim
            for axes, spare in ((_TOKEN_AXES, tokens), (_SEQUENCE_AXES, sequences)):
                if name in axes:
                    ends[axes[name]] = (0, spare)
            values[name] = np.pad(value, ends, constant_values=1 if name == "lengths" else 0)
        return values

    @property
    def ids(self) -> ov.Node:
        return self.parameter("ids")

    @property
    def positions(self) -> ov.Node:
        return self.parameter("positions")

    @property
    def token_types(self) -> ov.Node:
        return self.parameter("token_types")

    @property
    def places(self) -> ov.Node:
        return self.parameter("places")

    @property
    def lengths(self) -> ov.Node:
        return self.parameter("lengths")

    @property
    def pool_mask(self) -> ov.Node:
        return self.parameter("pool_mask")


def ints(*values: int) -> ov.Node:
    return op.constant(np.array(values, dtype=np.int64))


def width_of(x: Tensor, axis: int = -1) -> int:
    """A dimension that is known while the graph is written."""
    shape = x.get_output_partial_shape(0) if isinstance(x, ov.Node) else x.get_partial_shape()
    width: int = shape[len(shape) + axis if axis < 0 else axis].get_length()
    return width
