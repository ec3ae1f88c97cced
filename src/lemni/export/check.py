"""Whether an exported file computes what Lemni computes: a few texts through both, in one padded batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.export.model import ExportOptions, Written
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import BackendOptions, Blueprint
from lemni.runtimes.openvino import OpenVINOBackend
from lemni.tasks.tokenizer_files import load_tokenizer
from lemni.types import Output, PackedBatch, Sequence

TEXTS = (
    "The cat sat on the mat.",
    "How do I reset my password?",
    "A vector is a list of numbers; texts that mean the same have vectors that point the same way, more or less.",
    "Die Katze schläft auf dem Sofa. 猫は眠っています。 Кошка спит.",
    "x",
)

# Largest difference, in units of the largest value that there is.
_ALLOWED = {"float32": 1e-3, "float16": 5e-2}

# The backend only carries the rows, so that any name with the right axes will do.
_BY_ROW: tuple[Output, ...] = ("dense", "logits")
_BY_TOKEN: tuple[Output, ...] = ("tokens", "token_weights", "multi_vector")

Values = NDArray[np.float32]
Run = Callable[[Mapping[str, NDArray[np.int64]]], Mapping[str, Values]]


@dataclass(frozen=True)
class Checked:
    """Attributes:
    engine: what computed the file.
    differences: largest absolute difference of each output.
    """

    engine: str
    differences: dict[str, float | None]


def check(spec: ModelSpec, written: Written, path: Path, options: ExportOptions) -> Checked:
    """Raises ModelLoadError if the file is invalid or gives other numbers than Lemni."""
    if path.suffix == ".onnx":
        _validate(path)
    engine, run = _session(path)
    sequences = _sequences(spec)
    given = _rectangle(sequences)
    results = run({name: given[name] for name in written.inputs})
    mask = given["attention_mask"].astype(bool)
    wanted_rows = _reference(spec, written, sequences)
    differences: dict[str, float | None] = {}
    for name, output in written.outputs.items():
        wanted = output.finished(wanted_rows[name])
        values = np.asarray(results[name], np.float32)
        values = values[mask] if output.by_token else values
        if values.shape != wanted.shape:
            raise ModelLoadError(f"{path.name}: {name} has the shape {values.shape}, expected {wanted.shape}")
        difference = float(np.abs(values - wanted).max())
        # Not <=, so that NaN is none.
        if not difference < _ALLOWED[options.dtype] * max(1.0, float(np.abs(wanted).max())):
            raise ModelLoadError(f"{path.name}: {name} differs from Lemni's own by {difference:.3g} on {engine}")
        differences[name] = difference
    return Checked(engine, differences)


def _validate(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelLoadError(f"{path.name}: is not valid ONNX: {error}") from error


def _session(path: Path) -> tuple[str, Run]:
    """ONNX Runtime if it is there, else OpenVINO, which reads both formats."""
    if path.suffix == ".onnx":
        try:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            names = [port.name for port in session.get_outputs()]
            return "ONNX Runtime", lambda feed: dict(zip(names, session.run(names, dict(feed)), strict=True))
        except ImportError:
            pass
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feed: Mapping[str, NDArray[np.int64]]) -> Mapping[str, Values]:
        found = compiled(dict(feed))
        return {name: found[port] for port in compiled.outputs for name in port.names}

    return "OpenVINO", run


def _sequences(spec: ModelSpec) -> list[Sequence]:
    encodings = load_tokenizer(spec.transformer_path).encode_batch(list(TEXTS))
    longest = spec.max_length or 128
    return [
        Sequence(
            np.array(encoding.ids[:longest], dtype=np.int32),
            token_types=np.array(encoding.type_ids[:longest], dtype=np.int32),
        )
        for encoding in encodings
    ]


def _rectangle(sequences: list[Sequence]) -> dict[str, NDArray[np.int64]]:
    shape = len(sequences), max(len(one.ids) for one in sequences)
    found = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    for row, one in enumerate(sequences):
        size = len(one.ids)
        found["input_ids"][row, :size] = one.ids
        found["attention_mask"][row, :size] = 1
        found["token_type_ids"][row, :size] = 0 if one.token_types is None else one.token_types
    return found


def _reference(spec: ModelSpec, written: Written, sequences: list[Sequence]) -> dict[str, Values]:
    """[texts, n], or [tokens, n] of all texts, before they are finished: what Lemni's own runtime gives."""
    by_row, by_token = iter(_BY_ROW), iter(_BY_TOKEN)
    kinds = {name: next(by_token if output.by_token else by_row) for name, output in written.outputs.items()}
    heads = {kinds[name]: output.head for name, output in written.outputs.items()}
    backend = OpenVINOBackend(Blueprint(spec, written.encoder, heads), BackendOptions())
    try:
        asked = [Sequence(one.ids, tuple(heads), token_types=one.token_types) for one in sequences]
        rows = backend.replica(0).run(PackedBatch.pack(asked))
    finally:
        backend.close()
    return {
        name: (np.concatenate if written.outputs[name].by_token else np.stack)([row[kind] for row in rows])
        for name, kind in kinds.items()
    }
