"""`lemni rerank` with the real default model and a tiny cross-encoder, in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import struct
import subprocess
import termios
from fcntl import ioctl
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.cli.terminal import shortened
from lemni.hub import ModelFiles

from .command import COMMAND, environment, error_line, lemni

QUERY = "Where do cats sleep?"
DOCUMENTS = ["Rust is a language.", "Cats sleep on sofas.", "", "A cat and its bed, " * 40]


def rows_of(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.torch
def test_the_default_model_scores_by_cosine(minilm: ModelFiles, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm.path), device="cpu")
    expected = model.encode(DOCUMENTS) @ model.encode(QUERY)
    rows = rows_of(lemni("rerank", QUERY, *DOCUMENTS, "-m", str(minilm.path), cwd=tmp_path).stdout)
    order = np.argsort(-expected).tolist()
    assert [row["index"] for row in rows] == order
    assert [row["text"] for row in rows] == [DOCUMENTS[place] for place in order]
    np.testing.assert_allclose([row["score"] for row in rows], expected[order], atol=1e-5)
    assert set(rows[0]) == {"index", "score", "text"}


@pytest.mark.torch
def test_a_cross_encoder_scores_as_its_reference_does(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    from tests.tasks.classifiers import save_classifier

    save_classifier(tmp_path / "model", "bert")
    model = CrossEncoder(str(tmp_path / "model"), device="cpu")
    documents = ["the cat", "a b c", "", "some words and more of them"]
    lines = [{"body": text, "id": f"doc {n}"} for n, text in enumerate(documents)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ("rerank", "who is it", "-i", "rows.jsonl", "--field", "body", "-m", "./model")
    done = lemni(*asked, "-o", "ranked.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = rows_of((tmp_path / "ranked.jsonl").read_text())
    expected = model.rank("who is it", documents)
    assert [(row["index"], row["id"]) for row in rows] == [
        (one["corpus_id"], f"doc {one['corpus_id']}") for one in expected
    ]
    np.testing.assert_allclose([row["score"] for row in rows], [one["score"] for one in expected], atol=1e-5)
    raw = rows_of(lemni(*asked, "--raw", "--top-n", "2", cwd=tmp_path).stdout)
    scores = [one["score"] for one in expected[:2]]
    np.testing.assert_allclose([row["score"] for row in raw], np.log(scores) - np.log1p(np.negative(scores)), atol=1e-4)
    line = error_line(lemni("rerank", "q", "x", "word " * 90, "-m", "./model", "--truncate", "error", cwd=tmp_path))
    assert line.startswith("document 2 ('word word word word word word word word…') has ")


def test_many_lines_of_standard_input(minilm: ModelFiles, tmp_path: Path) -> None:
    lines = [f"number {n}" for n in range(600)]
    asked = ("rerank", "number 431", "-", "-m", str(minilm.path), "--top-n", "3", "--progress")
    done = lemni(*asked, cwd=tmp_path, stdin="\n".join(lines).encode())
    rows = rows_of(done.stdout)
    assert len(rows) == 3
    assert (rows[0]["index"], rows[0]["text"]) == (431, "number 431")
    assert rows[0]["score"] == pytest.approx(1, abs=1e-5)
    assert "600/600" in done.stderr


def test_a_terminal_gets_a_table_of_its_width(minilm: ModelFiles, tmp_path: Path) -> None:
    mine, its = pty.openpty()
    ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    env = {name: value for name, value in environment().items() if name != "COLUMNS"}
    command = [*COMMAND, "rerank", QUERY, *DOCUMENTS, "-m", str(minilm.path)]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=its, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    os.close(its)
    head, *lines = os.read(mine, 4096).decode().splitlines()
    os.close(mine)
    assert (process.returncode, err) == (0, b"")
    assert head == "RANK   SCORE  INDEX  DOCUMENT"
    assert [line[:4] for line in lines] == ["   1", "   2", "   3", "   4"]
    long = next(line for line in lines if line.endswith("…"))
    assert len(long) == 60
    assert long[21:].startswith("A cat and its bed, A cat")


def test_texts_are_shortened_by_what_they_take_on_a_terminal() -> None:
    assert shortened("two\n words ", 9) == "two words"
    assert shortened("two words", 8) == "two wor…"
    assert shortened("猫はソファ", 10) == "猫はソファ"
    assert shortened("猫はソファ", 9) == "猫はソフ…"
    assert shortened("猫はソファ", 8) == "猫はソ…"
    assert shortened("e\u0301" * 3, 3) == "e\u0301" * 3
    assert shortened("\x1b[31m\u202ered", 8) == "\ufffd[31mred"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'QUERY'."),
        (["q"], "give documents, a file, or - for standard input."),
        (["q", "-"], "there are no documents in -."),
        (["q", "-i", "none.txt"], "none.txt: cannot be read: No such file or directory."),
        (["q", "x", "-o", "v.npy"], "v.npy: the name must end in one of .jsonl, .ndjson."),
        (["q", "x", "--top-n", "0"], "Invalid value for '--top-n': 0 is not in the range x>=1."),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert error_line(lemni("rerank", *arguments, cwd=tmp_path)).startswith(message)


@pytest.mark.torch
def test_a_model_that_does_not_score(tmp_path: Path) -> None:
    from tests.tasks.classifiers import save_classifier

    save_classifier(tmp_path / "nli", "bert", labels=3)
    line = error_line(lemni("rerank", "q", "x", "-m", "./nli", "-o", "v.jsonl", cwd=tmp_path))
    assert line.startswith(
        "nli does not do reranking; it does classification. Name a model that scores pairs with --model"
    )
    assert not (tmp_path / "v.jsonl").exists()
