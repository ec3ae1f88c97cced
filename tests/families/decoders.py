"""Tiny random decoders of transformers, and what Lemni's families make of the same files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lemni.families import family_class
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.runtimes.base import BackendOptions, Blueprint, Heads, Runtime
from lemni.runtimes.openvino import OpenVINOBackend
from lemni.runtimes.torch import TorchBackend
from lemni.types import TOKEN_OUTPUTS, Output, PackedBatch, Sequence

BACKENDS = {"openvino": OpenVINOBackend, "torch": TorchBackend}
VOCABULARY = 99
TOLERANCE = 1e-4  # maximum absolute difference of hidden states in float32
HIDDEN: Heads = {"tokens": lambda ops: lambda hidden, inputs: hidden}
"""Heads of a model of which only the hidden states are looked at."""


def save(model: Any, folder: Path) -> Any:
    """Give every parameter a value that shows when it is forgotten, and write the model's files."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
            else:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5)
    model.eval().save_pretrained(folder)
    return model


def sequences(*lengths: int, seed: int = 0) -> list[Sequence]:
    random = np.random.default_rng(seed)
    return [Sequence(random.integers(0, VOCABULARY, n).astype(np.int32)) for n in lengths]


def reference(model: Any, items: Seq[Sequence]) -> NDArray[np.float32]:
    """Hidden states [T, hidden] of transformers, one sequence at a time."""
    rows = []
    with torch.inference_mode():
        for item in items:
            ids = torch.from_numpy(item.ids.astype(np.int64))[None]
            rows.append(model(ids).last_hidden_state[0].float().numpy())
    return np.concatenate(rows)


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def hidden(
    folder: Path, items: Seq[Sequence], backend: str, config: dict[str, Any] | None = None
) -> NDArray[np.float32]:
    """Hidden states [T, hidden] of Lemni's family on the folder's weights, all sequences in one batch."""
    config = config_of(folder) if config is None else config
    store = TensorStore(sorted(folder.glob("*.safetensors")))
    blueprint: Any = Blueprint(
        None,  # type: ignore[arg-type]  # the family needs no more than its config
        lambda ops: family_class(config["model_type"])(config, Weights(store), ops),
        HIDDEN,
    )
    return run(BACKENDS[backend](blueprint, BackendOptions(threads=1)).replica(0), items)


def run(runtime: Runtime, items: Seq[Sequence], output: Output = "tokens") -> NDArray[np.float32]:
    """One output of items in one batch: [T, hidden] where it has rows per token, else [B, dim]."""
    asked = [dataclasses.replace(item, outputs=(output,)) for item in items]
    rows = [outputs[output] for outputs in runtime.run(PackedBatch.pack(asked))]
    assert len(rows) == len(items)
    if output not in TOKEN_OUTPUTS:
        return np.stack(rows)
    assert [len(row) for row in rows] == [len(item.ids) for item in items]
    return np.concatenate(rows)


def worst(folder: Path, model: Any, items: Seq[Sequence], config: dict[str, Any] | None = None) -> float:
    """Largest difference from transformers over both runtimes."""
    expected = reference(model, items)
    assert np.abs(expected).max() > 0.5  # differences mean something
    return max(float(np.abs(hidden(folder, items, name, config) - expected).max()) for name in BACKENDS)
