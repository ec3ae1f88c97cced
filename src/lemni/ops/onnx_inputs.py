"""What a graph for a rectangle of texts computes from its inputs: masks, positions, distances.

Each value is a node that is made when a family first asks for it. Called by families through `lemni.ops.onnx`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from onnx import TensorProto

from lemni.errors import ModelLoadError
from lemni.ops.onnx_graph import Graph, Node, Shape
from lemni.ops.plan import FULL, MASKED, Buckets, Window

_FARTHEST = 1 << 16  # distances beyond this share the bucket of the last one before


class ONNXInputs:
    """The inputs of the graph that is being written, int64 [batch, sequence] each, and what is computed from them.

    `input_ids` and `attention_mask`, and `token_type_ids` if a family asks for types of which there are several.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ids = graph.input("input_ids", ("batch", "sequence"))
        self.attention_mask = graph.input("attention_mask", ("batch", "sequence"))
        self._masks: dict[Window, Node] = {}
        self._biased: dict[Window, tuple[Node, Node]] = {}
        self._bucketed: dict[Buckets, Node] = {}

    @cached_property
    def token_types(self) -> Node:
        return self.graph.input("token_type_ids", ("batch", "sequence"), optional=True)

    @cached_property
    def attended(self) -> Node:
        """float32 [batch, sequence]: 1 for tokens, 0 for padding."""
        with self.graph.within("inputs"):
            return self.graph.node("Cast", [self.attention_mask], ("batch", "sequence"), to=TensorProto.FLOAT)

    @cached_property
    def token_mask(self) -> Node:
        """float32 [batch, sequence, 1]."""
        with self.graph.within("inputs"):
            return self._unsqueeze(self.attended, (2,), ("batch", "sequence", 1))

    @cached_property
    def size(self) -> Node:
        """int64, no axes: the width of the rectangle."""
        graph = self.graph
        with graph.within("inputs"):
            return graph.node("Gather", [graph.node("Shape", [self.ids], (2,)), graph.integer(1)], (), axis=0)

    @cached_property
    def columns(self) -> Node:
        """int64 [sequence]: 0, 1, 2 ..."""
        graph = self.graph
        with graph.within("inputs"):
            return graph.node("Range", [graph.integer(0), self.size, graph.integer(1)], ("sequence",))

    @cached_property
    def distances(self) -> Node:
        """int64 [sequence, sequence]: column of the key (last axis) minus that of the query."""
        with self.graph.within("inputs"):
            keys = self._unsqueeze(self.columns, (0,), (1, "sequence"))
            return keys - self._unsqueeze(self.columns, (1,), ("sequence", 1))

    @cached_property
    def start(self) -> Node:
        """int64 [batch, 1]: the column of the first token."""
        with self.graph.within("inputs"):
            return self.graph.node("ArgMax", [self.attended], ("batch", 1), axis=1, keepdims=1)

    @cached_property
    def end(self) -> Node:
        """int64 [batch, 1]: the column of the last token."""
        graph = self.graph
        with graph.within("inputs"):
            places = self.attended * graph.node("Cast", [self.columns], ("sequence",), to=TensorProto.FLOAT)
            return graph.node("ArgMax", [places], ("batch", 1), axis=1, keepdims=1)

    @cached_property
    def positions(self) -> Node:
        """int64 [batch, sequence], from the first token on; 0 before it."""
        graph = self.graph
        with graph.within("inputs"):
            return graph.node("Max", [self.columns - self.start, graph.integer(0)], ("batch", "sequence"))

    @cached_property
    def places(self) -> Node:
        graph, shape = self.graph, ("batch", "sequence")
        with graph.within("inputs"):
            places = graph.node("Cast", [self.positions + graph.integer(1)], shape, to=TensorProto.FLOAT)
            return self._unsqueeze(places, (2,), (*shape, 1))

    @cached_property
    def lengths(self) -> Node:
        """float32 [batch, 1]; 1 for a row of nothing but padding."""
        graph = self.graph
        with graph.within("inputs"):
            counted = graph.node("ReduceSum", [self.attended, graph.ints(1)], ("batch", 1), keepdims=1)
            return graph.node("Max", [counted, graph.number(1)], ("batch", 1))

    @property
    def pool_mask(self) -> Node:
        raise ModelLoadError("the model pools without the tokens of its prompt, which a graph cannot know")

    def mask(self, window: Window) -> Node:
        """float32 [batch, 1, 1 or sequence, sequence]: 0 where the query sees the key, else a large negative."""
        if window not in self._masks:
            with self.graph.within("inputs"):
                self._masks[window] = self._padding() if window == FULL else self.mask(FULL) + self._outside(window)
        return self._masks[window]

    def biased(self, window: Window, bias: Node) -> Node:
        """mask + bias; one node for all layers that share the bias."""
        if window not in self._biased or self._biased[window][0] is not bias:
            with self.graph.within("inputs"):
                self._biased[window] = bias, self.mask(window) + bias
        return self._biased[window][1]

    def clipped_distances(self, reach: int) -> Node:
        """int64 [sequence, sequence]: places 0..2 * reach in a table with distance 0 in its middle."""
        graph = self.graph
        with graph.within("inputs"):
            shifted = self.distances + graph.integer(reach)
            shifted = graph.node("Max", [shifted, graph.integer(0)], shifted.shape)
            return graph.node("Min", [shifted, graph.integer(2 * reach)], shifted.shape)

    def bucketed(self, buckets: Buckets) -> Node:
        """int64 [sequence, sequence]: the bucket of each query (first axis) and key."""
        if buckets not in self._bucketed:
            far = np.arange(_FARTHEST, dtype=np.int64)
            right, left = buckets(far), buckets(-far)
            reach = int(np.flatnonzero((right != right[-1]) | (left != left[-1])).max(initial=0)) + 1
            with self.graph.within("inputs"):
                table = self.graph.weight("buckets", buckets(np.arange(-reach, reach + 1)), np.dtype(np.int64))
                places = self.clipped_distances(reach)
                self._bucketed[buckets] = self.graph.node("Gather", [table, places], places.shape, axis=0)
        return self._bucketed[buckets]

    def _padding(self) -> Node:
        keys = self._unsqueeze(self.attended, (1, 2), ("batch", 1, 1, "sequence"))
        return (self.graph.number(1) - keys) * self.graph.number(float(MASKED))

    def _outside(self, window: Window) -> Node:
        graph, square = self.graph, ("sequence", "sequence")
        tests = []
        if window[0] >= 0:
            tests.append(graph.node("Less", [self.distances, graph.integer(-window[0])], square))
        if window[1] >= 0:
            tests.append(graph.node("Greater", [self.distances, graph.integer(window[1])], square))
        unseen = tests[0] if len(tests) == 1 else graph.node("Or", tests, square)
        return graph.node("Where", [unseen, graph.number(float(MASKED)), graph.number(0)], square)

    def _unsqueeze(self, x: Node, axes: tuple[int, ...], shape: Shape) -> Node:
        return self.graph.node("Unsqueeze", [x, self.graph.ints(*axes)], shape)
