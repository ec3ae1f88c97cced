"""Engines that run an exported graph: OpenVINO and ONNX Runtime, cut down to the one output that counts.

Which output counts: `sentence_embedding`; else the token vectors, by name or as the first of three axes; else the
first of two axes, but BERT's `pooler_output` last.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError, ModelLoadError, missing_extra
from lemni.hub.graphs import graphs, precision_of
from lemni.hub.weights import file_names
from lemni.runtimes.base import BackendOptions
from lemni.runtimes.cpu import compile_for_cpu, cpu_threads

logger = logging.getLogger(__name__)

# What an input is for, by the names that exporters give it.
INPUTS = {
    **dict.fromkeys(("input_ids", "ids", "input", "input.1", "tokens"), "ids"),
    **dict.fromkeys(("attention_mask", "input_mask", "mask"), "mask"),
    **dict.fromkeys(("token_type_ids", "segment_ids", "token_types", "type_ids"), "token_types"),
    **dict.fromkeys(("position_ids", "positions"), "positions"),
}
_SENTENCE = ("sentence_embedding", "sentence_embeddings")
_TOKENS = ("last_hidden_state", "token_embeddings", "hidden_states", "hidden_state")
_POOLER = "pooler_output"

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
    if unknown := [name for name in names if name not in INPUTS]:
        raise ModelLoadError(f"{path}: unknown input {unknown[0]!r}; known are {', '.join(INPUTS)}")


def open_session(path: Path, options: BackendOptions, *, by_token: bool = False) -> Session:
    """The file on the engine that computes it best; the log says why it is not OpenVINO.

    OpenVINO turns what a graph multiplies in whole numbers back into floats, which takes longer than ONNX Runtime;
    all other graphs, those with nothing but their weights in 8 bits among them, it computes faster in batches.
    """
    if options.dtype == "float16":
        options = replace(options, dtype="float32")  # the file's precision; CPUs compute in another
    if path.suffix == ".xml":
        try:
            return OpenVINOSession(path, options, by_token=by_token)
        except RuntimeError as error:
            raise ModelLoadError(f"{path}: OpenVINO cannot run it: {_reason(error)}") from error
    if _multiplies_integers(path):
        if find_spec("onnxruntime") is not None:
            session = ONNXRuntimeSession(path, options, by_token=by_token)
            session.positions = _positions_in(path)
            return session
        logger.warning("%s is quantised; ONNX Runtime would run it faster: pip install 'lemni[onnx]'", path)
    try:
        return OpenVINOSession(path, options, by_token=by_token)
    except RuntimeError as error:
        reason = _reason(error)
    logger.warning("%s: OpenVINO cannot run it, so ONNX Runtime is used: %s", path, reason)
    try:
        return ONNXRuntimeSession(path, options, by_token=by_token)
    except ImportError:
        raise missing_extra("onnxruntime", "onnx", f"{path}, which OpenVINO cannot run ({reason}),") from None


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def _multiplies_integers(path: Path) -> bool:
    # Names of operations stand in the file as they are: no library is needed to see one.
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"MatMulInteger") >= 0


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
        if options.dtype == "int8" and not _has_codes(model):
            raise _not_quantised(path)
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
        quantised = _multiplies_integers(path) or precision_of(path) == "int8"
        if options.dtype == "int8" and not quantised:
            raise _not_quantised(path)
        self.dtype = "int8" if quantised else "float32"

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


def _has_codes(model: Any) -> bool:
    """Whether a table of weights is in whole numbers of 8 bits or fewer."""
    constants = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return any(
        node.get_element_type().get_type_name() in ("i8", "u8", "i4", "u4") and len(node.get_output_shape(0)) > 1
        for node in constants
    )


def _not_quantised(path: Path) -> ConfigError:
    # Its own folder only: what else there is to choose from.
    others = ", ".join(name for name in graphs(file_names(path.parent)) if name != path.name) or "none"
    return ConfigError(f"{path} holds no weights of 8 bits, so it cannot run in int8; beside it are: {others}")


def _positions_in(path: Path) -> int | None:
    # ONNX Runtime does not show a graph's constants.
    import openvino as ov

    try:
        return _positions(ov.Core().read_model(path))
    except RuntimeError:
        return None


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
