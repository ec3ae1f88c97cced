"""Runs exported graphs: sequences as a rectangle with padding on either side, on ONNX Runtime and on OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import openvino as ov
from numpy.typing import NDArray

from lemni.export.model import ExportOptions, build, write_onnx
from lemni.hub import describe
from lemni.hub.spec import ModelFiles, ModelSpec
from lemni.types import Sequence

Side = Literal["right", "left"]
Values = dict[str, NDArray[np.float32]]

_SPARE = 3  # columns that are padding in every row


def spec_of(folder: Path) -> ModelSpec:
    return describe(ModelFiles(str(folder), folder, None, "folder"))


def rectangle(items: Seq[Sequence], side: Side = "right", pad_id: int = 0) -> dict[str, NDArray[np.int64]]:
    """What tokenizers of transformers give with padding."""
    width = max(len(item.ids) for item in items) + _SPARE
    found = {
        "input_ids": np.full((len(items), width), pad_id, np.int64),
        "attention_mask": np.zeros((len(items), width), np.int64),
        "token_type_ids": np.zeros((len(items), width), np.int64),
    }
    for row, item in enumerate(items):
        size = len(item.ids)
        place = slice(0, size) if side == "right" else slice(width - size, width)
        found["input_ids"][row, place] = item.ids
        found["attention_mask"][row, place] = 1
        if item.token_types is not None:
            found["token_type_ids"][row, place] = item.token_types
    return found


def on_onnxruntime(path: Path, feed: dict[str, NDArray[np.int64]]) -> Values:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    wanted = {port.name: feed[port.name] for port in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def on_openvino(path: Path, feed: dict[str, NDArray[np.int64]]) -> Values:
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(path, "CPU", hints)
    found = compiled({port.any_name: feed[port.any_name] for port in compiled.inputs})
    return {name: np.array(found[port]) for port in compiled.outputs for name in port.names}


def exported(folder: Path, **options: Any) -> Path:
    """The folder's graph in a valid file, unchecked."""
    path = folder / "exported.onnx"
    write_onnx(build(spec_of(folder), ExportOptions(**options)), path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def hidden(path: Path, items: Seq[Sequence], side: Side = "right", engine: Any = on_onnxruntime) -> NDArray[np.float32]:
    """[tokens, hidden] of all sequences, one after the other."""
    feed = rectangle(items, side)
    rows: NDArray[np.float32] = engine(path, feed)["last_hidden_state"][feed["attention_mask"].astype(bool)]
    return rows
