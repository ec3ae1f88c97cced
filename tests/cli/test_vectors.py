"""The files that `lemni embed -o` writes, read back by those who read them elsewhere."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from lemni.cli.drafts import check_place
from lemni.cli.rows import JsonLines
from lemni.cli.vectors import ENDINGS, Preview, VectorRows, Vectors, check_holds, file_writer
from lemni.errors import MissingExtra
from lemni.types import SparseVector

TEXTS = ["a", "ü 😀", "", "line\nbreak", "e"]
VECTORS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


def write(path: Path, vectors: Vectors = VECTORS) -> None:
    with file_writer(path, len(TEXTS)) as writer:
        writer.write(TEXTS[:2], vectors[:2])
        writer.write(TEXTS[2:], vectors[2:])
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


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8"])
def test_other_number_types(dtype: str, tmp_path: Path) -> None:
    vectors = (VECTORS * 40).astype(np.int8).astype(dtype)
    write(tmp_path / "v.npy", vectors)
    back = np.load(tmp_path / "v.npy")
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, vectors)
    (tmp_path / "v.npy").unlink()
    write(tmp_path / "v.jsonl", vectors)
    rows = (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()
    np.testing.assert_array_equal(np.array([json.loads(row)["embedding"] for row in rows], dtype), vectors)
    (tmp_path / "v.jsonl").unlink()
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path / "v.parquet", vectors)
    column = parquet.read_table(tmp_path / "v.parquet")["embedding"]
    assert str(column.type) == f"fixed_size_list<element: {dtype.replace('float16', 'halffloat')}>[3]"
    np.testing.assert_array_equal(np.array(column.to_pylist(), dtype), vectors)


SPARSE = [
    SparseVector(np.array(ids, np.int32), np.array(values, np.float32))
    for ids, values in [([3, 9], [0.5, 0.1]), ([], []), ([1], [2.0]), ([4], [0.25]), ([0, 5, 7], [1, 2, 3])]
]
MATRICES = [VECTORS[:n] for n in (2, 1, 3, 5, 1)]


def test_sparse_vectors(tmp_path: Path) -> None:
    write(tmp_path / "v.npz", SPARSE)
    back = np.load(tmp_path / "v.npz")
    assert {name: back[name].dtype for name in back} == {"lengths": "int32", "indices": "int32", "values": "float32"}
    starts = np.append(0, back["lengths"].cumsum())
    matrix = csr_matrix((back["values"], back["indices"], starts), shape=(5, 10)).toarray()
    for row, (ids, values) in zip(matrix, SPARSE, strict=True):
        np.testing.assert_array_equal(row[ids], values)
        assert np.count_nonzero(row) == len(ids)
    (tmp_path / "v.npz").unlink()
    write(tmp_path / "v.jsonl", SPARSE)
    rows = [json.loads(row) for row in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["embedding"] for row in rows[:2]] == [
        {"indices": [3, 9], "values": [0.5, 0.1]},
        {"indices": [], "values": []},
    ]


def test_multi_vectors(tmp_path: Path) -> None:
    write(tmp_path / "v.npz", MATRICES)
    back = np.load(tmp_path / "v.npz")
    parts = np.split(back["vectors"], np.cumsum(back["lengths"])[:-1])
    for part, matrix in zip(parts, MATRICES, strict=True):
        np.testing.assert_array_equal(part, matrix)
    (tmp_path / "v.npz").unlink()
    write(tmp_path / "v.jsonl", MATRICES)
    rows = [json.loads(row) for row in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, matrix in zip(rows, MATRICES, strict=True):
        np.testing.assert_array_equal(np.array(row["embedding"], np.float32), matrix)


def test_files_that_do_not_hold_what_a_model_gives() -> None:
    with pytest.raises(click.UsageError, match=r"m gives sparse vectors, which are written to \.npz, "):
        check_holds(Path("v.npy"), "sparse", "m")
    with pytest.raises(click.UsageError, match="m gives a vector per token, "):
        check_holds(Path("v.parquet"), "multi_vector", "m")
    with pytest.raises(click.UsageError, match="m gives dense vectors, "):
        check_holds(Path("v.npz"), "embed", "m")
    for name, task in (("v.npy", "embed"), ("v.npz", "sparse"), ("v.JSONL", "multi_vector")):
        check_holds(Path(name), task, "m")  # type: ignore[arg-type]


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtra, match=r"pip install 'lemni\[parquet\]'"):
        file_writer(tmp_path / "v.parquet", 1)


@pytest.mark.parametrize("name", ["v.npy", "v.jsonl", "v.parquet"])
def test_a_failed_run_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("before")

    def interrupted() -> None:
        with file_writer(tmp_path / name, len(TEXTS)) as writer:
            writer.write(TEXTS[:2], VECTORS[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "before")]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match=r"must end in one of \.npy, \.npz, \.jsonl, \.ndjson, \.parquet"):
        check_place(tmp_path / "v.csv", ENDINGS)
    with pytest.raises(click.UsageError, match="no such folder"):
        check_place(tmp_path / "none" / "v.npy", ENDINGS)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(click.UsageError, match="is a folder"):
        check_place(tmp_path / "folder.npy", ENDINGS)


def test_standard_output() -> None:
    stream = io.BytesIO()
    VectorRows(JsonLines(stream)).write(['a\n"b"'], np.array([[0.1, -2]], dtype=np.float32))
    assert stream.getvalue() == b'{"text":"a\\n\\"b\\"","embedding":[0.1,-2.0]}\n'


def test_preview(capsys: pytest.CaptureFixture[str]) -> None:
    Preview().write(["short\ntext", "x" * 99], np.array([[1, 0], [0.25, -1]], dtype=np.float32))
    Preview().write(["many"], np.arange(6, dtype=np.float32)[None])
    Preview().write(["codes"], np.array([[-3, 7]], dtype=np.int8))
    Preview().write(["terms", "none"], [SPARSE[4], SPARSE[1]])
    Preview().write(["\x1b[2Jtokens"], [np.arange(6, dtype=np.float32).reshape(2, 3)])
    assert capsys.readouterr().out.splitlines() == [
        "short text  2 dimensions  [+1.0000, +0.0000]",
        f"{'x' * 39}…  2 dimensions  [+0.2500, -1.0000]",
        "many  6 dimensions  [+0.0000, +1.0000, +2.0000, +3.0000, …]",
        "codes  2 integers  [-3, 7]",
        "terms  3 terms  [7: 3.0000, 5: 2.0000, 0: 1.0000]",
        "none  0 terms  []",
        "\ufffd[2Jtokens  2 vectors of 3 dimensions  [+0.0000, +1.0000, +2.0000, +3.0000, …]",
    ]
