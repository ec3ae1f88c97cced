"""Writes ONNX and OpenVINO files of a model with sentence-transformers' own exporters, in its environment:
`export.py onnx|onnx_int8|openvino|openvino_int8 FOLDER CALIBRATION`, the last a folder with a file of texts."""

from __future__ import annotations

import sys
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.backend import (
    export_dynamic_quantized_onnx_model,
    export_static_quantized_openvino_model,
)


def export(backend: str, folder: str) -> SentenceTransformer:
    """Load a model with a backend; its file is written if it is not there."""
    model = SentenceTransformer(folder, device="cpu", backend=backend)  # type: ignore[arg-type]
    file = {"onnx": "onnx/model.onnx", "openvino": "openvino/openvino_model.xml"}[backend]
    if not Path(folder, file).exists():
        model.save_pretrained(folder)
    return model


def main() -> None:
    what, folder, texts = sys.argv[1:]
    model = export(what.removesuffix("_int8"), folder)
    if what == "onnx_int8":
        export_dynamic_quantized_onnx_model(model, "avx512_vnni", folder)
    if what == "openvino_int8":
        export_static_quantized_openvino_model(
            model,
            None,
            folder,
            dataset_name=texts,
            dataset_config_name="default",
            dataset_split="train",
            column_name="text",
        )


if __name__ == "__main__":
    main()
