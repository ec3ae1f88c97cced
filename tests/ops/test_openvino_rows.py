"""Models that are pooled by one token: rows that nobody reads are left out of the last layer, nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import transformers as hf

from lemni.families import family_class
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.ops.openvino import OpenVINOOps
from lemni.ops.openvino_inputs import OpenVINOInputs
from lemni.ops.openvino_rows import narrow
from lemni.runtimes.base import BackendOptions, Blueprint, Heads
from lemni.runtimes.openvino import OpenVINOBackend
from lemni.types import PackedBatch
from tests.families import test_deberta, test_decoders, test_encoders
from tests.families.decoders import run
from tests.families.encoders import config_of, save, sequences

MODELS: dict[str, Callable[[], Any]] = {
    **{name: case.model for name, case in test_encoders.CASES.items() if "-" not in name or name == "nomic-bert"},
    "deberta": lambda: hf.AutoModel.from_config(hf.DebertaV2Config(**test_deberta.V3)),
    "qwen3": lambda: hf.AutoModel.from_config(hf.Qwen3Config(**test_decoders.SIZES, head_dim=12)),
    "gemma3": lambda: hf.AutoModel.from_config(
        hf.Gemma3TextConfig(**test_decoders.SIZES, head_dim=8, sliding_window=5)
    ),
}
HEADS: Heads = {
    "dense": lambda ops: lambda hidden, inputs: ops.first(hidden, inputs),
    "logits": lambda ops: lambda hidden, inputs: ops.last(hidden, inputs),
    "tokens": lambda ops: lambda hidden, inputs: hidden,
}
LENGTHS = (5, 1, 40, 2, 13)


@pytest.fixture(scope="module", params=MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    save(MODELS[request.param](), path)
    return path


def encoder(folder: Path) -> Callable[[Any], Any]:
    config, store = config_of(folder), TensorStore(sorted(folder.glob("*.safetensors")))
    return lambda ops: family_class(config["model_type"], config)(config, Weights(store), ops)


def backend(folder: Path, *heads: str) -> OpenVINOBackend:
    chosen: Heads = {name: HEADS[name] for name in heads}  # type: ignore[index]
    return OpenVINOBackend(Blueprint(None, encoder(folder), chosen), BackendOptions(threads=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(("head", "which"), [("dense", 0), ("logits", -1)])
def test_the_rows_are_those_of_all_tokens(folder: Path, head: Any, which: int) -> None:
    items = sequences(*LENGTHS)
    tokens = np.split(run(backend(folder, "tokens").replica(0), items), np.cumsum(LENGTHS)[:-1])
    runtime = backend(folder, head, "tokens").replica(0)
    expected = np.stack([rows[which] for rows in tokens])
    assert np.abs(expected).max() > 0.5  # differences mean something
    np.testing.assert_allclose(run(runtime, items, head), expected, atol=1e-5)
    np.testing.assert_allclose(run(runtime, items), np.concatenate(tokens), atol=1e-5)


def traced(folder: Path, *heads: str) -> tuple[ov.Model, OpenVINOInputs]:
    inputs, ops = OpenVINOInputs(), OpenVINOOps()
    hidden = encoder(folder)(ops)(inputs)
    outputs = [HEADS[name](ops)(hidden, inputs) for name in heads]  # type: ignore[index]
    return ov.Model(outputs, list(inputs.parameters.values())), inputs


def test_the_last_layer_is_left_out_for_the_others(folder: Path) -> None:
    model, inputs = traced(folder, "dense")
    products = sum(node.get_type_name() == "MatMul" for node in model.get_ops())
    assert narrow(model, [inputs.parameters["first"]]) >= 5
    batch = sequences(*LENGTHS)
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
    assert request.infer(inputs.feed(PackedBatch.pack(batch)))[0].shape[0] >= len(batch)
    assert sum(node.get_type_name() == "MatMul" for node in model.get_ops()) == products


def test_nothing_is_left_out_when_somebody_reads_all_tokens(folder: Path) -> None:
    model, inputs = traced(folder, "dense", "tokens")
    assert narrow(model, [inputs.parameters["first"]]) == 0


def test_first_and_last_together(folder: Path) -> None:
    items = sequences(*LENGTHS)
    both = backend(folder, "dense", "logits").replica(0)
    for head in ("dense", "logits"):
        alone = run(backend(folder, head).replica(0), items, head)  # type: ignore[arg-type]
        np.testing.assert_allclose(run(both, items, head), alone, atol=1e-5)  # type: ignore[arg-type]


def test_asking_for_all_tokens_later_changes_nothing(tmp_path: Path) -> None:
    config = hf.BertConfig(**test_encoders.SIZES)
    save(hf.AutoModel.from_config(config), tmp_path)
    items = sequences(*LENGTHS)
    loaded = backend(tmp_path, "dense", "tokens")
    runtime, other = loaded.replica(0), loaded.replica(1)
    before = run(runtime, items, "dense")
    tokens = run(other, items)
    np.testing.assert_array_equal(run(runtime, items, "dense"), before)
    np.testing.assert_allclose(tokens[np.cumsum([0, *LENGTHS[:-1]])], before, atol=1e-5)
