"""JSON lines, and the formats of the seed's migration script, read back with json and pyarrow."""

from __future__ import annotations

import base64
import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lemni.bulk.outputs import Made, open_output
from lemni.bulk.rows import Rows
from lemni.errors import InvalidRequest
from tests.bulk.outputs.made import MULTI, SPARSE, TYPES, WIDTH, dense, listed, rows, shards, vectors, written


def lines(path: Path) -> list[dict[str, Any]]:
    def no(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=no) for line in path.read_bytes().splitlines()]


def as_json(vector: Any, made: Made) -> Any:
    """What a vector is in JSON, by numpy alone."""
    if made.task == "sparse":
        return {"indices": vector.indices.tolist(), "values": vector.values.tolist()}
    return vector.tolist()


def exact(found: Any, dtype: str) -> Any:
    """Numbers back in the type that they had: the digits are enough if they are the same then."""
    if isinstance(found, dict):
        return {**found, "values": exact(found["values"], dtype)}
    if found and isinstance(found[0], list):
        return [exact(one, dtype) for one in found]
    return np.array(found, dtype).tolist()


@pytest.mark.parametrize("made", [*(dense(one) for one in TYPES), SPARSE, MULTI], ids=[*TYPES, "sparse", "multi"])
def test_jsonl(tmp_path: Path, work: Path, made: Made) -> None:
    given = shards(made, 3, 0, 5)
    output = open_output(f"{tmp_path}/v.jsonl", vector_column="vector")
    assert written(output, given, made, work) == [tmp_path / "v.jsonl"]
    found = lines(tmp_path / "v.jsonl")
    assert [list(row) for row in found] == [["id", "text", "vector"]] * 8
    assert [row["id"] for row in found] == list(range(8))
    assert [row["text"] for row in found] == [text for some, _ in given for text in some.texts]
    assert [exact(row["vector"], made.dtype) for row in found] == [as_json(one, made) for one in listed(given)]


def test_a_float_has_no_more_digits_than_it_needs(tmp_path: Path, work: Path) -> None:
    made = dense()
    given = [(rows(0, 1), np.full((1, WIDTH), 0.1, np.float32))]
    written(open_output(f"{tmp_path}/v.jsonl"), given, made, work)
    assert (tmp_path / "v.jsonl").read_bytes().endswith(b"[" + b",".join([b"0.1"] * WIDTH) + b"]}\n")


def test_cells_of_every_kind(tmp_path: Path, work: Path) -> None:
    made = dense()
    cells = {
        "null": (None, None),
        "nan": (float("nan"), None),
        "large": (2**70, 2**70),
        "nested": ({"a": [1, None, {"b": "猫"}], 3: "three"}, {"a": [1, None, {"b": "猫"}], "3": "three"}),
        "time": (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        "day": (datetime.date(2026, 1, 2), "2026-01-02"),
        "decimal": (decimal.Decimal("1.50"), "1.50"),
        "bytes": (b"\0\xff", base64.b64encode(b"\0\xff").decode()),
        "surrogate": ("\ud800", "\ud800"),
        "array": (np.arange(3), [0, 1, 2]),
        "bool": (True, True),
        "number": (1.5, 1.5),
    }
    for some in (cells, {name: cell for name, cell in cells.items() if name not in ("large", "surrogate")}):
        one = rows(0, 1, ids=["x"], **{name: [cell] for name, (cell, _) in some.items()})
        written(open_output(f"{tmp_path}/v.jsonl"), [(one, vectors(1, made))], made, work)
        [found] = lines(tmp_path / "v.jsonl")
        assert exact(found.pop("embedding"), "float32") == vectors(1, made)[0].tolist()
        assert found.pop("id") == "x"
        assert found.pop("text") == one.texts[0]
        assert found == {name: expected for name, (_, expected) in some.items()}


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "arrow", "lance"])
def test_a_carried_column_with_a_name_of_the_outputs_own(tmp_path: Path, ending: str) -> None:
    output = open_output(f"{tmp_path}/v.{ending}", vector_column="vector")
    for name, option in (("vector", "--vector-column"), ("id", "--carry"), ("text", "--carry")):
        with pytest.raises(InvalidRequest, match=f"'{name}'.*{option}"):
            output.write(tmp_path / "part", rows(0, 1, **{name: [1]}), vectors(1, dense()), dense())
    output.write(tmp_path / "part", rows(0, 1, embedding=[1]), vectors(1, dense()), dense())


def chroma(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_format_chroma(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dense()
    given = shards(made, 2, 0, 3)
    some = given[0][0]
    given[0] = (
        Rows(0, [7, "own"], some.items, ["one", None], [{"a": 1, "b": None, "c": float("nan")}, {}]),
        given[0][1],
    )
    monkeypatch.chdir(tmp_path)
    assert written(open_output("", format="chroma"), given, made, work) == [Path("chroma_export/chroma_data.json")]
    found = chroma(tmp_path / "chroma_export/chroma_data.json")
    assert list(found) == ["ids", "documents", "embeddings", "metadatas"]
    assert found["ids"] == ["doc_7", "own", "doc_2", "doc_3", "doc_4"]
    assert found["documents"] == ["one", None, *given[2][0].texts]
    assert found["metadatas"] == [{"a": 1}, {}, {}, {}, {}]
    assert exact(found["embeddings"], "float32") == [one.tolist() for one in listed(given)]
    for place, file in (("other", "other/chroma_data.json"), ("x.json", "x.json")):
        assert open_output(place, format="chroma").files() == [Path(file)]
    for none in ([], [(rows(0, 0), [])]):
        written(open_output("empty", format="chroma"), none, made, work)
        assert chroma(tmp_path / "empty/chroma_data.json") == {
            "ids": [], "documents": [], "embeddings": [], "metadatas": [],
        }  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"chroma holds .*, not ubinary"):
        open_output("", format="chroma").prepare(dense("ubinary"))


def test_chroma_takes_the_export(tmp_path: Path, work: Path) -> None:
    import chromadb

    made = dense()
    given = shards(made, 3, 2, year=[1, 2, 3])[:1]
    written(open_output(str(tmp_path), format="chroma"), given, made, work)
    collection = chromadb.EphemeralClient().create_collection("export")
    collection.add(**chroma(tmp_path / "chroma_data.json"))
    found = collection.get(["doc_2"], include=["documents", "metadatas", "embeddings"])
    assert found["documents"] == [given[0][0].texts[2]]
    assert found["metadatas"] == [{"year": 3}]
    np.testing.assert_array_equal(np.asarray(found["embeddings"], np.float32)[0], listed(given)[2])


CARRIED = {
    "a": [1, None, 2.5],
    "tags": [["x", "y"], None, []],
    "nested": [{"deep": 1}, None, [1, "x"]],
    "when": [datetime.date(2026, 1, 2), None, None],
    "good": [True, False, None],
    "share": [float("nan"), float("inf"), None],
}
METADATA = [
    {"a": 1, "tags": ["x", "y"], "nested": '{"deep":1}', "when": "2026-01-02", "good": True},
    {"good": False},
    {"a": 2.5, "tags": [], "nested": '[1,"x"]'},
]


@pytest.mark.parametrize("made", [dense(), dense("int8"), SPARSE], ids=["float32", "int8", "sparse"])
def test_format_pinecone(tmp_path: Path, work: Path, made: Made) -> None:
    given = [
        (rows(0, 3, **CARRIED), vectors(3, made)),
        (rows(3, 0), vectors(0, made)),
        (rows(3, 2, ids=["x", "y"]), vectors(2, made, 1)),
    ]
    texts = [text for some, _ in given for text in some.texts]
    metadata = [{**one, "text": text} for one, text in zip([*METADATA, {}, {}], texts, strict=True)]
    name = "sparse_values" if made.task == "sparse" else "values"
    expected = [
        {"id": one, name: as_json(vector, made), "metadata": data}
        for one, vector, data in zip(["doc_0", "doc_1", "doc_2", "x", "y"], listed(given), metadata, strict=True)
    ]

    def plain(found: Any) -> Any:
        return [{**row, name: exact(row[name], made.dtype)} for row in found]

    written(open_output(f"{tmp_path}/p.json", format="pinecone"), given, made, work)
    assert plain(json.loads((tmp_path / "p.json").read_bytes())) == expected
    written(open_output(f"{tmp_path}/p.jsonl", format="pinecone"), given, made, work)
    assert plain(lines(tmp_path / "p.jsonl")) == expected
    for place in ("p.parquet", "folder/"):
        files = written(open_output(f"{tmp_path}/{place}", format="pinecone"), given, made, work)
        tables = [pq.read_table(path) for path in files]
        values: Any = pa.list_(pa.float32())
        if made.task == "sparse":
            values = pa.struct([("indices", pa.list_(pa.uint32())), ("values", values)])
        kinds = [("id", pa.string()), (name, values), ("metadata", pa.string())]
        assert all([(field.name, field.type) for field in table.schema] == kinds for table in tables)
        found = [{**row, "metadata": json.loads(row["metadata"])} for table in tables for row in table.to_pylist()]
        assert plain(found) == expected
    for none in ([], [(rows(0, 0), [])]):
        written(open_output(f"{tmp_path}/p.json", format="pinecone"), none, made, work)
        assert json.loads((tmp_path / "p.json").read_bytes()) == []


def test_pinecones_metadata_has_one_text(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"'text'.*--carry"):
        open_output("", format="pinecone").write(
            tmp_path / "part", rows(0, 1, text=["mine"]), vectors(1, dense()), dense()
        )
    assert open_output("", format="pinecone").files() == [Path("pinecone_vectors.json")]
