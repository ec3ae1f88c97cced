"""ONNX files: read by OpenVINO, or by ONNX Runtime (extra `onnx`) where OpenVINO cannot.

Such a graph wants rectangles; its token vectors are packed again and the head runs on numpy. Which output counts:
`sentence_embedding`; else the token vectors, by name or as the first of three axes; else the first of two axes, but
BERT's `pooler_output` last. An output of two axes is taken as already pooled, with all Dense modules inside: the
head is left out, and only normalising is still done by the task.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError, missing_extra
from lemni.ops.numpy import NumpyInputs, NumpyOps
from lemni.runtimes.base import BackendOptions, Blueprint, Head, Limits, by_sequence
from lemni.runtimes.cpu import compile_for_cpu, cpu_limits, cpu_threads
from lemni.runtimes.padding import Rectangle, rectangles
from lemni.types import Output, Outputs, PackedBatch, Sequence

logger = logging.getLogger(__name__)


# What an input is for, by the names that exporters give it.
_INPUTS = {
    **dict.fromkeys(("input_ids", "ids", "input", "input.1", "tokens"), "ids"),
    **dict.fromkeys(("attention_mask", "input_mask", "mask"), "mask"),
    **dict.fromkeys(("token_type_ids", "segment_ids", "token_types", "type_ids"), "token_types"),
    **dict.fromkeys(("position_ids", "positions"), "positions"),
}
_SENTENCE = ("sentence_embedding", "sentence_embeddings")
_TOKENS = ("last_hidden_state", "token_embeddings", "hidden_states", "hidden_state")
_POOLER = "pooler_output"
# What a pooled output is, by the first of these that the model's kind has a head for.
_POOLED: tuple[Output, ...] = ("dense", "logits", "terms")

# Heads that only vectors of tokens can serve; the pooled vectors of such a model are not enough.
_BY_TOKEN: frozenset[Output] = frozenset(("token_weights", "multi_vector"))

Feed = dict[str, NDArray[Any]]
Infer = Callable[[Feed], NDArray[np.float32]]


@dataclass(frozen=True)
class GraphOutput:
    """One output of the graph that holds floats: its name and its number of axes, if the file says so."""

    name: str
    axes: int | None


class Session(Protocol):
    """A graph that is loaded on one engine, cut down to one output.

    Attributes:
        engine: for people.
        dtype: precision in which it computes.
        inputs: name -> numpy type.
        output: what the graph gives.
        positions: rows of the table of learned positions, if one is found.
    """

    engine: str
    dtype: str
    inputs: dict[str, Any]
    output: GraphOutput
    positions: int | None

    def replica(self) -> Infer:
        """A function of its own for one replica."""
        ...


class ONNXBackend:
    """An ONNX file.

    Raises:
        ModelLoadError: no engine can run it, or its inputs or outputs are not those of an encoder.
        MissingExtra: OpenVINO cannot run it, and ONNX Runtime is not installed.
    """

    name = "onnx"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        path = blueprint.spec.onnx
        if path is None:
            raise ModelLoadError(f"{blueprint.spec.files.id} has no ONNX file; choose another runtime")
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
        return {name: fills[_INPUTS[name]](dtype) for name, dtype in self._inputs.items()}


def choose_output(outputs: Seq[GraphOutput], path: Path, *, by_token: bool = False) -> GraphOutput:
    """The output that the vectors are taken from: see the module's own words; with `by_token` those of tokens first.

    Raises:
        ModelLoadError: none has two or three axes.
    """
    by_name = {output.name: output for output in outputs}
    named = [(_SENTENCE, 2), (_TOKENS, 3)]
    for names, axes in reversed(named) if by_token else named:
        for name in names:
            if name in by_name and by_name[name].axes in (axes, None):
                return GraphOutput(name, axes)
    for axes in (3, 2):
        fitting = [output for output in outputs if output.axes == axes]
        if fitting:
            return min(fitting, key=lambda output: output.name == _POOLER)
    seen = ", ".join(f"{output.name} ({output.axes or 'unknown'} axes)" for output in outputs)
    raise ModelLoadError(f"{path}: no output with token vectors or sentence vectors; there are {seen}")


def check_inputs(names: Iterable[str], path: Path) -> None:
    """Raises ModelLoadError for an input that no sequence has, such as images or a decoder's cache."""
    if unknown := [name for name in names if name not in _INPUTS]:
        raise ModelLoadError(f"{path}: unknown input {unknown[0]!r}; known are {', '.join(_INPUTS)}")


def open_session(path: Path, options: BackendOptions, *, by_token: bool = False) -> Session:
    """The file on OpenVINO if that can run it, else on ONNX Runtime; the log says why."""
    try:
        return OpenVINOSession(path, options, by_token=by_token)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
    logger.warning("%s: OpenVINO cannot run it, so ONNX Runtime is used: %s", path, reason)
    try:
        return ONNXRuntimeSession(path, options, by_token=by_token)
    except ImportError:
        raise missing_extra("onnxruntime", "onnx", f"{path}, which OpenVINO cannot run ({reason}),") from None


class OpenVINOSession:
    """Raises RuntimeError if OpenVINO cannot read, shape or compile the graph."""

    engine = "OpenVINO"

    def __init__(self, path: Path, options: BackendOptions, *, by_token: bool = False) -> None:
        import openvino as ov

        core = ov.Core()
        model = core.read_model(path)
        shapes = {port: port.partial_shape for port in model.inputs}
        if any(size.is_static for shape in shapes.values() for size in shape):
            model.reshape({port: [-1] * len(shape) for port, shape in shapes.items()})
        self.inputs = {port.any_name: port.element_type.to_dtype() for port in model.inputs}
        check_inputs(self.inputs, path)
        self.output = choose_output(
            [GraphOutput(p.any_name, _axes(p.partial_shape)) for p in model.outputs if p.element_type.is_real()],
            path,
            by_token=by_token,
        )
        self.positions = _positions(model)
        # Other outputs are cut off, so that nothing is computed for them.
        results = [result for result in model.get_results() if self.output.name in result.input_value(0).names]
        graph = ov.Model(results, model.get_parameters(), path.stem)
        self._compiled, self.dtype = compile_for_cpu(graph, options)

    def replica(self) -> Infer:
        request = self._compiled.create_infer_request()
        # A copy: the request's own buffer is written again by the next batch.
        return lambda feed: np.array(request.infer(feed, share_inputs=True, share_outputs=True)[0], np.float32)


class ONNXRuntimeSession:
    """Raises ImportError without onnxruntime, ModelLoadError for a file that it cannot run."""

    engine = "ONNX Runtime"
    dtype = "float32"
    positions: int | None = None

    def __init__(self, path: Path, options: BackendOptions, *, by_token: bool = False) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = cpu_threads(options)
        try:
            self._session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's own exceptions have no common base
            raise ModelLoadError(f"{path}: neither OpenVINO nor ONNX Runtime can run it: {error}") from error
        ports = self._session.get_inputs()
        check_inputs([port.name for port in ports], path)
        if fixed := [port for port in ports if any(isinstance(size, int) for size in port.shape)]:
            raise ModelLoadError(f"{path}: input {fixed[0].name!r} has a fixed shape {fixed[0].shape}")
        if strange := [port for port in ports if port.type not in _ORT_TYPES]:
            raise ModelLoadError(f"{path}: input {strange[0].name!r} has the type {strange[0].type}")
        self.inputs = {port.name: _ORT_TYPES[port.type] for port in ports}
        floats = [port for port in self._session.get_outputs() if port.type in _ORT_FLOATS]
        outputs = [GraphOutput(port.name, len(port.shape) or None) for port in floats]
        self.output = choose_output(outputs, path, by_token=by_token)

    def replica(self) -> Infer:
        name = self.output.name
        return lambda feed: np.asarray(self._session.run([name], feed)[0], np.float32)


_ORT_TYPES: dict[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
}
_ORT_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


def _axes(shape: Any) -> int | None:
    return None if shape.rank.is_dynamic else int(shape.rank.get_length())


def _positions(model: Any) -> int | None:
    """Sequences that the table of learned positions has rows for; exporters keep its name."""
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and "position_embeddings" in node.get_friendly_name():
            shape = node.get_output_shape(0)
            if len(shape) == 2 and shape[0] > 1:
                rows = int(shape[0])
                # RoBERTa and its kin count from two, and their tables have two rows over a power of two.
                return rows - 2 if (rows - 2).bit_count() == 1 else rows
    return None
