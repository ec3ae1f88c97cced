"""`lemni export` on the real default model: files that ONNX Runtime, OpenVINO, a tokenizer and Lemni itself read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

import lemni
from lemni.hub import ModelFiles
from tests.export.graphs import on_onnxruntime, on_openvino

from .command import error_line
from .command import lemni as run

TEXTS = ["The cat sat on the mat.", "How do I reset my password?", "x"]


@pytest.fixture(scope="module")
def vectors(minilm: ModelFiles) -> np.ndarray:
    with lemni.load(str(minilm.path)) as model:
        return np.array(model.embed(TEXTS))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_both_formats_in_one_folder(minilm: ModelFiles, vectors: np.ndarray, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("export", str(minilm.path), "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "inputs   input_ids, attention_mask, token_type_ids" in done.stdout
    assert "outputs  last_hidden_state, pooler_output" in done.stdout
    assert "90.9 MB  out/onnx/model.onnx" in done.stdout
    assert "checked  on ONNX Runtime: differs from Lemni's own by at most" in done.stdout
    assert run("export", str(minilm.path), "-o", "out", "--format", "openvino", cwd=tmp_path).returncode == 0
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.enable_padding()
    encodings = tokenizer.encode_batch(TEXTS)
    feed = {
        "input_ids": np.array([one.ids for one in encodings]),
        "attention_mask": np.array([one.attention_mask for one in encodings]),
        "token_type_ids": np.array([one.type_ids for one in encodings]),
    }
    mask = feed["attention_mask"][:, :, None]
    for engine, file in ((on_onnxruntime, "onnx/model.onnx"), (on_openvino, "openvino/openvino_model.xml")):
        hidden = engine(out / file, feed)["last_hidden_state"]
        assert np.abs(unit((hidden * mask).sum(1) / mask.sum(1)) - vectors).max() < 1e-5
    with lemni.load(str(out)) as model:
        assert model.card.runtime == "onnx"
        assert np.abs(model.embed(TEXTS) - vectors).max() < 1e-5
    line = error_line(run("export", str(minilm.path), "-o", "out", cwd=tmp_path))
    assert line == "out/onnx/model.onnx is there already: --force writes over it"
    (out / "onnx/model.onnx").unlink()
    (out / "config.json").write_text("{}")
    line = error_line(run("export", str(minilm.path), "-o", "out", cwd=tmp_path))
    assert line == "out/config.json is there already with other contents: --force writes over it"


def test_a_file_of_halves(minilm: ModelFiles, vectors: np.ndarray, tmp_path: Path) -> None:
    arguments = ["--dtype", "float16", "--pooled", "--opset", "18", "--max-seq-length", "100", "--json"]
    done = run("export", str(minilm.path), "-o", "small.onnx", *arguments, cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert [entry["path"] for entry in facts["files"]] == ["small.onnx"]
    assert facts["files"][0]["size"] < 46_000_000
    assert 0 < facts["max_difference"]["sentence_embedding"] < 1e-3
    assert facts["outputs"] == ["sentence_embedding", "last_hidden_state"]
    model = onnx.load(tmp_path / "small.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props}["max_seq_length"] == "100"
    one = Tokenizer.from_file(str(minilm.path / "tokenizer.json")).encode(TEXTS[0])
    lists = {"input_ids": one.ids, "attention_mask": one.attention_mask, "token_type_ids": one.type_ids}
    feed = {name: np.array([values]) for name, values in lists.items()}
    found = on_onnxruntime(tmp_path / "small.onnx", feed)["sentence_embedding"]
    assert float(found[0] @ vectors[0]) > 0.9999


def test_onto_the_model_itself(minilm: ModelFiles, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(minilm.path, folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    done = run("export", "model", "-o", "model", "--no-check", cwd=tmp_path)
    assert "not checked" in done.stdout
    assert (folder / "onnx/model.onnx").exists()
    assert all(file.read_bytes() == content for file, content in before.items())


def test_without_onnx(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "onnx.py").write_text("raise ImportError('no onnx here')")
    done = run("export", str(minilm.path), "-o", "x.onnx", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert error_line(done) == (
        "exporting a model needs the package 'onnx', which is not installed. Install it with: pip install 'lemni[onnx]'"
    )


def test_without_torch(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = run("export", str(minilm.path), "-o", "x.onnx", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("output", ["there/models/x/1", "there/x.onnx", "link/out"])
@pytest.mark.parametrize(("variable", "name"), [("LEMNI_CACHE_DIR", "Lemni's"), ("HF_HUB_CACHE", "the Hugging Face")])
def test_no_cache_is_written_into(output: str, variable: str, name: str, minilm: ModelFiles, tmp_path: Path) -> None:
    cache = tmp_path / "there"
    (cache / "out").mkdir(parents=True)
    (tmp_path / "link").symlink_to(cache)
    done = run("export", str(minilm.path), "-o", output, "--force", cwd=tmp_path, env={variable: str(cache)})
    assert error_line(done) == f"{output}: is inside {name} cache, {cache}; name a place outside of it"
    assert list(cache.iterdir()) == [cache / "out"]
    assert not list((cache / "out").iterdir())
