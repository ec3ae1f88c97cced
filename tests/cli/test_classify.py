"""`lemni classify` with tiny classifiers, in processes of its own, against transformers' pipeline."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.hub import ModelFiles

from .command import COMMAND, environment, error_line, lemni

TEXTS = ["a cat", "", "the longer text of them all", "buy it now"]
PAIRS = [("a cat sits", "an animal rests"), ("no", "yes and more words")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tests.tasks.classifiers import save_classifier

    parent = tmp_path_factory.mktemp("classifier")
    save_classifier(parent / "model", "bert", labels=4, id2label=dict(enumerate(["ham", "spam", "eggs", "other"])))
    return parent


def reference(folder: Path, inputs: Any) -> list[list[dict[str, Any]]]:
    from transformers import pipeline

    found: list[list[dict[str, Any]]] = pipeline("text-classification", str(folder / "model"), device="cpu")(
        inputs, top_k=None
    )
    return found


def rows_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def check(rows: list[dict[str, Any]], expected: list[list[dict[str, Any]]]) -> None:
    for row, labels in zip(rows, expected, strict=True):
        assert [label["label"] for label in row["labels"]] == [label["label"] for label in labels]
        scores = [label["score"] for label in labels]
        np.testing.assert_allclose([label["score"] for label in row["labels"]], scores, atol=1e-5)


@pytest.mark.torch
def test_labels_are_those_of_the_pipeline(folder: Path) -> None:
    rows = rows_of(lemni("classify", *TEXTS, "-m", "./model", cwd=folder).stdout)
    check(rows, reference(folder, TEXTS))
    assert [(row["index"], row["text"]) for row in rows] == list(enumerate(TEXTS))
    assert set(rows[0]) == {"index", "text", "labels"}
    best = rows_of(lemni("classify", *TEXTS, "-m", "./model", "--top-k", "1", cwd=folder).stdout)
    assert [row["labels"] for row in best] == [row["labels"][:1] for row in rows]
    raw = rows_of(lemni("classify", *TEXTS, "-m", "./model", "--raw", cwd=folder).stdout)
    for logits, row in zip(raw, rows, strict=True):
        powers = np.exp([label["score"] for label in logits["labels"]])
        np.testing.assert_allclose(powers / powers.sum(), [label["score"] for label in row["labels"]], atol=1e-5)


@pytest.mark.torch
def test_pairs_in_a_file(folder: Path, tmp_path: Path) -> None:
    lines = [{"text": first, "text_pair": second, "id": 2**70} for first, second in PAIRS]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"text": "alone"}]))
    done = lemni("classify", "-i", str(file), "-m", "./model", "-o", str(tmp_path / "out.jsonl"), cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = rows_of((tmp_path / "out.jsonl").read_text())
    pairs = [{"text": first, "text_pair": second} for first, second in PAIRS]
    check(rows, [*(reference(folder, [pair])[0] for pair in pairs), *reference(folder, ["alone"])])
    assert [(row["text"], row["text_pair"], row["id"]) for row in rows[:2]] == [(*pair, 2**70) for pair in PAIRS]
    assert set(rows[2]) == {"index", "text", "labels"}


@pytest.mark.torch
def test_many_lines_keep_their_order(folder: Path) -> None:
    lines = [f"number {n}" for n in range(600)]
    rows = rows_of(lemni("classify", "-", "-m", "./model", cwd=folder, stdin="\n".join(lines).encode()).stdout)
    assert [(row["index"], row["text"]) for row in rows] == list(enumerate(lines))


@pytest.mark.torch
def test_a_terminal_gets_the_best_labels(folder: Path) -> None:
    mine, its = pty.openpty()
    command = [*COMMAND, "classify", "a cat", "-m", "./model"]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=its, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    os.close(its)
    [line] = os.read(mine, 4096).decode().splitlines()
    os.close(mine)
    assert (process.returncode, err) == (0, b"")
    [labels] = reference(folder, ["a cat"])
    best = [f"{label['label']} {label['score']:.4f}" for label in labels[:3]]
    assert line == f"a cat  {', '.join(best)}, …"


@pytest.mark.torch
def test_a_text_that_is_refused_is_named(folder: Path) -> None:
    line = error_line(lemni("classify", "x", "word " * 90, "-m", "./model", "--truncate", "error", cwd=folder))
    assert line.startswith("text 2 ('word word word word word word word word…') has ")


def test_the_default_model_says_what_is_needed(minilm: ModelFiles, tmp_path: Path) -> None:
    line = error_line(lemni("classify", "x", "-m", str(minilm.path), cwd=tmp_path))
    assert "does not do classification; it does embeddings, reranking" in line
    assert "Name a model for sequence classification with --model: a folder or a hub id, such as " in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a text, a file, or - for standard input."),
        (["-i", "-"], "there are no texts in -."),
        (["x", "-o", "v.parquet"], "v.parquet: the name must end in one of .jsonl, .ndjson."),
        (["x", "--top-k", "0"], "Invalid value for '--top-k': 0 is not in the range x>=1."),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert error_line(lemni("classify", *arguments, cwd=tmp_path)).startswith(message)
