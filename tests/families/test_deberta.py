"""DeBERTa v2 and v3 against transformers on the same tiny random weights, on every array library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from lemni.errors import ModelLoadError
from lemni.families.deberta import Buckets, DebertaV2
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.ops.numpy import NumpyInputs, NumpyOps
from lemni.types import PackedBatch, Sequence
from tests.families.encoders import (
    BACKENDS,
    SIZES,
    Forward,
    Loaded,
    config_of,
    expected,
    forward_of,
    rewrite,
    save,
    sequences,
    worst,
)

TOLERANCE = 2e-5  # hidden states are of the order of one
LIBRARIES = [*BACKENDS, "numpy"]
V3 = {
    **SIZES,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 16,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
CASES: dict[str, dict[str, Any]] = {
    "v3": V3,
    "v3-spelled-as-one": {**V3, "pos_att_type": "c2p|p2c"},
    "own-keys": {**V3, "share_att_key": False},
    "own-keys-c2p": {**V3, "share_att_key": False, "pos_att_type": ["c2p"]},
    "own-keys-p2c": {**V3, "share_att_key": False, "pos_att_type": ["p2c"]},
    "c2p": {**V3, "pos_att_type": ["c2p"]},
    "p2c": {**V3, "pos_att_type": ["p2c"]},
    "no-buckets": {**V3, "position_buckets": -1, "norm_rel_ebd": "none"},
    "no-buckets-near": {**V3, "position_buckets": -1, "max_relative_positions": 20},
    "odd-buckets-near": {**V3, "position_buckets": 7, "max_relative_positions": 12, "norm_rel_ebd": "none"},
    "absolute-too": {**V3, "position_biased_input": True, "type_vocab_size": 2, "layer_norm_eps": 1e-3},
    "absolute-only": {**V3, "position_biased_input": True, "relative_attention": False},
    "no-terms": {**V3, "pos_att_type": None, "hidden_act": "relu"},
    "narrow": {**V3, "embedding_size": 16},
    "convolution": {**V3, "conv_kernel_size": 3, "conv_act": "gelu"},
}


class Tiny(NamedTuple):
    folder: Path
    types: int
    forward: Forward


class OnNumpy:
    """A folder's model on numpy, which no backend offers."""

    def __init__(self, folder: Path) -> None:
        weights = Weights(TensorStore(sorted(folder.glob("*.safetensors"))))
        self.model = DebertaV2(config_of(folder), weights, NumpyOps())

    def __call__(self, items: list[Sequence]) -> NDArray[np.float32]:
        states: NDArray[np.float32] = self.model(NumpyInputs(PackedBatch.pack(items)))
        return states


def load(folder: Path, library: str) -> Any:
    return OnNumpy(folder) if library == "numpy" else Loaded(folder, library)


@pytest.fixture(scope="module", params=CASES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    config = hf.DebertaV2Config(**CASES[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    model = save(hf.AutoModel.from_config(config), folder)
    return Tiny(folder, max(config.type_vocab_size, 1), forward_of(model, types=config.type_vocab_size > 1))


@pytest.mark.parametrize("library", LIBRARIES)
def test_hidden_states_are_those_of_transformers(tiny: Tiny, library: str) -> None:
    items = sequences(1, 2, 7, 100, 64, 31, 9, types=tiny.types)
    states = expected(tiny.forward, items)
    assert np.abs(states).max() > 0.5  # differences mean something
    assert np.abs(load(tiny.folder, library)(items) - states).max() <= TOLERANCE


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_sequence_alone_is_the_same_as_among_others(tiny: Tiny, library: str) -> None:
    model = load(tiny.folder, library)
    lengths = [5, 1, 40, 2, 13, 29]
    items = sequences(*lengths, types=tiny.types)
    alone = [model([item]) for item in items]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2], [2, 2, 4]):
        together = np.split(model([items[n] for n in order]), np.cumsum([lengths[n] for n in order])[:-1])
        for n, rows in zip(order, together, strict=True):
            assert np.abs(rows - alone[n]).max() <= 1e-5


@pytest.mark.parametrize("config", [V3, CASES["convolution"]], ids=["v3", "convolution"])
def test_below_a_head(config: dict[str, Any], tmp_path: Path) -> None:
    model = hf.AutoModelForSequenceClassification.from_config(hf.DebertaV2Config(**config, num_labels=3))
    model = save(model, tmp_path)
    assert worst(tmp_path, forward_of(model.deberta, types=False), sequences(1, 30, 7)) <= TOLERANCE


def test_half_precision_in_the_file_is_computed_in_float32(tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(hf.DebertaV2Config(**V3)), tmp_path)
    rewrite(tmp_path, lambda tensors: {name: tensor.half() for name, tensor in tensors.items()})
    model = hf.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert worst(tmp_path, forward_of(model, types=False), sequences(1, 30, 7)) <= TOLERANCE


def test_only_absolute_positions_end(tmp_path: Path) -> None:
    for name, longest in (("v3", None), ("absolute-too", 160)):
        model = save(hf.AutoModel.from_config(hf.DebertaV2Config(**CASES[name])), tmp_path)
        assert Loaded(tmp_path, "torch").max_positions == longest
        items = sequences(longest or 300, 3)
        assert worst(tmp_path, forward_of(model, types=False), items) <= TOLERANCE


def test_positions_that_a_model_does_not_use(tmp_path: Path) -> None:
    """Some files hold `position_embeddings` although `position_biased_input` is false."""
    model = save(hf.AutoModel.from_config(hf.DebertaV2Config(**V3)), tmp_path)
    extra = {"embeddings.position_embeddings.weight": torch.ones(160, 32)}
    rewrite(tmp_path, lambda tensors: {**tensors, **extra})
    assert worst(tmp_path, forward_of(model, types=False), sequences(1, 30, 7)) <= TOLERANCE


@pytest.mark.parametrize(
    ("span", "farthest"), [(256, 512), (256, None), (16, 160), (16, 17), (8, 64), (7, 12), (32, 513), (20, None)]
)
def test_buckets_are_those_of_transformers(span: int, farthest: int | None) -> None:
    states = torch.zeros(1, 700, 1)
    theirs = build_relative_position(states, states, -1 if farthest is None else span, farthest or -1)[0]
    rows = theirs.clamp(-span, span - 1).numpy() + span
    places = np.arange(700)
    np.testing.assert_array_equal(Buckets(span, farthest)(places - places[:, None]), rows)


@pytest.mark.parametrize(
    "change",
    [
        {"position_buckets": 14},
        {"max_relative_positions": 120},
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]},
        {"norm_rel_ebd": "none"},
        {"layer_norm_eps": 0.1},
    ],
    ids=str,
)
def test_settings_show(change: dict[str, Any], tmp_path: Path) -> None:
    """What the comparisons above rest on: a setting that is overlooked is far over their tolerance."""
    save(hf.AutoModel.from_config(hf.DebertaV2Config(**V3)), tmp_path)
    config = config_of(tmp_path)
    right, wrong = (Loaded(tmp_path, "torch", {**config, **extra})(sequences(90)) for extra in ({}, change))
    assert np.abs(right - wrong).max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    "change",
    [
        {"conv_kernel_size": 5},
        {"conv_kernel_size": 3, "conv_groups": 2},
        {"pos_att_type": "c2p|p2p"},
        {"norm_rel_ebd": "rms_norm"},
    ],
    ids=str,
)
def test_settings_that_are_not_supported(change: dict[str, Any], tmp_path: Path) -> None:
    save(hf.AutoModel.from_config(hf.DebertaV2Config(**CASES["convolution"])), tmp_path)
    for backend in BACKENDS:
        with pytest.raises(ModelLoadError, match=f"{list(change)[-1]} .* in config.json is not supported"):
            Loaded(tmp_path, backend, {**config_of(tmp_path), **change})
