"""parquet, Arrow and Lance, read back with pyarrow and lance: values and types."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from lemni.bulk.outputs import Made, open_output
from lemni.errors import InvalidRequest
from tests.bulk.outputs.made import DTYPES, MULTI, SPARSE, TYPES, WIDTH, dense, listed, rows, shards, vectors, written

READ: dict[str, Callable[[str], Any]] = {
    "parquet": pq.read_table,
    "arrow": lambda path: pa.ipc.open_file(pa.memory_map(path)).read_all(),
    "feather": pa.feather.read_table,
    "lance": lambda path: lance.dataset(path).to_table(),
}
ENDINGS = list(READ)


def table(tmp_path: Path, ending: str, given: Any, made: Made, **how: Any) -> Any:
    path = tmp_path / f"v.{ending}"
    assert written(open_output(str(path), **how), given, made, tmp_path / "work") == [path]
    return READ[ending](str(path))


def vector_type(made: Made) -> Any:
    """Written down anew, not asked of the code."""
    if made.task == "sparse":
        return pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
    width = WIDTH // 8 if made.output_type in DTYPES else WIDTH
    numbers = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "uint8": pa.uint8()}
    kind = pa.list_(numbers[made.dtype], width)
    return pa.list_(kind) if made.task == "multi_vector" else kind


def cells(column: Any) -> list[Any]:
    return [
        {name: [float(one) for one in values] for name, values in cell.items()} if isinstance(cell, dict) else cell
        for cell in column.to_pylist()
    ]


def expected_cells(given: Any, made: Made) -> list[Any]:
    return [
        {name: [float(one) for one in values] for name, values in vector._asdict().items()}
        if made.task == "sparse"
        else vector.tolist()
        for vector in listed(given)
    ]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "made", [*(dense(one) for one in TYPES), SPARSE, MULTI, replace(MULTI, dtype="float16", output_type="float16")]
)
def test_vectors_and_their_types(tmp_path: Path, ending: str, made: Made) -> None:
    given = shards(made, 3, 0, 5)
    found = table(tmp_path, ending, given, made, vector_column="vector")
    assert found.schema.names == ["id", "text", "vector"]
    assert found.schema.types[:2] == [pa.int64(), pa.string()]
    kind = found.schema.field("vector").type
    assert str(kind).replace("element", "item") == str(vector_type(made))
    assert found["id"].to_pylist() == list(range(8))
    assert found["text"].to_pylist() == [text for some, _ in given for text in some.texts]
    assert cells(found["vector"]) == expected_cells(given, made)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_file_says_what_it_holds(tmp_path: Path, ending: str) -> None:
    made = dense("int8")
    table(tmp_path, ending, shards(made, 2), made)
    path = str(tmp_path / f"v.{ending}")
    found = lance.dataset(path).schema.metadata if ending == "lance" else READ[ending](path).schema.metadata
    assert {name.decode(): value.decode() for name, value in found.items()} == {
        "model": "some/model",
        "revision": "abc123",
        "task": "embed",
        "output_type": "int8",
        "similarity": "cosine",
        "dimensions": str(WIDTH),
    }


KNOWN: dict[str, tuple[Any, Any]] = {
    "year": (pa.int16(), [1990, None, -3]),
    "price": (pa.decimal128(9, 2), [decimal.Decimal("1.50"), None, decimal.Decimal("-2.25")]),
    "when": (
        pa.timestamp("ms", "UTC"),
        [datetime.datetime(2026, 1, 2, 3, 4, 5, 678000, datetime.timezone.utc), None, None],
    ),
    "day": (pa.date32(), [datetime.date(2026, 1, 2), None, datetime.date(1900, 1, 1)]),
    "tags": (pa.list_(pa.string()), [["x", None], [], None]),
    "deep": (
        pa.struct([("a", pa.int8()), ("b", pa.list_(pa.float32()))]),
        [{"a": 1, "b": [0.5]}, None, {"a": None, "b": []}],
    ),
    "raw": (pa.large_binary(), [b"\0\xff", None, b""]),
    "ratio": (pa.float32(), [0.1, None, 2.0]),
    "good": (pa.bool_(), [True, None, False]),
    "none": (pa.int32(), [None, None, None]),
}  # fmt: skip


@pytest.mark.parametrize("ending", ENDINGS)
def test_carried_columns_have_the_types_of_the_source(tmp_path: Path, ending: str) -> None:
    made = dense()
    schema = pa.schema([(name, kind) for name, (kind, _) in KNOWN.items()])
    expected = pa.table({name: pa.array(values, kind) for name, (kind, values) in KNOWN.items()})
    some = rows(0, 3, **{name: values for name, (_, values) in KNOWN.items()})
    none = replace(rows(3, 0), schema=schema)
    given = [(none, []), (replace(some, schema=schema), vectors(3, made)), (none, [])]
    found = table(tmp_path, ending, given, made)
    assert found.schema.names == ["id", "text", *KNOWN, "embedding"]
    for name in KNOWN:
        # Parquet and Lance name the items of lists "element" and "item".
        assert str(found[name].type).replace("element", "item") == str(expected[name].type).replace("element", "item")
        assert found[name].to_pylist() == expected[name].to_pylist()


@pytest.mark.parametrize("ending", ENDINGS)
def test_types_that_are_only_a_way_to_keep_values_in_memory(tmp_path: Path, ending: str) -> None:
    made = dense()
    words = pa.schema([("word", pa.dictionary(pa.int8(), pa.string())), ("view", pa.string_view())])
    given = [
        (replace(rows(0, 2, word=["a", "b"], view=["x", None]), schema=words), vectors(2, made)),
        (replace(rows(2, 2, word=["c", None], view=["y", "z"]), schema=words), vectors(2, made)),
    ]
    found = table(tmp_path, ending, given, made)
    assert found["word"].type == found["view"].type == pa.string()
    assert found["word"].to_pylist() == ["a", "b", "c", None]
    assert found["view"].to_pylist() == ["x", None, "y", "z"]


# For a column: its cells in two shards, the type they get, and the cells then.
GROWN: dict[str, tuple[list[Any], list[Any], Any, list[Any]]] = {
    "grown": ([1, 2], [2.5, None], pa.float64(), [1.0, 2.0, 2.5, None]),
    "large": ([2**60 + 1, 0], [0.5, 0.5], pa.float64(), [float(2**60), 0.0, 0.5, 0.5]),
    "late": ([None, None], ["x", "y"], pa.string(), [None, None, "x", "y"]),
    "never": ([None, None], [None, None], pa.string(), [None] * 4),
    "mixed": ([1, "a"], [None, {"k": [1.0]}], pa.string(), ["1", "a", None, '{"k":[1.0]}']),
    "apart": ([1, 2], ["a", None], pa.string(), ["1", "2", "a", None]),
    "truth": ([True, False], [1, 0], pa.string(), ["true", "false", "1", "0"]),
    "huge": ([2**70, 1], [1, None], pa.string(), [str(2**70), "1", "1", None]),
    "empty": ([{}, {}], [None, {}], pa.string(), ["{}", "{}", None, "{}"]),
    "structs": (
        [{"a": 1}, None],
        [{"b": "x"}, {"a": 2}],
        pa.struct([("a", pa.int64()), ("b", pa.string())]),
        [{"a": 1, "b": None}, None, {"a": None, "b": "x"}, {"a": 2, "b": None}],
    ),
    "lists": ([[], None], [[1], [None, 2]], pa.list_(pa.int64()), [[], None, [1], [None, 2]]),
    "half": (["\ud800", "naïve"], [None, "b"], pa.string(), ["\\ud800", "naïve", None, "b"]),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_types_that_differ_from_shard_to_shard(tmp_path: Path, ending: str) -> None:
    made = dense()
    given = [(rows(0, 2, **{name: row[at] for name, row in GROWN.items()}), vectors(2, made, at)) for at in range(2)]
    given[1] = (replace(given[1][0], metadata=[{**one, "new": 1} for one in given[1][0].metadata]), given[1][1])
    found = table(tmp_path, ending, given, made)
    assert found.schema.names == ["id", "text", *GROWN, "new", "embedding"]
    assert found["new"].to_pylist() == [None, None, 1, 1]
    for name, (_, _, kind, values) in GROWN.items():
        assert str(found[name].type).replace("element", "item") == str(kind), name
        assert found[name].to_pylist() == values, name
    assert cells(found["embedding"]) == expected_cells(given, made)


@pytest.mark.parametrize("ending", ENDINGS)
def test_ids_that_are_texts_in_one_shard_are_texts_in_all(tmp_path: Path, ending: str) -> None:
    made = dense()
    for names, expected in ((["a", 7], ["0", "1", "a", "7"]), ([2**63, 7], ["0", "1", str(2**63), "7"])):
        found = table(
            tmp_path, ending, [(rows(0, 2), vectors(2, made)), (rows(2, 2, ids=names), vectors(2, made))], made
        )
        assert found["id"].type == pa.string()
        assert found["id"].to_pylist() == expected


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("made", [dense("float16"), dense("ubinary"), SPARSE, MULTI])
def test_a_job_without_rows(tmp_path: Path, ending: str, made: Made) -> None:
    for given in ([], [(rows(0, 0), [])]):
        found = table(tmp_path, ending, given, made)
        assert found.num_rows == 0
        assert found.schema.names == ["id", "text", "embedding"]
        assert found.schema.types[:2] == [pa.int64(), pa.string()]
        assert str(found.schema.types[2]).replace("element", "item") == str(vector_type(made))


def test_nan_in_a_column_stays_a_number(tmp_path: Path) -> None:
    made = dense()
    found = table(tmp_path, "parquet", [(rows(0, 2, x=[float("nan"), 1.0]), vectors(2, made))], made)
    assert found["x"].type == pa.float64()
    assert math.isnan(found["x"][0].as_py())


def test_many_small_parts_become_few_row_groups_and_a_large_one_stays_one(tmp_path: Path) -> None:
    made = dense()
    table(tmp_path, "parquet", shards(made, *[100] * 30), made)
    assert pq.ParquetFile(tmp_path / "v.parquet").num_row_groups == 1
    table(tmp_path, "parquet", shards(made, 10_000, 10_000, 20_000), made)
    about = pq.ParquetFile(tmp_path / "v.parquet").metadata
    assert [about.row_group(at).num_rows for at in range(about.num_row_groups)] == [10_000, 10_000, 20_000]


def test_objects_that_are_maps_are_text(tmp_path: Path) -> None:
    """A struct would have a field for every key that there is."""
    made = dense()
    maps = [[{f"key-{part}-{at}": at} for at in range(200)] for part in range(2)]
    given = [(rows(200 * part, 200, x=maps[part]), vectors(200, made)) for part in range(2)]
    for some in (given, [(rows(0, 400, x=maps[0] + maps[1]), vectors(400, made))]):
        found = table(tmp_path, "parquet", some, made)
        assert found["x"].type == pa.string()
        assert [json.loads(one) for one in found["x"].to_pylist()] == maps[0] + maps[1]


def test_names_that_lance_does_not_have(tmp_path: Path) -> None:
    made = dense()
    for name in ("a.b", "", "_rowid", "`x`"):
        with pytest.raises(InvalidRequest, match=rf"{name}.*--carry"):
            open_output(f"{tmp_path}/v.lance").write(
                tmp_path / "part", rows(0, 1, **{name: [1]}), vectors(1, made), made
            )
    with pytest.raises(InvalidRequest, match="--vector-column"):
        open_output(f"{tmp_path}/v.lance", vector_column="my.vector").write(
            tmp_path / "part", rows(0, 1), vectors(1, made), made
        )
    names = {"a b": [1], "naïve": [1], "a/b": [1]}
    found = table(tmp_path, "lance", [(rows(0, 1, **names), vectors(1, made))], made)
    assert found.schema.names == ["id", "text", *names, "embedding"]


def test_a_folder_that_is_no_dataset_is_not_replaced_by_one(tmp_path: Path) -> None:
    made = dense()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("keep")
    with pytest.raises(InvalidRequest, match="no Lance dataset"):
        open_output(str(mine), format="lance").prepare(made)
    assert (mine / "notes.txt").read_text() == "keep"
    (mine / "notes.txt").unlink()
    output = open_output(str(mine), format="lance")
    written(output, shards(made, 4), made, tmp_path / "work")
    written(output, shards(made, 3), made, tmp_path / "work")  # a dataset is replaced, and nothing of it stays
    assert lance.dataset(str(mine)).count_rows() == 3
    assert len(lance.dataset(str(mine)).versions()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "work"]
