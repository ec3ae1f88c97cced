"""Folders with exported graphs, whole, against sentence-transformers and ONNX Runtime on the same files."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.errors import ConfigError, LemniError, ModelLoadError
from lemni.loading import load_model
from lemni.runtimes import graph_sessions
from lemni.runtimes.base import BackendOptions
from lemni.tasks.model import LoadedModel
from tests.tasks import tiny

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

TEXTS = ["the cat", "a dog runs over the hill and the cat runs too", "hill", ""]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FULL = "onnx/model.onnx"
QUANTISED = "onnx/model_quantized.onnx"
IR = "openvino/openvino_model.xml"


class _Graph(torch.nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self, bert: Any) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, *values: Any) -> Any:
        return self.bert(**dict(zip(INPUTS, values, strict=True))).last_hidden_state


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """sentence-transformers' folder with safetensors, ONNX (plain and quantised) and OpenVINO's IR; and its model."""
    import openvino
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sentence_transformers.models import Dense, Normalize, Pooling
    from transformers import AutoModel

    root = tmp_path_factory.mktemp("saved")
    reference = tiny.sentence_model(root, [Pooling(32, "max"), Dense(32, 16), Normalize()])
    folder = root / "model"
    for name in ("onnx", "openvino"):
        (folder / name).mkdir()
    bert = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    example = torch.ones((2, 5), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(bert).eval(), (example,) * 3, str(folder / FULL), dynamo=False, opset_version=17,
            input_names=list(INPUTS), output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in INPUTS},
        )  # fmt: skip
    quantize_dynamic(folder / FULL, folder / QUANTISED, weight_type=QuantType.QInt8)
    openvino.save_model(openvino.Core().read_model(folder / FULL), folder / IR, compress_to_fp16=False)
    return folder, reference


@pytest.fixture
def folder(saved: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(saved[0], tmp_path / "model"))


def _load(model: Path, **settings: Any) -> LoadedModel:
    wanted = ModelSettings.model_validate({"model": str(model), "device": "cpu", **settings})
    return load_model(wanted, HubSettings(offline=True), EngineSettings())


def _vectors(model: LoadedModel, texts: list[str]) -> NDArray[np.float32]:
    return tiny.run(model, texts).vectors


def _without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


def _by_onnx_runtime(path: Path, reference: Any, text: str) -> NDArray[np.float32]:
    """The vector of one text: the file on ONNX Runtime, pooling and all that follows by sentence-transformers."""
    features = {name: value for name, value in reference.preprocess([text]).items() if name in INPUTS}
    features["token_type_ids"] = features["input_ids"] * 0
    session = onnxruntime.InferenceSession(path)
    (hidden,) = session.run(None, {name: features[name].numpy() for name in INPUTS})
    features["token_embeddings"] = torch.from_numpy(hidden)
    with torch.inference_mode():
        for module in list(reference)[1:]:
            features = module(features)
    return np.asarray(features["sentence_embedding"][0])


def test_safetensors_go_first_and_the_graph_on_request(folder: Path, saved: tuple[Path, Any]) -> None:
    expected = saved[1].encode(TEXTS)
    for settings, runtime in (({}, "openvino"), ({"runtime": "onnx"}, "onnx"), ({"graph_file": IR}, "onnx")):
        model = _load(folder, **settings)
        assert (model.card.runtime, model.card.dtype, model.card.dimensions) == (runtime, "float32", 16)
        np.testing.assert_allclose(_vectors(model, TEXTS), expected, atol=2e-6)


@pytest.mark.parametrize("runtime", ["auto", "openvino", "onnx"])
def test_a_folder_of_ir(runtime: str, folder: Path, saved: tuple[Path, Any]) -> None:
    model = _load(_without(folder, "model.safetensors", FULL, QUANTISED), runtime=runtime)
    assert model.card.runtime == "onnx"
    np.testing.assert_allclose(_vectors(model, TEXTS), saved[1].encode(TEXTS), atol=2e-6)
    with pytest.raises(ConfigError, match=r"openvino_model\.xml holds no weights of 8 bits"):
        _load(folder, runtime=runtime, dtype="int8")
    (folder / IR).write_text("<net/>")
    with pytest.raises(ModelLoadError, match="OpenVINO cannot run it"):
        _load(folder, runtime=runtime)


def test_the_quantised_file_on_either_engine(
    folder: Path, saved: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # One text at a time: such a graph takes the range of what it rounds from the whole batch.
    expected = np.stack([_by_onnx_runtime(folder / QUANTISED, saved[1], text) for text in TEXTS])
    assert np.abs(expected - saved[1].encode(TEXTS)).max() > 1e-3  # else this would not tell the files apart
    with caplog.at_level(logging.INFO):
        model = _load(folder, runtime="onnx", dtype="int8")
    assert "model_quantized.onnx: runs on ONNX Runtime" in caplog.text
    assert "of 3 exported graphs onnx/model_quantized.onnx is taken" in caplog.text
    assert model.card.dtype == "int8"
    np.testing.assert_allclose(np.concatenate([_vectors(model, [t]) for t in TEXTS]), expected, atol=1e-5)
    assert graph_sessions.open_session(folder / QUANTISED, BackendOptions()).positions == 64
    monkeypatch.setattr(graph_sessions, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        model = _load(_without(folder, "model.safetensors", FULL))
    assert "pip install 'lemni[onnx]'" in caplog.text
    assert "model_quantized.onnx: runs on OpenVINO" in caplog.text
    # The engines round a few values to the other side.
    vectors = np.concatenate([_vectors(model, [t]) for t in TEXTS])
    assert (vectors * expected).sum(1).min() > 0.9995


def test_a_file_may_be_the_model(folder: Path, saved: tuple[Path, Any]) -> None:
    model = _load(folder / FULL)
    assert (model.card.runtime, model.card.name) == ("onnx", "model")
    np.testing.assert_allclose(_vectors(model, TEXTS), saved[1].encode(TEXTS), atol=2e-6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"runtime": "onnx", "dtype": "float16"},
            ModelLoadError,
            r"no exported graph in float16; there are onnx/model",
        ),
        (
            {"graph_file": "onnx/none.onnx"},
            ModelLoadError,
            r"no exported graph 'onnx/none\.onnx'; there are onnx/model",
        ),
        ({"graph_file": FULL, "runtime": "torch"}, ConfigError, r"model\.onnx runs on onnx, not on torch"),
        ({"graph_file": FULL, "dtype": "int8"}, ConfigError, r"holds no weights of 8 bits.*: model_quantized\.onnx"),
    ],
)
def test_what_cannot_be_is_said(
    settings: dict[str, Any], error: type[LemniError], message: str, saved: tuple[Path, Any]
) -> None:
    with pytest.raises(error, match=message):
        _load(saved[0], **settings)
