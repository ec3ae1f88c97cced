"""From a model's files to a graph in a file: `export_model`.

The families are called once over `lemni.ops.onnx`, straight from the memory-mapped weights; no torch is needed.
OpenVINO's format is made from the ONNX graph. A name that ends in `.onnx` or `.xml` gets the graph alone; a folder
becomes a whole model: the graph where optimum and sentence-transformers look for it, and every other file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lemni.errors import ConfigError, ModelLoadError, missing_extra
from lemni.families import FAMILIES, family_class
from lemni.families.weights import Weights
from lemni.hub.spec import ModelSpec

Format = Literal["onnx", "openvino"]
StoredAs = Literal["float32", "float16"]

# protobuf ends at 2 GiB; a model that is near it would also be in memory twice while it is written.
_LARGEST_FILE = 1_900_000_000
_SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
_PLACE = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}
DEFAULT_OPSET = 17


@dataclass(frozen=True)
class ExportOptions:
    """What to write.

    Attributes:
        opset: version of ONNX's operators, for the format openvino too.
        dtype: what the model's matrices are stored as; computing is in float32 unless the runtime is told otherwise.
        pooled: one vector per text instead of one per token.
        max_length: tokens that tokenizers cut texts to, in the files of a folder; None keeps what they say.
        check: compare the file with Lemni's own numbers.
        force: write over files.
    """

    format: Format = "onnx"
    opset: int = DEFAULT_OPSET
    dtype: StoredAs = "float32"
    pooled: bool = False
    max_length: int | None = None
    check: bool = True
    force: bool = False


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        graph: the `.onnx` or `.xml` file.
        files: all files, the graph's first.
        outputs: name -> largest absolute difference from Lemni's own numbers; None if it was not checked.
        engine: what computed the check, or None.
        opset: of the graph.
    """

    graph: Path
    files: tuple[Path, ...]
    inputs: tuple[str, ...]
    outputs: dict[str, float | None]
    engine: str | None
    opset: int

    @property
    def total_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def export_model(spec: ModelSpec, output: Path, options: ExportOptions) -> Export:
    """Write a model for another runtime.

    Args:
        output: a file name with the format's ending, or a folder.

    Raises:
        ModelLoadError: a model that cannot be exported, or a file that does not give the model's numbers.
        ConfigError: options that do not fit, or files that are there already.
        MissingExtra: the package `onnx` is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise missing_extra("onnx", "onnx", "exporting a model") from None
    from lemni.export.check import check
    from lemni.export.folder import copy_model, written_over
    from lemni.ops.onnx import LEAST_OPSET, MOST_OPSET

    if not LEAST_OPSET <= options.opset <= MOST_OPSET:
        raise ConfigError(f"opset is {options.opset}; it must be from {LEAST_OPSET} to {MOST_OPSET}")
    _refuse(spec)
    alone = _is_file(output, options.format)
    if alone:
        graph = output
    elif spec.model_type == "model2vec":
        raise ConfigError(
            f"{spec.files.id} is a table of vectors, which programs look for as a table in a folder: name a file that "
            f"ends in {_SUFFIX[options.format]}"
        )
    else:
        graph = output / spec.transformer_path.relative_to(spec.files.path) / _PLACE[options.format]
    targets = [graph, *_beside(graph)]
    if not options.force and (there := [file for file in targets if file.exists()]):
        raise ConfigError(f"{there[0]} is there already: --force writes over it")
    if not alone and not options.force and (other := written_over(spec, output, options.max_length)):
        raise ConfigError(f"{other} is there already with other contents: --force writes over it")
    written = build(spec, options)
    longest = written.max_positions
    if options.max_length is not None and longest is not None and options.max_length > longest:
        raise ConfigError(
            f"max_seq_length is {options.max_length}, but {spec.files.id} has positions for {longest} tokens"
        )
    with _draft_folder(graph.parent) as folder:
        draft = folder / graph.name  # the graph says by name where its weights are
        if options.format == "onnx":
            write_onnx(written, draft)
        else:
            _write_openvino(written, draft, half=options.dtype == "float16")
        found = check(spec, written, draft, options) if options.check else None
        made = [target for target in targets if (folder / target.name).exists()]
        for target in reversed(targets):  # the graph last
            if target in made:
                (folder / target.name).replace(target)
            else:
                target.unlink(missing_ok=True)
    files = [] if alone else copy_model(spec, output, options.max_length)
    differences = dict.fromkeys(written.outputs) if found is None else found.differences
    engine = None if found is None else found.engine
    return Export(graph, (*made, *files), tuple(written.inputs), differences, engine, options.opset)


def _refuse(spec: ModelSpec) -> None:
    if spec.model_type not in FAMILIES:
        raise ModelLoadError(
            f"{spec.files.id}: model type {spec.model_type!r} is none of Lemni's own families, and only these are "
            f"exported: {', '.join(sorted(FAMILIES))}"
        )
    if not spec.weights:
        what = spec.graph or spec.pickle
        raise ModelLoadError(f"{spec.files.id}: has only {what and what.name}; models are exported from safetensors")


def _is_file(output: Path, form: Format) -> bool:
    wrong = {suffix for other, suffix in _SUFFIX.items() if other != form}
    if output.suffix in wrong:
        raise ConfigError(f"{output}: the format {form} ends in {_SUFFIX[form]}; or name a folder")
    return output.suffix == _SUFFIX[form]


def _beside(graph: Path) -> list[Path]:
    """Files that hold a graph's weights."""
    if graph.suffix == ".xml":
        return [graph.with_suffix(".bin")]
    return [graph.with_name(f"{graph.name}_data")]


@contextmanager
def _draft_folder(parent: Path) -> Iterator[Path]:
    """A folder for files that are not what they shall be yet, on the disk where they go. Nothing is left of it."""
    missing = [one for one in (parent, *parent.parents) if not one.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".export-") as folder:
            yield Path(folder)
    finally:
        with suppress(OSError):  # folders with files in them
            for one in missing:
                one.rmdir()


@dataclass(frozen=True)
class Written:
    """A graph that is ready to be put into a file, and how its outputs are made."""

    graph: Any
    inputs: list[str]
    outputs: dict[str, Any]
    encoder: Callable[[Any], Any]
    max_positions: int | None
    metadata: dict[str, str]


def build(spec: ModelSpec, options: ExportOptions) -> Written:
    """The graph of a model. Raises as `export_model`."""
    from lemni.export.names import NamedStore
    from lemni.export.outputs import graph_outputs
    from lemni.ops.onnx import ONNXOps
    from lemni.ops.onnx_graph import Graph
    from lemni.ops.onnx_inputs import ONNXInputs

    store = NamedStore(spec.weights)
    weights = Weights(store)
    outputs = graph_outputs(spec, weights, pooled=options.pooled)

    def encoder(ops: Any) -> Any:
        return family_class(spec.model_type, spec.config)(spec.config, weights, ops)

    graph = Graph(options.opset)
    ops = ONNXOps(graph, half=options.dtype == "float16", name_of=store.name_of)
    inputs = ONNXInputs(graph)
    family = encoder(ops)
    hidden = family(inputs)
    for output in outputs:
        graph.scope = ops.section = output.name
        ops.section += "."
        value = output.finish(ops, output.head(ops)(hidden, inputs))
        graph.output(output.name, value, (*output.sizes, value.shape[-1]))
    metadata = {"model_id": spec.files.id, "model_type": spec.model_type, "kind": spec.kind, "dtype": options.dtype}
    length = options.max_length or spec.max_length or family.max_positions
    if length is not None:
        metadata["max_seq_length"] = str(length)
    by_name = {output.name: output for output in outputs}
    return Written(graph, graph.input_names, by_name, encoder, family.max_positions, metadata)


def write_onnx(written: Written, path: Path) -> None:
    """One file; the weights of a large model in a second one beside it."""
    graph = written.graph
    outside = graph.weight_bytes() > _LARGEST_FILE
    [data] = _beside(path)
    if outside:
        with data.open("wb") as file:
            graph.write_weights(file)
    model = graph.proto(external=data.name if outside else None, metadata=written.metadata)
    with path.open("wb") as file:
        file.write(model.SerializeToString())


def _write_openvino(written: Written, path: Path, *, half: bool) -> None:
    import openvino as ov

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        file = Path(folder) / "model.onnx"
        write_onnx(written, file)
        model = ov.Core().read_model(file)
        for name, value in written.metadata.items():
            model.set_rt_info(value, ["lemni", name])
        ov.save_model(model, path, compress_to_fp16=half)
        del model  # it maps the file that is about to go
