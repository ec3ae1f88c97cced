"""A folder of files: parts in their places, of one schema."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from lemni.bulk.outputs import open_output
from lemni.errors import InvalidRequest
from tests.bulk.outputs.made import dense, ids, listed, parts, rows, shards, stacked, vectors, written


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("format", [None, "parquet", "arrow"])
def test_a_dataset_of_equal_parts_is_linked_and_not_copied(tmp_path: Path, work: Path, format: str | None) -> None:
    made = dense()
    given = shards(made, 3, 2, 4, year=[1, 2, 3, 4])
    output = open_output(f"{tmp_path}/out/", format=format)
    some = parts(output, given, made, work)
    files = output.assemble(some, made)
    kind = format or "parquet"
    assert [path.name for path in files] == [f"part-{number:05d}.{kind}" for number in range(3)]
    assert all(path.samefile(part) for path, part in zip(files, some, strict=True))
    found = pyarrow.dataset.dataset(str(tmp_path / "out"), format=kind).to_table()
    assert found["id"].to_pylist() == ids(given)
    assert found["year"].to_pylist() == [1, 2, 3, 1, 2, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.stack(found["embedding"].to_numpy()), stacked(given))
    assert found.schema.metadata[b"model"] == b"some/model"


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_parts_get_the_types_that_hold_all_of_them(tmp_path: Path, work: Path, format: str) -> None:
    made = dense()
    given = [
        (rows(0, 2, x=[1, 2], y=["a", None]), vectors(2, made)),
        (rows(2, 0), []),
        (rows(2, 2, ids=["a", "b"], x=[None, None]), vectors(2, made, 1)),
        (rows(4, 1, x=[0.5], z=[[1]]), vectors(1, made, 2)),
    ]
    output = open_output(f"{tmp_path}/out/", format=format)
    some = parts(output, given, made, work)
    before = [part.read_bytes() for part in some]
    files = output.assemble(some, made)
    assert [part.read_bytes() for part in some] == before
    read = pq.read_table if format == "parquet" else lambda path: pa.ipc.open_file(str(path)).read_all()
    tables = [read(path) for path in files]
    assert [len(table) for table in tables] == [2, 0, 2, 1]
    assert all(table.schema.equals(tables[0].schema, check_metadata=True) for table in tables)
    whole = pa.concat_tables(tables)
    assert {field.name: str(field.type) for field in whole.schema if field.name not in ("embedding", "z")} == {
        "id": "string",
        "text": "string",
        "x": "double",
        "y": "string",
    }
    assert whole["id"].to_pylist() == ["0", "1", "a", "b", "4"]
    assert whole["x"].to_pylist() == [1.0, 2.0, None, None, 0.5]
    assert whole["z"].to_pylist() == [None, None, None, None, [1]]
    np.testing.assert_array_equal(np.stack(whole["embedding"].to_numpy()), np.stack(listed(given)))


def test_the_other_formats(tmp_path: Path, work: Path) -> None:
    made = dense("float16")
    given = [(rows(0, 2), vectors(2, made)), (rows(2, 2, ids=["a", "bc"]), vectors(2, made, 1))]
    for format in ("npy", "npz", "jsonl", "safetensors"):
        written(open_output(f"{tmp_path}/{format}/", format=format), given, made, work)
    first = "part-00000"
    assert names(tmp_path / "npy") == [f"{first}.ids.npy", f"{first}.npy", "part-00001.ids.npy", "part-00001.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "npy/part-00001.npy"), listed(given)[2:])
    # One type of ids in all files.
    assert np.load(tmp_path / f"npy/{first}.ids.npy").tolist() == ["0", "1"]
    assert np.load(tmp_path / "npz/part-00001.npz")["ids"].tolist() == ["a", "bc"]
    tensors = load_file(tmp_path / f"safetensors/{first}.safetensors")
    assert tensors["ids_utf8"].tobytes() == b"01"
    assert tensors["ids_offsets"].tolist() == [0, 1, 2]
    lines = (tmp_path / f"jsonl/{first}.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [0, 1]


def test_what_an_earlier_run_left_goes_and_the_rest_stays(tmp_path: Path, work: Path) -> None:
    made = dense()
    out = tmp_path / "out"
    out.mkdir()
    (out / "part-notes.parquet").write_text("mine")
    (out / "README").write_text("mine")
    output = open_output(str(out), format="parquet")
    first = [out / f"part-{number:05d}.parquet" for number in range(3)]
    assert output.files() == first[:1]
    assert written(output, shards(made, 2, 2, 2), made, work) == first
    assert output.files() == first
    written(output, shards(made, 3, 1), made, tmp_path / "again")
    assert names(out) == ["README", "part-00000.parquet", "part-00001.parquet", "part-notes.parquet"]
    assert pq.read_table(out / "part-00000.parquet").num_rows == 3


def test_a_job_without_rows_has_a_schema(tmp_path: Path, work: Path) -> None:
    made = dense()
    for number, given in enumerate(([], [(rows(0, 0), [])])):
        files = written(open_output(f"{tmp_path}/{number}/"), given, made, work)
        assert [path.name for path in files] == ["part-00000.parquet"]
        assert pq.read_table(files[0]).schema.names == ["id", "text", "embedding"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InvalidRequest, match="not a folder"):
        open_output(f"{tmp_path}/out/").prepare(dense())
    with pytest.raises(InvalidRequest, match="numpy is no folder"):
        open_output(f"{tmp_path}/out/", format="numpy")
