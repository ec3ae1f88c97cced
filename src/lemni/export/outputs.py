"""What an exported graph gives: by the kind of the model, under the names that other programs look for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError, ModelLoadError
from lemni.families.parts import Linear
from lemni.families.weights import Weights
from lemni.hub.spec import ModelKind, ModelSpec
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.ops.onnx import ONNXOps
from lemni.ops.onnx_graph import Shape
from lemni.runtimes.base import Head, Heads
from lemni.tasks import kind_module

Values = NDArray[np.float32]

_ROWS: Shape = ("batch",)
_GRID: Shape = ("batch", "sequence")


@dataclass(frozen=True)
class GraphOutput:
    """One output of an exported graph.

    Attributes:
        name: as callers ask for it.
        head: makes it of the hidden states [tokens, hidden].
        sizes: names of its axes but the last.
        unit: whether its rows are brought to unit length.
        logarithms: how often log(1 + x) is taken of ReLU(x); -1 for neither.
    """

    name: str
    head: Callable[[Ops], Head]
    sizes: Shape
    unit: bool = False
    logarithms: int = -1

    @property
    def by_token(self) -> bool:
        return self.sizes == _GRID

    def finish(self, ops: ONNXOps, x: Tensor) -> Tensor:
        """What is done after the head, in the graph."""
        if self.logarithms >= 0:
            x = ops.activation(x, "relu")
        for _ in range(self.logarithms):
            x = ops.log1p(x)
        return ops.unit_length(x) if self.unit else x

    def finished(self, x: Values) -> Values:
        """The same of an array."""
        if self.logarithms >= 0:
            x = np.maximum(x, np.float32(0))
        for _ in range(self.logarithms):
            x = np.log1p(x)
        if self.unit:
            x = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(1e-12))
        return x


def _hidden(ops: Ops) -> Head:
    return lambda hidden, inputs: hidden


def graph_outputs(spec: ModelSpec, weights: Weights, *, pooled: bool) -> list[GraphOutput]:
    """What the graph of a model gives.

    Args:
        pooled: one vector per text, with everything that makes it inside; for models that have such a vector.

    Raises:
        ModelLoadError: a kind of model that is not exported.
        ConfigError: `pooled` of a model that has no such vector, or whose graph cannot make it.
    """
    if spec.kind not in _BY_KIND:
        raise ModelLoadError(
            f"{spec.files.id} is a {spec.kind} model, which is not exported; these are: {', '.join(_BY_KIND)}"
        )
    if pooled and spec.kind not in _POOLED:
        raise ConfigError(
            f"--pooled is for models with one dense vector per text ({', '.join(_POOLED)}); {spec.files.id} is a "
            f"{spec.kind} model, whose graph always ends in {', '.join(o.name for o in _outputs(spec, weights, False))}"
        )
    if pooled and not spec.include_prompt:
        raise ConfigError(
            f"{spec.files.id} pools without the tokens of its prompt, which a graph cannot tell from others: export it "
            "without --pooled"
        )
    return _outputs(spec, weights, pooled)


def _outputs(spec: ModelSpec, weights: Weights, pooled: bool) -> list[GraphOutput]:
    heads: Heads = kind_module(spec.kind).heads(spec)
    return _BY_KIND[spec.kind](spec, weights, heads, pooled)


def _dense(spec: ModelSpec, weights: Weights, heads: Heads, pooled: bool) -> list[GraphOutput]:
    if pooled:
        # fastembed takes the first output, sentence-transformers looks for last_hidden_state by its name.
        return [
            GraphOutput("sentence_embedding", heads["dense"], _ROWS, unit=spec.normalize),
            GraphOutput("last_hidden_state", _hidden, _GRID),
        ]
    pooler = _pooler(spec, weights)
    found = [GraphOutput("last_hidden_state", _hidden, _GRID)]
    return found if pooler is None else [*found, GraphOutput("pooler_output", pooler, _ROWS)]


def _logits(spec: ModelSpec, weights: Weights, heads: Heads, pooled: bool) -> list[GraphOutput]:
    return [GraphOutput("logits", heads["logits"], _ROWS)]


def _sparse(spec: ModelSpec, weights: Weights, heads: Heads, pooled: bool) -> list[GraphOutput]:
    from lemni.tasks.sparse import read_splade

    splade = read_splade(spec)
    # Sums are of weights already, a maximum is of logits.
    logarithms = splade.logarithms if splade.strategy == "max" else -1
    return [GraphOutput("sparse_embedding", heads["terms"], _ROWS, logarithms=logarithms)]


def _colbert(spec: ModelSpec, weights: Weights, heads: Heads, pooled: bool) -> list[GraphOutput]:
    from lemni.tasks.colbert_layouts import read_layout

    vectors = GraphOutput("multi_vector", heads["multi_vector"], _GRID, unit=read_layout(spec).normalize)
    return [GraphOutput("last_hidden_state", _hidden, _GRID), vectors]


def _bge_m3(spec: ModelSpec, weights: Weights, heads: Heads, pooled: bool) -> list[GraphOutput]:
    if not pooled:
        return _dense(spec, weights, heads, pooled)
    return [
        *_dense(spec, weights, heads, pooled),
        GraphOutput("token_weights", heads["token_weights"], _GRID, logarithms=0),
        GraphOutput("multi_vector", heads["multi_vector"], _GRID, unit=True),
    ]


_BY_KIND: Mapping[ModelKind, Callable[[ModelSpec, Weights, Heads, bool], list[GraphOutput]]] = {
    "dense": _dense,
    "classifier": _logits,
    "causal_reranker": _logits,
    "sparse": _sparse,
    "colbert": _colbert,
    "bge_m3": _bge_m3,
}
_POOLED = ("dense", "bge_m3")

# model_type -> names that the layer may have which transformers' model puts on the first token, with a tanh.
_POOLERS: dict[str, Seq[str]] = {
    "albert": ("pooler", "albert.pooler"),
    "bert": ("pooler.dense", "bert.pooler.dense"),
    "camembert": ("pooler.dense", "roberta.pooler.dense", "camembert.pooler.dense"),
    "gte": ("pooler.dense", "gte.pooler.dense"),
    "mpnet": ("pooler.dense", "mpnet.pooler.dense"),
    "new": ("pooler.dense", "new.pooler.dense"),
    "roberta": ("pooler.dense", "roberta.pooler.dense"),
    "xlm-roberta": ("pooler.dense", "roberta.pooler.dense"),
}


def _pooler(spec: ModelSpec, weights: Weights) -> Callable[[Ops], Head] | None:
    """`pooler_output` of transformers, if the weights have it."""
    found = [name for name in _POOLERS.get(spec.model_type, ()) if f"{name}.weight" in weights]
    if not found:
        return None

    def build(ops: Ops) -> Head:
        dense: Any = Linear(weights.scope(found[0]), ops)

        def head(hidden: Tensor, inputs: Inputs) -> Tensor:
            return ops.activation(dense(ops.first(hidden, inputs)), "tanh")

        return head

    return build
