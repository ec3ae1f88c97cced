"""`migrate_embeddings.py`: its files, against sentence-transformers on the same texts, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from lemni import hub
from tests.examples.comparison import EXAMPLES

TEXTS = ["How do I reset my password?", "On the sofa.", "Ein Satz mit Ümlauten", "word " * 400]
IDS = ["a", "b", "7", "ü"]
METADATA = [{"year": 1999}, {"tag": "x", "good": True}, {}, {"score": 0.5}]


@pytest.fixture(scope="module")
def expected(minilm: hub.ModelFiles) -> np.ndarray:
    return SentenceTransformer(str(minilm.path), device="cpu").encode(TEXTS, normalize_embeddings=True)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n", "utf-8")
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    return tmp_path


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "migrate_embeddings.py"), "--model", "all-MiniLM-L6-v2", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240)


def test_numpy(inputs: Path, expected: np.ndarray) -> None:
    done = run(inputs, "--input", "texts.json", "--output", "new.npy", "--batch-size", "2")
    assert done.returncode == 0, done.stderr
    vectors = np.load(inputs / "new.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    about = json.loads((inputs / "new.json").read_text())
    assert about == {"model": "all-MiniLM-L6-v2", "dimension": 384, "num_embeddings": 4, "texts_file": None}
    (inputs / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    done = run(inputs, "--input", "rows.jsonl")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(inputs / "embeddings_rows.npy"), expected, atol=1e-5)


def test_chroma(inputs: Path, expected: np.ndarray) -> None:
    files = ("--ids-file", "ids.txt", "--metadata-file", "metadata.json")
    done = run(inputs, "--input", "texts.json", "--format", "chroma", "--output", "elsewhere", *files)
    assert done.returncode == 0, done.stderr
    found = json.loads((inputs / "chroma_export" / "chroma_data.json").read_text("utf-8"))
    assert list(found) == ["ids", "documents", "embeddings", "metadatas"]
    assert (found["ids"], found["documents"], found["metadatas"]) == (IDS, TEXTS, METADATA)
    np.testing.assert_allclose(found["embeddings"], expected, atol=1e-5)
    assert not (inputs / "elsewhere").exists()
    (inputs / "named.json").write_text(json.dumps({"one": TEXTS[0], "two": {"text": TEXTS[1]}}))
    done = run(inputs, "--input", "named.json", "--format", "chroma")
    assert done.returncode == 0, done.stderr
    found = json.loads((inputs / "chroma_export" / "chroma_data.json").read_text("utf-8"))
    assert (found["ids"], found["documents"], found["metadatas"]) == (["doc_0", "doc_1"], TEXTS[:2], [{}, {}])


def test_pinecone(inputs: Path, expected: np.ndarray) -> None:
    files = ("--ids-file", "ids.txt", "--metadata-file", "metadata.json")
    done = run(inputs, "--input", "texts.json", "--format", "pinecone", *files)
    assert done.returncode == 0, done.stderr
    found = json.loads((inputs / "pinecone_vectors.json").read_text("utf-8"))
    assert [one["id"] for one in found] == IDS
    assert [one["metadata"] for one in found] == [
        {**data, "text": text} for data, text in zip(METADATA, TEXTS, strict=True)
    ]
    np.testing.assert_allclose([one["values"] for one in found], expected, atol=1e-5)
    (inputs / "plain.txt").write_text("\n".join([TEXTS[0], "", "  ", TEXTS[1]]))
    done = run(inputs, "--input", "plain.txt", "--format", "pinecone", "--output", "p.json")
    assert done.returncode == 0, done.stderr
    assert [one["metadata"]["text"] for one in json.loads((inputs / "p.json").read_text())] == TEXTS[:2]


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ([{"text": "a"}, {"body": "b"}], (), "texts.json: row 1: has no text"),
        (["a", ""], (), "texts.json: row 1: has no text"),
        (TEXTS[:3], ("--ids-file", "ids.txt"), "ids.txt: has 4 entries, and there are 3 texts"),
        (TEXTS[:3], ("--metadata-file", "metadata.json"), "metadata.json: has 4 entries, and there are 3 texts"),
        (TEXTS, ("--output", "texts.npy"), "texts.json: would be overwritten"),
        (
            TEXTS,
            ("--format", "pinecone", "--output", "metadata.json", "--metadata-file", "metadata.json"),
            "overwritten",
        ),
    ],
)
def test_what_would_lose_something_is_refused(
    content: object, arguments: tuple[str, ...], message: str, inputs: Path
) -> None:
    given = json.dumps(content)
    (inputs / "texts.json").write_text(given)
    done = run(inputs, "--input", "texts.json", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert (inputs / "texts.json").read_text() == given
    assert not list(inputs.glob("*.npy"))


def test_another_ending_is_refused(inputs: Path) -> None:
    (inputs / "texts.csv").write_text("text\na\n")
    done = run(inputs, "--input", "texts.csv")
    assert "Unsupported file format: .csv" in done.stderr
