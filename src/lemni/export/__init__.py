"""Models as files for other runtimes: `export_model` writes ONNX or OpenVINO, and `lemni export` calls it."""

from __future__ import annotations

from lemni.export.model import Export, ExportOptions, export_model

__all__ = ["Export", "ExportOptions", "export_model"]
