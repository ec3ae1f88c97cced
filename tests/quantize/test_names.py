"""Copies of models that are known by the names of their folders alone: they stay what they are, whatever their name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lemni
from lemni.errors import ConfigError, ModelLoadError
from lemni.export import ExportOptions, export_model
from lemni.hub import ModelFiles, ModelSpec, describe
from lemni.hub.kinds import kind_of
from lemni.quantize.folder import write_model
from tests.tasks.causal_rerankers import TEMPLATE, save_causal
from tests.tasks.sparse_models import save_masked

QUERY, DOCUMENTS = "a cat", ["the cat sat", "a", "the mat and the cat"]

# Name of the folder -> what is saved in it, and its kind. The names of tests are in paths, so they say none of it.
KNOWN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "my-splade-v3": (lambda folder: save_masked(folder, "bert"), "sparse"),
    "Qwen3-Reranker-tiny": (lambda folder: save_causal(folder, "qwen3"), "causal_reranker"),
    "mxbai-rerank-tiny-v2": (lambda folder: save_causal(folder, "qwen2"), "causal_reranker"),
}
CASES = pytest.mark.parametrize("number", range(len(KNOWN)))


def saved(number: int, root: Path) -> ModelSpec:
    name, (save, kind) = list(KNOWN.items())[number]
    save(root / name)
    spec = describe(ModelFiles(str(root / name), root / name, None, "folder"))
    assert spec.kind == kind
    return spec


def answers(folder: Path) -> np.ndarray:
    """What the model says of the documents, by the task that its kind has."""
    with lemni.load(str(folder), device="cpu") as model:
        if "sparse" in model.card.tasks:
            return np.concatenate([one.values for one in model.sparse(DOCUMENTS)])
        return np.array([one.score for one in sorted(model.rerank(QUERY, DOCUMENTS), key=lambda one: one.index)])


@CASES
def test_a_copy_keeps_its_kind(number: int, tmp_path: Path) -> None:
    spec = saved(number, tmp_path)
    copy = write_model(spec, "fp32", tmp_path / "small").path
    np.testing.assert_array_equal(answers(copy), answers(spec.files.path))
    name = json.loads((copy / "config.json").read_text())["_name_or_path"]
    assert name == spec.files.path.name
    again = write_model(describe(ModelFiles(str(copy), copy, None, "folder")), "fp32", tmp_path / "again").path
    assert (again / "config.json").read_text() == (copy / "config.json").read_text()


@CASES
def test_an_exported_folder_keeps_its_kind(number: int, tmp_path: Path) -> None:
    spec = saved(number, tmp_path)
    export_model(spec, tmp_path / "out", ExportOptions(check=False))
    assert kind_of(tmp_path / "out") == spec.kind
    with pytest.raises(ModelLoadError, match="is read from safetensors only"):  # and no vectors of another kind
        answers(tmp_path / "out")
    inside = export_model(spec, spec.files.path, ExportOptions(check=False))  # its own folder stays as it is
    assert "_name_or_path" not in json.loads((spec.files.path / "config.json").read_text())
    assert inside.graph.is_file()


def test_a_name_of_the_hub_is_kept_whole(tmp_path: Path) -> None:
    folder = tmp_path / "models--naver--splade-tiny" / "snapshots" / "0123"
    save_masked(folder, "bert")
    copy = write_model(
        describe(ModelFiles("naver/splade-tiny", folder, "0123", "hf-cache")), "fp32", tmp_path / "c"
    ).path
    assert json.loads((copy / "config.json").read_text())["_name_or_path"] == "naver/splade-tiny"
    assert kind_of(copy) == "sparse"


def test_what_files_say_needs_no_name(tmp_path: Path) -> None:
    save_causal(tmp_path / "a-reranker", "qwen3", TEMPLATE)
    spec = describe(ModelFiles("a", tmp_path / "a-reranker", None, "folder"))
    copy = write_model(spec, "fp32", tmp_path / "small").path
    assert kind_of(copy) == "causal_reranker"
    assert "_name_or_path" not in json.loads((copy / "config.json").read_text())


def test_a_name_that_makes_another_model_is_refused(tmp_path: Path) -> None:
    save_masked(tmp_path / "plain", "bert")
    spec = describe(ModelFiles("plain", tmp_path / "plain", None, "folder"))
    with pytest.raises(ConfigError, match=r"no-splade: by its name this would be a sparse model, not dense"):
        write_model(spec, "fp32", tmp_path / "no-splade")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]
