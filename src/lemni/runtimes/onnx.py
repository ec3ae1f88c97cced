"""Exported graphs: ONNX files, read by OpenVINO or by ONNX Runtime (extra `onnx`), and OpenVINO's own IR.

Such a graph wants rectangles; its token vectors are packed again and the head runs on numpy. An output of two axes is
taken as already pooled, with all Dense modules inside: the head is left out, and only normalising is still done by
the task. Which output that is: `graph_sessions.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.ops.numpy import NumpyInputs, NumpyOps
from lemni.runtimes.base import BackendOptions, Blueprint, Head, Limits, by_sequence
from lemni.runtimes.cpu import cpu_limits
from lemni.runtimes.graph_sessions import INPUTS, Feed, Infer, Session, open_session
from lemni.runtimes.padding import Rectangle, rectangles
from lemni.types import Output, Outputs, PackedBatch, Sequence

logger = logging.getLogger(__name__)

# What a pooled output is, by the first of these that the model's kind has a head for.
_POOLED: tuple[Output, ...] = ("dense", "logits", "terms")

# Heads that only vectors of tokens can serve; the pooled vectors of such a model are not enough.
_BY_TOKEN: frozenset[Output] = frozenset(("token_weights", "multi_vector"))


class ONNXBackend:
    """An exported graph.

    Raises:
        ModelLoadError: no engine can run it, or its inputs or outputs are not those of an encoder.
        ConfigError: int8 is wanted, and its weights are no codes of 8 bits.
        MissingExtra: OpenVINO cannot run it, and ONNX Runtime is not installed.
    """

    name = "onnx"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        path = blueprint.spec.graph
        if path is None:
            raise ModelLoadError(f"{blueprint.spec.files.id} has no ONNX file or OpenVINO IR; choose another runtime")
        by_token = not _BY_TOKEN.isdisjoint(blueprint.heads)
        self._session: Session | None = open_session(path, options, by_token=by_token)
        logger.info("%s: runs on %s, output %r", path.name, self._session.engine, self._session.output.name)
        self.device = "cpu"
        self.dtype = self._session.dtype
        self.max_positions = self._session.positions
        self.limits = cpu_limits(options)
        self._pad_id = int(blueprint.spec.config.get("pad_token_id") or 0)
        self._heads: Mapping[Output, Head] | Output
        if self._session.output.axes == 2:
            self._heads = _pooled_output(blueprint, path)
            self.outputs: frozenset[Output] = frozenset((self._heads,))
        else:
            self._heads = {name: head(NumpyOps()) for name, head in blueprint.heads.items()}
            self.outputs = frozenset(blueprint.heads)
        self._check_shape(path)

    def replica(self, index: int) -> ONNXRuntime:
        if self._session is None:
            raise RuntimeError("the model is closed")
        return ONNXRuntime(self._session.replica(), self._session.inputs, self._pad_id, self._heads, self.limits)

    def close(self) -> None:
        self._session = None

    def _check_shape(self, path: Path) -> None:
        # Some graphs hold the shape that they were traced with inside, where no engine sees it beforehand.
        ids = np.zeros(3, dtype=np.int32)
        try:
            self.replica(0).run(PackedBatch.pack([Sequence(ids), Sequence(ids[:2])]))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelLoadError(
                f"{path}: the graph does not run on two sequences of 3 and 2 tokens; "
                f"was it exported for one fixed shape? {error}"
            ) from error


def _pooled_output(blueprint: Blueprint, path: Path) -> Output:
    """What a graph with one vector per text gives. Raises ModelLoadError if the model needs vectors of tokens."""
    for name in _POOLED:
        if name in blueprint.heads:
            return name
    raise ModelLoadError(f"{path}: the graph gives one vector per text, but the model needs one per token")


class ONNXRuntime:
    """One replica. `heads` is the name of its one output if the graph pools by itself."""

    device = "cpu"

    def __init__(
        self,
        infer: Infer,
        inputs: Mapping[str, Any],
        pad_id: int,
        heads: Mapping[Output, Head] | Output,
        limits: Limits,
    ) -> None:
        self.limits = limits
        self._infer: Infer | None = infer
        self._inputs = inputs
        self._pad_id = pad_id
        self._heads = heads

    def run(self, batch: PackedBatch) -> list[Outputs]:
        if self._infer is None:
            raise RuntimeError("the replica is closed")
        result: NDArray[np.float32] | None = None
        for rectangle in rectangles(batch, self.limits.batch_tokens):
            values = self._infer(self._feed(batch, rectangle))
            if not isinstance(self._heads, str):
                values, places, size = values[rectangle.mask], rectangle.tokens, batch.tokens
            else:
                places, size = rectangle.sequences, len(batch)
            if result is None:
                result = np.empty((size, values.shape[-1]), dtype=np.float32)
            result[places] = values
        assert result is not None  # a batch has sequences
        if isinstance(self._heads, str):
            return by_sequence({self._heads: result}, batch)
        inputs = NumpyInputs(batch)
        return by_sequence(
            {name: head(result, inputs) for name, head in self._heads.items() if name in batch.wanted}, batch
        )

    def close(self) -> None:
        self._infer = None

    def _feed(self, batch: PackedBatch, rectangle: Rectangle) -> Feed:
        fills: dict[str, Callable[[Any], NDArray[Any]]] = {
            "ids": lambda dtype: rectangle.fill(batch.ids, self._pad_id, dtype),
            "mask": lambda dtype: rectangle.attended.astype(dtype),
            "token_types": lambda dtype: rectangle.fill(batch.token_types, 0, dtype),
            "positions": lambda dtype: rectangle.fill(batch.positions, 0, dtype),
        }
        return {name: fills[INPUTS[name]](dtype) for name, dtype in self._inputs.items()}
