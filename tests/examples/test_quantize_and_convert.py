"""The scripts that quantise and convert: the files that they leave."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from sentence_transformers import SentenceTransformer

import lemni
from tests.examples.comparison import EXAMPLES
from tests.tasks.tiny import save_bert


def run(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def test_quantize_writes_a_model(tmp_path: Path) -> None:
    model = save_bert(tmp_path / "model")
    done = run("quantize_model.py", "--model", str(model), "--precision", "fp16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == f"lemni quantize {model} --precision fp16 -o model-fp16"
    with lemni.load(str(tmp_path / "model-fp16"), device="cpu") as half, lemni.load(str(model), device="cpu") as exact:
        alike = (half.embed(["cat"]) @ exact.embed(["cat"]).T) / np.linalg.norm(half.embed("cat"))
        assert alike / np.linalg.norm(exact.embed("cat")) > 0.999


def test_quantize_compares(tmp_path: Path) -> None:
    model = save_bert(tmp_path / "model")
    options = ("--no-accuracy", "--rounds", "1", "--device", "cpu", "-o", "report")
    done = run("quantize_model.py", "--model", str(model), *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["PRECISION", "WEIGHTS", "MEMORY", "LOAD", "QUERY", "TEXTS/S", "SPEED"]
    assert [row.split()[0] for row in rows][:2] == ["fp32", "fp16"]
    report = json.loads((tmp_path / "report" / "compare.json").read_text())
    assert [row["precision"] for row in report["rows"]] == [row.split()[0] for row in rows]


def test_convert(tmp_path: Path) -> None:
    model = save_bert(tmp_path / "model")
    done = run("convert_to_onnx.py", "--model", str(model), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reference = SentenceTransformer(str(model), device="cpu")
    words = reference.tokenizer(["the cat sat"], return_tensors="np")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    given = {**words, "token_type_ids": np.zeros_like(words["input_ids"])}
    feed = {one.name: np.asarray(given[one.name], np.int64) for one in session.get_inputs()}
    found = session.run(None, feed)[0]
    expected = reference.encode(["the cat sat"], output_value="token_embeddings", convert_to_numpy=True)[0]
    np.testing.assert_allclose(found[0], np.asarray(expected), atol=2e-6)
