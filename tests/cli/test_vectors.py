"""The files that `lemni embed -o` writes, read back by those who read them elsewhere."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from lemni.cli.vectors import FileWriter, JsonLines, Preview
from lemni.errors import MissingExtra

TEXTS = ["a", "ü 😀", "", "line\nbreak", "e"]
VECTORS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def write(path: Path) -> None:
    with FileWriter(path, len(TEXTS)) as writer:
        writer.write(TEXTS[:2], VECTORS[:2])
        writer.write(TEXTS[2:], VECTORS[2:])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_npy(tmp_path: Path) -> None:
    write(tmp_path / "v.npy")
    back = np.load(tmp_path / "v.npy")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, VECTORS)


@pytest.mark.parametrize("name", ["v.jsonl", "v.NDJSON"])
def test_json_lines_lose_nothing(tmp_path: Path, name: str) -> None:
    write(tmp_path / name)
    rows = [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").split("\n")[:-1]]
    assert [row["text"] for row in rows] == TEXTS
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], dtype=np.float32), VECTORS)


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "v.parquet")
    table = parquet.read_table(tmp_path / "v.parquet")
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("text", "string"),
        ("embedding", "fixed_size_list<element: float>[3]"),
    ]
    assert table["text"].to_pylist() == TEXTS
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), dtype=np.float32), VECTORS)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'lemni\[parquet\]'"):
        FileWriter(tmp_path / "v.parquet", 1)


@pytest.mark.parametrize("name", ["v.npy", "v.jsonl", "v.parquet"])
def test_a_failed_run_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("before")

    def interrupted() -> None:
        with FileWriter(tmp_path / name, len(TEXTS)) as writer:
            writer.write(TEXTS[:2], VECTORS[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "before")]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match=r"must end in one of \.npy, \.jsonl, \.ndjson, \.parquet"):
        FileWriter(tmp_path / "v.csv", 1)
    with pytest.raises(click.UsageError, match="no such folder"):
        FileWriter(tmp_path / "none" / "v.npy", 1)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(click.UsageError, match="is a folder"):
        FileWriter(tmp_path / "folder.npy", 1)


def test_standard_output() -> None:
    stream = io.BytesIO()
    JsonLines(stream).write(['a\n"b"'], np.array([[0.1, -2]], dtype=np.float32))
    assert stream.getvalue() == b'{"text":"a\\n\\"b\\"","embedding":[0.1,-2.0]}\n'


def test_preview(capsys: pytest.CaptureFixture[str]) -> None:
    Preview().write(["short\ntext", "x" * 99], np.array([[1, 0], [0.25, -1]], dtype=np.float32))
    Preview().write(["many"], np.arange(6, dtype=np.float32)[None])
    assert capsys.readouterr().out.splitlines() == [
        "short text  2 dimensions  [+1.0000, +0.0000]",
        f"{'x' * 39}…  2 dimensions  [+0.2500, -1.0000]",
        "many  6 dimensions  [+0.0000, +1.0000, +2.0000, +3.0000, …]",
    ]
