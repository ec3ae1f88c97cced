"""Folders in other precisions: the same vectors as computing so, for Lemni, sentence-transformers and safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model2vec import StaticModel
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

import lemni
from lemni.config import HubSettings
from lemni.errors import ConfigError, ModelLoadError
from lemni.hub import ModelFiles, ModelSpec, TensorStore, describe, resolve
from lemni.hub.quantization import stored_precision
from lemni.quantize.files import write_weights
from lemni.quantize.folder import planned_bytes, write_model
from lemni.quantize.precisions import Precision, plan
from tests.tasks.tiny import save_bert

TEXTS = ["A cat sits on the mat.", "Stocks fell on Friday.", "a", "How do I reset my password?", "word " * 120]


def spec_of(folder: Path) -> ModelSpec:
    return describe(resolve(str(folder), HubSettings.model_validate({})))


def vectors(folder: Path, dtype: str = "auto", **settings: str) -> np.ndarray:
    with lemni.load(str(folder), device="cpu", dtype=dtype, **settings) as model:
        return model.embed(TEXTS)


@pytest.fixture(scope="module")
def codes(minilm: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model in int8."""
    folder = tmp_path_factory.mktemp("models") / "codes"
    written = write_model(describe(minilm), "int8", folder)
    assert written.layers == 38  # six matrices in each of six layers, the pooler's, the words
    assert written.weights_bytes < 0.27 * written.source_bytes
    return folder


def test_stored_int8_gives_the_vectors_of_int8_to_the_bit(minilm: ModelFiles, codes: Path) -> None:
    with lemni.load(str(codes), device="cpu") as model:
        assert model.card.dtype == "int8"
        assert model.card.parameters == TensorStore(describe(minilm).weights).parameters()
        stored = model.embed(TEXTS)
    np.testing.assert_array_equal(stored, vectors(minilm.path, "int8"))


def test_other_programs_and_runtimes_read_stored_int8(codes: Path) -> None:
    expected = SentenceTransformer(str(codes), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors(codes, "float32"), expected, atol=2e-6)
    np.testing.assert_allclose(vectors(codes, runtime="torch"), expected, atol=2e-6)


def test_the_folder_is_whole(minilm: ModelFiles, codes: Path) -> None:
    files = [path.relative_to(minilm.path) for path in minilm.path.rglob("*") if path.is_file()]
    names = {str(path) for path in files if not path.name.startswith(".")}
    assert {str(path.relative_to(codes)) for path in codes.rglob("*") if path.is_file()} == names - {
        "lemni-manifest.json"
    }
    assert stored_precision(spec_of(codes)) == "int8"
    assert (codes / "1_Pooling/config.json").read_bytes() == (minilm.path / "1_Pooling/config.json").read_bytes()


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_halves_are_those_of_torch(precision: Precision, dtype: torch.dtype, tmp_path: Path) -> None:
    spec = spec_of(save_bert(tmp_path / "model"))
    written = write_model(spec, precision, tmp_path / "half")
    before, after = (load_file(folder / "model.safetensors") for folder in (spec.files.path, written.path))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor.to(dtype), after[name]), name
    assert stored_precision(spec_of(written.path)) == str(dtype).removeprefix("torch.")
    assert json.loads((written.path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    reference = SentenceTransformer(str(written.path), device="cpu", model_kwargs={"dtype": torch.float32})
    with lemni.load(str(written.path), device="cpu") as model:
        np.testing.assert_allclose(model.embed(["cat"]), reference.encode(["cat"]), atol=2e-6)


def test_back_to_floats(codes: Path, tmp_path: Path) -> None:
    plain = write_model(spec_of(codes), "fp32", tmp_path / "plain").path
    assert "quantization_config" not in json.loads((plain / "config.json").read_text())
    np.testing.assert_array_equal(vectors(plain), vectors(codes, "float32"))


def test_shards(codes: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(codes, tmp_path / "shards", ignore=shutil.ignore_patterns("model.safetensors"))
    with TensorStore([codes / "model.safetensors"]) as store:
        files = write_weights(folder, plan(store, "int8"), shard_bytes=4_000_000)
    assert len(files) > 3
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [path.name for path in files]
    together = {name: tensor for path in files for name, tensor in load_file(path).items()}
    whole = load_file(codes / "model.safetensors")
    assert together.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in together.items())
    np.testing.assert_array_equal(vectors(folder), vectors(codes))


def test_planned_bytes_are_written(minilm: ModelFiles, tmp_path: Path) -> None:
    tiny = spec_of(save_bert(tmp_path / "model"))
    plans: list[tuple[ModelSpec, Precision]] = [(tiny, "fp32"), (tiny, "fp16"), (tiny, "bf16")]
    for spec, precision in [*plans, (describe(minilm), "int8")]:
        written = write_model(spec, precision, tmp_path / precision)
        header = int.from_bytes((written.path / "model.safetensors").read_bytes()[:8], "little")
        assert planned_bytes(spec, precision) == written.weights_bytes - header - 8


def test_weights_for_other_libraries_stay_behind(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model")
    for name in ("onnx/model.onnx", "pytorch_model.bin", "openvino_model.xml", "2_Dense/model.safetensors", ".git/x"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    written = write_model(spec_of(folder), "fp16", tmp_path / "half").path
    assert [
        name for name in ("onnx", "pytorch_model.bin", "openvino_model.xml", ".git") if (written / name).exists()
    ] == []
    assert (written / "2_Dense/model.safetensors").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["empty", "link", ".", "new", "dangling", "empty/../other"])
def test_empty_folders_are_filled(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(save_bert(tmp_path / "model"))
    empty = tmp_path / "work" / "empty"
    empty.mkdir(parents=True)
    (tmp_path / "work" / "link").symlink_to(empty)
    (tmp_path / "work" / "dangling").symlink_to(tmp_path / "target")
    monkeypatch.chdir(empty if name == "." else empty.parent)
    before = empty.stat().st_ino
    written = write_model(spec, "fp16", Path(name)).path
    expected = {path.relative_to(spec.files.path) for path in spec.files.path.rglob("*")}
    assert {path.relative_to(written) for path in written.rglob("*")} == expected
    assert empty.stat().st_ino == before  # a mount point cannot be replaced
    assert not list(tmp_path.rglob("*.part"))
    np.testing.assert_array_equal(vectors(written.resolve()), vectors(spec.files.path, "float16"))


def test_a_failure_leaves_an_empty_folder_empty(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (tmp_path / "empty" / ".empty.part").mkdir(parents=True)  # of a run that was killed
    with pytest.raises(ConfigError, match="has values over 65504"):
        write_model(spec_of(folder), "fp16", tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model")
    spec = spec_of(folder)
    with pytest.raises(ConfigError, match="is there already"):
        write_model(spec, "fp16", folder)
    with pytest.raises(ConfigError, match="there is no such folder"):
        write_model(spec, "fp16", tmp_path / "none" / "half")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"word_embeddings\.weight' has values over 65504"):
        write_model(spec, "fp16", tmp_path / "half")
    assert not list(tmp_path.glob("*half*"))


def test_no_int8_that_would_be_floats(tmp_path: Path) -> None:
    small = spec_of(save_bert(tmp_path / "small"))
    with pytest.raises(ConfigError, match="has no layer of 64 rows and columns or more, so int8 would change nothing"):
        write_model(small, "int8", tmp_path / "codes")
    tokenizer = Tokenizer.from_file(str(tmp_path / "small" / "tokenizer.json"))
    vectors = np.random.default_rng(0).normal(size=(tokenizer.get_vocab_size(), 96)).astype(np.float32)
    StaticModel(vectors, tokenizer).save_pretrained(str(tmp_path / "table"))
    table = spec_of(tmp_path / "table")
    assert table.model_type == "model2vec"
    with pytest.raises(ConfigError, match="is a table of vectors, which has no int8: choose fp16 or bf16"):
        write_model(table, "int8", tmp_path / "codes")
    assert not list(tmp_path.glob("*codes*"))
    half = write_model(table, "fp16", tmp_path / "half").path
    expected = StaticModel.from_pretrained(str(half)).encode(["a cat"])
    with lemni.load(str(half), device="cpu") as model:
        np.testing.assert_allclose(model.embed(["a cat"]), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("scheme", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq, 4 bits"),
        ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
        ({"quant_method": "bitsandbytes", "_load_in_8bit": True}, "bitsandbytes, 8 bits"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group"}}},
            },
            r"compressed-tensors \(pack-quantized\), 4 bits",
        ),
    ],
)
def test_other_schemes_are_named(scheme: dict[str, object], name: str, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": scheme}))
    with pytest.raises(ModelLoadError, match=f"quantised with {name}, which Lemni does not read"):
        lemni.load(str(folder), device="cpu")
