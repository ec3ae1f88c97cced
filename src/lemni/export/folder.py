"""A whole model in a folder: what lies beside an exported graph, so that other programs take the folder for the model.

Everything but weights of the transformer is copied: config.json, the tokenizer, sentence-transformers' modules (with
the weights of Dense modules), prompts, a README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lemni.hub.jsonfile import read_json
from lemni.hub.kinds import name_in_config
from lemni.hub.spec import ModelSpec

# Weights of the transformer for some library, wherever they are kept.
_WEIGHTS = (
    *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".onnx", ".onnx_data", ".onnx.data"),
    *(".h5", ".msgpack", ".ot", ".gguf", ".tflite", ".pb", ".ckpt"),
)
_OTHER_RUNTIMES = frozenset({"onnx", "openvino", "coreml", "tflite"})
_OWN = "lemni-manifest.json"  # of Lemni's cache


def copy_model(spec: ModelSpec, output: Path, max_length: int | None) -> list[Path]:
    """Write all files but the graph into `output`; returns them."""
    written = []
    for target, content in _files(spec, output, max_length):
        if not (target.exists() and target.read_bytes() == content):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # a link, whose file others may share, would be written through
            target.write_bytes(content)
        written.append(target)
    return written


def written_over(spec: ModelSpec, output: Path, max_length: int | None) -> Path | None:
    """The first file in `output` that would become another."""
    for target, content in _files(spec, output, max_length):
        if target.exists() and target.read_bytes() != content:
            return target
    return None


def _files(spec: ModelSpec, output: Path, max_length: int | None) -> Iterator[tuple[Path, bytes]]:
    root, transformer = spec.files.path, spec.transformer_path
    changed = {} if max_length is None else _lengths(spec, max_length)
    own = output.resolve()  # may lie in the model's folder, with what an export before has left there
    whole = root.resolve()
    if own != whole and (name := name_in_config(spec.files)) is not None:
        changed[transformer / "config.json"] = _json({**spec.config, "_name_or_path": name})
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root)
        if own != whole and (whole / relative).is_relative_to(own) and own.is_relative_to(whole):
            continue
        hidden = any(part.startswith(".") for part in relative.parts)
        inside = file.parent in (root, transformer)
        if not file.is_file() or hidden or file.name == _OWN or _OTHER_RUNTIMES.intersection(relative.parts):
            continue
        if inside and file.name.endswith(_WEIGHTS):
            continue
        if file not in changed:
            yield output / relative, file.read_bytes()
    for file, content in changed.items():
        yield output / file.relative_to(root), content


def _lengths(spec: ModelSpec, max_length: int) -> dict[Path, bytes]:
    """The files that say how long a text may be, changed."""
    folder = spec.transformer_path
    keys = {"sentence_bert_config.json": "max_seq_length", "tokenizer_config.json": "model_max_length"}
    found = {}
    for name, key in keys.items():
        config = read_json(folder / name) if (folder / name).exists() else {}
        found[folder / name] = _json({**config, key: max_length})
    return found


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
