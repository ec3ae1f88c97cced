"""A complete model folder in another precision: its weights anew, every other file as it was."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemni.errors import ConfigError, ModelLoadError
from lemni.families import FAMILIES
from lemni.hub.cache import MANIFEST
from lemni.hub.describe import describe
from lemni.hub.kinds import name_in_config
from lemni.hub.quantization import FORMAT, METHOD, check_scheme
from lemni.hub.spec import ModelFiles, ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.ops.int8 import SMALLEST_SIDE
from lemni.quantize.files import write_weights
from lemni.quantize.precisions import DTYPES, Precision, layers_of, plan
from lemni.tasks.causal_layouts import same_layout

# The same weights in other forms, which would be stale beside the new ones.
_OTHER_WEIGHTS = (
    *("pytorch_model*", "model*.safetensors", "model.safetensors.index.json", "*.onnx", "*.onnx_data*", "*.onnx.data"),
    *("openvino_*", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "*.gguf"),
)
_OTHER_FOLDERS = ("onnx", "openvino", "coreml")
# Where an encoder's own names begin; what stands before them is the name of the encoder in a larger model.
_FIRST_PARTS = frozenset({"embeddings", "encoder", "transformer", "layers", "embed_tokens"})


@dataclass(frozen=True)
class Written:
    """Attributes:
    path: the new folder.
    weights_bytes: of its weight files.
    source_bytes: of those that it was made from.
    layers: how many layers have codes.
    """

    path: Path
    weights_bytes: int
    source_bytes: int
    layers: int


def write_model(spec: ModelSpec, precision: Precision, output: Path) -> Written:
    """Write the model into `output`, a new folder or an empty one.

    It appears when all is written. Modules of their own folders, such as Dense, stay as they are.

    Raises:
        ConfigError: the folder is there and not empty, or its name makes it a model of another kind; the model or its
            values cannot have this precision.
        ModelLoadError: broken files, or weights in a scheme that Lemni does not read.
    """
    check(spec, precision)
    final = output.resolve()
    is_there = final.exists()  # it may be a mount point, or what a link leads to: it stays, and is filled
    draft = (final if is_there else final.parent) / f".{final.name}.part"
    if is_there and (not final.is_dir() or any(path != draft for path in final.iterdir())):
        raise ConfigError(f"{output}: is there already; name a new folder")
    if not final.parent.is_dir():
        raise ConfigError(f"{output.parent}: there is no such folder")
    root, transformer = spec.files.path, spec.transformer_path
    others = _other_files(spec)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        for file in others:
            target = draft / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        inside = draft / transformer.relative_to(root)
        inside.mkdir(parents=True, exist_ok=True)
        with TensorStore(spec.weights) as store:
            tensors = plan(store, precision)
            written = write_weights(inside, tensors)
            layers = layers_of(tensors)
            names = store.names()
        if spec.config:
            config = _config(spec.config, precision, layers, names) | _named(spec)
            (inside / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        _check_kind(spec, draft, output)
        size = sum(path.stat().st_size for path in written)
        if is_there:
            _move_up(draft)
        else:
            draft.rename(final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Written(output, size, source_bytes(spec), len(layers))


def _named(spec: ModelSpec) -> dict[str, str]:
    """What config.json has to say in a copy of a model whose kind is known by its name."""
    name = name_in_config(spec.files)
    return {} if name is None else {"_name_or_path": name}


def _check_kind(spec: ModelSpec, draft: Path, output: Path) -> None:
    """Raises ConfigError where the name of the new folder makes it another model than the old one."""
    found = describe(ModelFiles(output.name, draft, None, "folder"))
    if found.kind != spec.kind:
        raise ConfigError(
            f"{output}: by its name this would be a {found.kind} model, not {spec.kind}: name it otherwise"
        )
    if spec.kind == "causal_reranker" and not same_layout(spec, found):
        raise ConfigError(f"{output}: by its name this would be a reranker with other prompts: name it otherwise")


def _move_up(draft: Path) -> None:
    """Move what is in a folder into the one around it, last the files that make that one a model's."""
    for path in sorted(draft.iterdir(), key=lambda path: path.name in ("config.json", "modules.json")):
        path.rename(draft.parent / path.name)
    draft.rmdir()


def check(spec: ModelSpec, precision: Precision) -> None:
    """Raises ConfigError or ModelLoadError for a model that cannot be written in this precision."""
    if not spec.weights:
        raise ModelLoadError(f"{spec.files.id} has no safetensors weights, which are what is written anew")
    check_scheme(spec)
    if precision != "int8":
        return
    if spec.model_type == "model2vec":
        raise ConfigError(f"{spec.files.id} is a table of vectors, which has no int8: choose fp16 or bf16")
    if spec.model_type not in FAMILIES or spec.kind == "multimodal":
        kind = "with images or sound" if spec.kind == "multimodal" else f"of type {spec.model_type or 'unknown'!r}"
        raise ConfigError(f"{spec.files.id} is a model {kind}, which is not computed in int8: choose fp16 or bf16")
    with TensorStore(spec.weights) as store:
        if not layers_of(plan(store, precision)):
            raise ConfigError(
                f"{spec.files.id} has no layer of {SMALLEST_SIDE} rows and columns or more, so int8 would change "
                "nothing: choose fp16 or bf16"
            )


def source_bytes(spec: ModelSpec) -> int:
    return sum(path.stat().st_size for path in spec.weights)


def planned_bytes(spec: ModelSpec, precision: Precision) -> int:
    """What the weights will be in this precision, without the file's header."""
    with TensorStore(spec.weights) as store:
        return sum(tensor.size for group in plan(store, precision) for tensor in group)


def _other_files(spec: ModelSpec) -> list[Path]:
    root, transformer = spec.files.path, spec.transformer_path
    found = []
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root)
        if not file.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        is_graph = any(file.is_relative_to(transformer / name) for name in _OTHER_FOLDERS)
        is_known = file in spec.weights or inside == Path(MANIFEST)
        is_weights = file.parent == transformer and any(file.match(pattern) for pattern in _OTHER_WEIGHTS)
        if not (is_graph or is_weights or is_known):
            found.append(file)
    return found


def _config(old: dict[str, Any], precision: Precision, layers: Seq[str], names: Seq[str]) -> dict[str, Any]:
    config = {key: value for key, value in old.items() if key not in ("quantization_config", "compression_config")}
    if precision != "int8":
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = DTYPES[precision]
        return config
    weights = {"num_bits": 8, "type": "int", "symmetric": False, "strategy": "channel", "dynamic": False}
    # What is multiplied with the weights is the reader's affair. The format is said here too: else it is guessed.
    group = {
        "targets": _targets(layers, names),
        "format": FORMAT,
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
    }
    config["quantization_config"] = {
        "quant_method": METHOD,
        "format": FORMAT,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [],
        # Floats at load, in transformers. Else its first pass unfolds them, which sentence-transformers goes around.
        "dequantize": True,
    }
    return config


def _targets(layers: Seq[str], names: Seq[str]) -> list[str]:
    """Patterns of modules, as compressed-tensors matches them, with any number where a layer's stands.

    An encoder's modules have no prefix when it is loaded by itself, and one inside of a larger model.
    """
    parts = [name.split(".") for name in names]
    prefix = next((f"{part[0]}." for part in parts if len(part) > 2 and part[1] in _FIRST_PARTS), "")
    bare = {re.sub(r"(?<=\.)\d+(?=\.)", "<n>", layer.removeprefix(prefix)) for layer in layers}
    return ["re:(.*[.])?" + re.escape(layer).replace("<n>", r"\d+") + "$" for layer in sorted(bare)]
