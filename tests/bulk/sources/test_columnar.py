"""Parquet and Arrow files, against pyarrow's own reading of them whole."""

from __future__ import annotations

import datetime
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lemni.bulk.sources import Columns, arrow, columnar, open_source
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import Row, read, reason

ROWS = 57


def table(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([f"k{at}" for at in range(rows)]),
            "text": pa.array([None if at % 11 == 5 else "ü" * (at % 9) for at in range(rows)], pa.large_string()),
            "small": pa.array(range(rows), pa.int16()),
            "when": pa.array(
                [datetime.datetime(2024, 1, 1 + at % 28) for at in range(rows)], pa.timestamp("us", "UTC")
            ),
            "list": pa.array([[at, None] for at in range(rows)], pa.list_(pa.int32())),
            "struct": pa.array([{"a": at, "b": None} for at in range(rows)]),
        }
    )


def stream(path: Path, written: pa.Table, chunk: int) -> None:
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, written.schema) as writer:
        writer.write_table(written, max_chunksize=chunk)


def ipc_file(path: Path, written: pa.Table, chunk: int, codec: str | None = None) -> None:
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, written.schema, options=options) as writer:
        writer.write_table(written, max_chunksize=chunk)


WRITERS: dict[str, tuple[str, Callable[[Path, pa.Table, int], None]]] = {
    "parquet": ("a.parquet", lambda path, written, chunk: pq.write_table(written, path, row_group_size=chunk)),
    "parquet-zstd": ("a.pq", lambda path, written, chunk: pq.write_table(written, path, chunk, compression="zstd")),
    "file": ("a.arrow", ipc_file),
    "file-zstd": ("a.ipc", lambda path, written, chunk: ipc_file(path, written, chunk, "zstd")),
    "feather": ("a.feather", lambda path, written, chunk: feather.write_feather(written, path, chunksize=chunk)),
    "stream": ("a.arrow", stream),
}


def expected(written: pa.Table, columns: Columns, carry: list[str]) -> list[Row]:
    return [
        Row(row[columns.id or "id"], row[columns.text], row[columns.text], {name: row[name] for name in carry})
        for row in written.to_pylist()
    ]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("chunk", [1, 10, 1000])
def test_rows_are_what_pyarrow_reads(tmp_path: Path, kind: str, chunk: int) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name, table(), chunk)
    others = ["small", "when", "list", "struct"]
    for rows in (1, 7, 10, 57, 500):
        assert read(tmp_path / name, rows=rows) == expected(table(), Columns(), others)
    chosen = Columns("text", "small", ("struct", "text"))
    assert read(tmp_path / name, chosen, rows=8) == expected(table(), chosen, ["struct", "text"])
    source = open_source([str(tmp_path / name)], chosen)
    assert source.random_access
    batch = next(source.shards(5)).load()
    assert batch.schema == pa.schema([table().schema.field("struct"), table().schema.field("text")])


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_in_any_order_and_in_another_process(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name, table(), 16)
    shards = list(open_source([str(tmp_path / name)], Columns()).shards(5))
    want = expected(table(), Columns(), [])
    for at in (7, 2, 3, 11, 0, 3, 4, 10, 1):
        batch = shards[at].load()
        assert batch.ids == [row.id for row in want[5 * at : 5 * at + 5]]
        assert batch.texts == [row.text for row in want[5 * at : 5 * at + 5]]
    assert len(columnar._idle) <= columnar._KEPT
    code = "import pickle, sys; rows = pickle.load(sys.stdin.buffer).load(); print(rows.first, rows.ids)"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(shards[9]), capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"45 {[f'k{at}' for at in range(45, 50)]}"


@pytest.mark.parametrize("kind", ["file", "file-zstd", "stream"])
def test_a_file_is_mapped_anew_now_and_then(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(
        arrow, "open_arrow", lambda *given, **more: opened.append(1) or columnar.open_arrow(*given, **more)
    )
    name, write = WRITERS[kind]
    write(tmp_path / name, table(), 5)
    wanted = read(tmp_path / name, rows=8)
    often = len(opened)
    monkeypatch.setattr(arrow, "_MAPPED", 100)
    assert read(tmp_path / name, rows=8) == wanted == expected(table(), Columns(), ["small", "when", "list", "struct"])
    assert len(opened) - often > often + 5


def test_dictionaries(tmp_path: Path) -> None:
    words = pa.table({"text": pa.array(["a", None, "b", "a"] * 5).dictionary_encode(), "n": ["x", "y"] * 10})
    words = words.set_column(1, "n", words["n"].dictionary_encode())
    pq.write_table(words, tmp_path / "a.parquet")
    ipc_file(tmp_path / "b.arrow", words, 4)
    stream(tmp_path / "c.arrow", words, 4)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        found = read(tmp_path / name, rows=3)
        assert [row.text for row in found] == ["a", None, "b", "a"] * 5
        assert [row.metadata for row in found] == [{"n": "x"}, {"n": "y"}] * 10
    source = open_source([str(tmp_path / "c.arrow")], Columns())
    assert not source.random_access  # its dictionaries stand at the front
    assert next(source.shards(4)).load().schema == pa.schema([pa.field("n", pa.string())])


def test_several_files_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "set" / "deeper").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["a", "b"], "n": pa.array([1, 2], pa.int32())}), tmp_path / "set" / "1.parquet")
    pq.write_table(pa.table({"n": pa.array([3], pa.int64()), "text": ["c"]}), tmp_path / "set" / "2.parquet")
    pq.write_table(pa.table({"text": ["d"], "m": [1.5]}), tmp_path / "set" / "deeper" / "3.parquet")
    (tmp_path / "set" / "_SUCCESS").write_text("")
    (tmp_path / "set" / "README.md").write_text("notes")
    found = read(tmp_path / "set", rows=2)
    assert [row.id for row in found] == [0, 1, 2, 3]
    assert [(row.text, row.metadata["n"], row.metadata["m"]) for row in found] == [
        ("a", 1, None),
        ("b", 2, None),
        ("c", 3, None),
        ("d", None, 1.5),
    ]
    schema = next(open_source([str(tmp_path / "set")], Columns()).shards(2)).load().schema
    assert schema == pa.schema([("n", pa.int64()), ("m", pa.float64())])
    pq.write_table(pa.table({"text": ["e"], "n": ["text"]}), tmp_path / "set" / "4.parquet")
    with pytest.raises(InvalidRequest, match="columns do not fit together"):
        read(tmp_path / "set")
    pq.write_table(pa.table({"body": ["e"]}), tmp_path / "set" / "4.parquet")
    with pytest.raises(InvalidRequest, match=r"4\.parquet: has no column 'text'; it has 'body'"):
        read(tmp_path / "set")


def test_cells_that_are_no_text(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.py_buffer(pa.array([0, 1, 3, 4], pa.int32()).buffers()[1]), pa.py_buffer(b"a\xff\xfeb")],
    )
    pq.write_table(pa.table({"id": [1, 2, 3], "text": bad}), tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [row.text for row in found] == ["a", None, "b"]
    assert [row.id for row in found] == [1, 2, 3]
    assert reason(found[1]) == "is not UTF-8: byte 0xff at place 0"
    found = read(tmp_path / "a.parquet", Columns("id", None))
    assert {reason(row) for row in found} == {"is a number, not a text"} | {
        "its column 'text' is not UTF-8: byte 0xff at place 0"
    }
    pq.write_table(
        pa.table({"id": pa.array([1.0, None, 2.5, float("nan")]), "text": list("abcd")}), tmp_path / "b.parquet"
    )
    found = read(tmp_path / "b.parquet")
    assert [row.id for row in found] == [1, 1, 2, 3]
    assert found[0].item == "a"
    assert [reason(row) for row in found[1:]] == [
        "its id is null, neither a text nor a whole number",
        *["its id is a number, neither a text nor a whole number"] * 2,
    ]


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    for columns, missing in ((Columns("body"), "body"), (Columns(id="key"), "key"), (Columns(carry=("x",)), "x")):
        with pytest.raises(
            InvalidRequest, match=rf"a\.parquet: has no column '{missing}'; it has 'id', 'text', 'small'"
        ):
            read(path, columns)
    whole = path.read_bytes()
    for data in (whole[:-30], b"", b"PAR1 nonsense PAR1"):
        path.write_bytes(data)
        with pytest.raises(InvalidRequest, match=r"a\.parquet: "):
            read(path)
    for data in (b"", b"nonsense", b"FEA1 old one"):
        (tmp_path / "a.arrow").write_bytes(data)
        with pytest.raises(InvalidRequest, match=r"a\.arrow: "):
            read(tmp_path / "a.arrow")


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_file_that_changes_is_refused(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    write(tmp_path / name, table(), 10)
    shards = list(open_source([str(tmp_path / name)], Columns()).shards(6))
    shards[0].load()
    write(tmp_path / name, table(56), 10)
    for shard in shards[:3]:  # the first is read by a cursor that is open
        with pytest.raises(InvalidRequest, match=rf"{name}: has changed"):
            shard.load()


def test_damage_inside_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(5000), path, row_group_size=1000, compression="zstd")
    data = bytearray(path.read_bytes())
    data[100:400] = bytes(300)
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match=r"a\.parquet: cannot be read"):
        read(path, rows=1000)


def test_many_columns_and_empty_tables(tmp_path: Path) -> None:
    for kind, (name, write) in WRITERS.items():
        (tmp_path / kind).mkdir()
        write(tmp_path / kind / name, table(0), 10)
        assert read(tmp_path / kind / name) == []
    wide: Any = pa.table({"text": ["a"] * 3, "a.b": [1, 2, 3], "a": [4, 5, 6]})
    pq.write_table(wide, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", Columns(carry=("a",)))[0].metadata == {"a": 4}
    assert read(tmp_path / "a.parquet", Columns(carry=("a.b",)))[0].metadata == {"a.b": 1}
