"""8-bit codes in OpenVINO's graph: a matrix that is used several times is quantised and stored once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import transformers as hf

from lemni.families import family_class
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.ops.int8 import is_worth_it
from lemni.ops.openvino import OpenVINOOps
from lemni.ops.openvino_inputs import OpenVINOInputs
from lemni.ops.openvino_rows import narrow
from lemni.types import PackedBatch
from tests.families.encoders import config_of, save, sequences

LAYERS = 5


class Unshared(OpenVINOOps):
    """Quantises a matrix anew at every use."""

    def _matrix(self, weight: Any) -> Any:
        self._matrices.clear()
        return super()._matrix(weight)


@pytest.fixture(scope="module")
def albert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("albert")
    sizes = {"hidden_size": 96, "intermediate_size": 128, "embedding_size": 64, "num_attention_heads": 4}
    save(hf.AlbertModel(hf.AlbertConfig(vocab_size=200, num_hidden_layers=LAYERS, **sizes)), folder)
    return folder


def traced(folder: Path, ops: OpenVINOOps) -> tuple[ov.Model, OpenVINOInputs]:
    config, store, inputs = config_of(folder), TensorStore(sorted(folder.glob("*.safetensors"))), OpenVINOInputs()
    hidden = family_class("albert", config)(config, Weights(store), ops)(inputs)
    outputs = [hidden, ops.first(hidden, inputs)]
    return ov.Model(outputs, list(inputs.parameters.values())), inputs


def codes(model: ov.Model) -> list[bytes]:
    """The 8-bit codes of each matrix in the graph."""
    found = [node.data for node in model.get_ops() if node.get_type_name() == "Constant"]
    return [data.tobytes() for data in found if data.dtype == np.uint8 and is_worth_it(data.shape)]


def vectors(folder: Path, ops: OpenVINOOps, *, narrowed: bool) -> list[np.ndarray]:
    model, inputs = traced(folder, ops)
    if narrowed:
        model = ov.Model([model.outputs[1]], model.get_parameters())
        assert narrow(model, [inputs.parameters["first"]]) >= 5
    request = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1}).create_infer_request()
    found = request.infer(inputs.feed(PackedBatch.pack(sequences(5, 1, 40, 2))))
    return [np.array(value) for value in found.values()]


def test_each_matrix_is_stored_once(albert: Path) -> None:
    shared, anew = (
        codes(traced(albert, OpenVINOOps(weights="int8"))[0]),
        codes(traced(albert, Unshared(weights="int8"))[0]),
    )
    # Queries, keys and values as one matrix, the attention's output, up and down; and before them, the wide embedding.
    assert len(shared) == len(set(shared)) == 4 + 1
    assert len(anew) == 4 * LAYERS + 1
    assert set(anew) == set(shared)


@pytest.mark.parametrize("narrowed", [False, True])
def test_the_numbers_stay(albert: Path, narrowed: bool) -> None:
    ops = OpenVINOOps(weights="int8")
    for found, expected in zip(
        vectors(albert, ops, narrowed=narrowed),
        vectors(albert, Unshared(weights="int8"), narrowed=narrowed),
        strict=True,
    ):
        assert np.abs(expected).max() > 0.5  # differences mean something
        np.testing.assert_array_equal(found, expected)
