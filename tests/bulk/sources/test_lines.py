"""Lines of text and JSON lines, against Python's own reading of them."""

from __future__ import annotations

import gzip
import io
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.bulk.sources import Columns, json_list, lines, open_source
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import Row, read, reason

UNICODE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=6)
BOM = b"\xef\xbb\xbf"


@st.composite
def files_of_lines(draw: st.DrawFn) -> bytes:
    """Lines with either end, some of them empty, some not UTF-8, with and without a mark and a last end."""
    line = UNICODE.map(str.encode) | st.sampled_from(
        [b"", b"\r", b"\xff", b"a\xe2\x82", b"\r\r", b"[1]", b'{"text":"x"}']
    )
    every = draw(st.lists(line, max_size=12))
    ends = [draw(st.sampled_from([b"\n", b"\r\n"])) for _ in every]
    if ends and draw(st.booleans()):
        ends[-1] = b""
    return draw(st.sampled_from([b"", BOM])) + b"".join(a + b for a, b in zip(every, ends, strict=True))


def split(data: bytes) -> list[tuple[int, bytes]]:
    """Lines and their numbers, by the reference: a stream that ends lines with a line feed only."""
    found = list(io.BytesIO(data.removeprefix(BOM)))
    return [(at, line.removesuffix(b"\n").removesuffix(b"\r")) for at, line in enumerate(found, 1)]


def written(folder: str, name: str, data: bytes) -> Path:
    path = Path(folder) / name
    path.write_bytes(data)
    return path


@given(files_of_lines(), st.integers(1, 13), st.integers(3, 9))
@settings(max_examples=300, deadline=None)
def test_lines_are_what_python_reads_however_they_are_cut(data: bytes, rows: int, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(lines, "_BLOCK", block):
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return
        found = read(written(folder, "a.txt", data), rows=rows)
        packed = read(written(folder, "a.txt.gz", gzip.compress(data)), rows=rows)
    assert packed == found
    expected = split(data)
    assert [row.id for row in found] == list(range(len(expected)))
    for row, (number, line) in zip(found, expected, strict=True):
        plain = line.decode(errors="replace")
        if plain.encode() == line:
            assert row.item == row.text == plain
        else:
            assert reason(row).startswith(f"line {number} is not UTF-8: byte 0x")
            assert row.text is None


@given(files_of_lines(), st.integers(1, 13), st.integers(3, 9))
@settings(max_examples=200, deadline=None)
def test_json_lines_are_the_same_however_they_are_cut(data: bytes, rows: int, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(lines, "_BLOCK", block):
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return
        found = read(written(folder, "a.jsonl", data), rows=rows)
        packed = read(written(folder, "a.ndjson.gz", gzip.compress(data)), rows=rows)
    assert packed == found
    expected = [(number, line) for number, line in split(data) if line]
    assert len(found) == len(expected)
    for row, (number, line) in zip(found, expected, strict=True):
        try:
            value = json.loads(line.decode())
        except ValueError:
            assert reason(row).startswith(f"line {number} is not ")
        else:
            if isinstance(value, str) or value == {"text": "x"}:
                assert row.item == (value if isinstance(value, str) else "x")
            else:
                assert reason(row).startswith((f"line {number} is ", "has no field 'text'"))
                assert "is not" not in reason(row)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | UNICODE,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(UNICODE, inner, max_size=2),
    max_leaves=4,
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["text", "id", "a", "b", "é"]), VALUES, max_size=5) | UNICODE, max_size=9),
    st.integers(1, 10),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_objects_and_texts_of_json_lines(records: list[Any], rows: int, ascii: bool) -> None:
    data = "\n".join(json.dumps(record, ensure_ascii=ascii) for record in records).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = written(folder, "a.jsonl", data)
        found = read(path, rows=rows)
        whole = read(written(folder, "a.json", json.dumps(records).encode()), rows=rows)
    assert whole == found
    for at, (row, record) in enumerate(zip(found, records, strict=True)):
        if isinstance(record, str):
            assert row == Row(at, record, record, {})
            continue
        assert row.metadata == {key: value for key, value in record.items() if key not in ("text", "id")}
        named = record.get("id", 0)
        usable = isinstance(named, str) or (isinstance(named, (int, float)) and not isinstance(named, bool))
        if usable and (isinstance(named, (str, int)) or (named == int(named) and abs(named) < 2**53)):
            assert row.id == record.get("id", at)
            if isinstance(record.get("text"), str) or ("text" in record and record["text"] is None):
                assert row.item == row.text == record["text"]
            else:
                assert ("not a text" in reason(row)) == ("text" in record)
        else:
            assert row.id == at
            assert reason(row).startswith("its id is ")


def test_what_is_wrong_with_a_line_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"text": "a", "id": "x", "n": NaN}\n\n{"body": 1, "other": 2}\n{"text": \n{"text": "\\ud800"}\n'
        b'{"text": "ok", "m": "\\udc00"}\n'
        b'{"text": "\xff"}\n7\n{"text": 7}\n{"text": null}\n{"text": [1]}\n{"text": true}\n{"text": {"a": 1}}\n'
        b'{"text": "t", "id": null}\n' + b"[" * 100_000 + b'\n{"text": "end"}'
    )
    found = read(path, rows=4)
    assert found[0][:3] == ("x", "a", "a")
    assert math.isnan(found[0].metadata["n"])
    assert [row.id for row in found[1:]] == list(range(1, 15))
    assert reason(found[1]) == "has no field 'text'; it has 'body', 'other'"
    assert reason(found[2]).startswith("line 4 is not JSON: ")
    assert reason(found[3]) == "line 5 holds half of a character ('\\ud800') without the other half"
    assert reason(found[4]).startswith("line 6 holds half of a character")
    assert reason(found[5]) == "line 7 is not UTF-8: byte 0xff at place 10"
    assert reason(found[6]) == "line 8 is a number, neither an object nor a text"
    assert reason(found[7]) == "is a number, not a text"
    assert found[8].item is None
    assert reason(found[9]) == "is a list, not a text"
    assert reason(found[10]) == "is true or false, not a text"
    assert reason(found[11]) == "is an object, not a text"
    assert reason(found[12]) == "its id is null, neither a text nor a whole number"
    assert reason(found[13]).startswith("line 15 is not JSON")
    assert found[14].item == "end"


@pytest.mark.parametrize("whole", [json_list.WHOLE_BYTES, 1])
def test_long_numbers_are_not_rounded(tmp_path: Path, whole: int) -> None:
    rows = [{"id": 2**70, "text": "a", "n": [-(10**25)]}, {"id": 1, "text": "9" * 30}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "a.json"):
        with mock.patch.object(json_list, "WHOLE_BYTES", whole):
            found = read(tmp_path / name)
        assert found == [Row(2**70, "a", "a", {"n": [-(10**25)]}), Row(1, "9" * 30, "9" * 30, {})]


def test_columns_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"body": "a", "key": 3, "x": 1, "y": [2]}\n{"body": "b", "x": 2}\n{"body": "c", "key": 5, "y": null}\n'
    )
    found = read(path, Columns("body", "key", ("y",)))
    assert found[0] == Row(3, "a", "a", {"y": [2]})
    assert found[1].id == 1
    assert reason(found[1]) == "has no field 'key' for its id; it has 'body', 'x'"
    assert found[2] == Row(5, "c", "c", {"y": None})
    assert read(path, Columns("body", None, ()))[0] == Row(0, "a", "a", {})
    with pytest.raises(
        InvalidRequest, match="none of the first 3 rows has a field 'z'; they have 'body', 'key', 'x', 'y'"
    ):
        read(path, Columns("body", carry=("x", "z")))
    with pytest.raises(InvalidRequest, match="lines of text have no column 'x'"):
        read(path, Columns(carry=("x",)), format="txt")


def test_several_files_count_their_rows_on(tmp_path: Path) -> None:
    for name, count in (("b", 4), ("a", 5), ("c", 0), ("d", 1)):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{at}\n" for at in range(count)))
    found = read(tmp_path / "*.txt", rows=2)
    assert [row.item for row in found] == [*(f"a{at}" for at in range(5)), *(f"b{at}" for at in range(4)), "d0"]
    assert [row.id for row in found] == list(range(10))
    assert [row.item for row in read([tmp_path / "d.txt", tmp_path / "b.txt"])] == ["d0", "b0", "b1", "b2", "b3"]
    sizes = [shard.load().first for shard in open_source([str(tmp_path / "*.txt")], Columns()).shards(2)]
    assert sizes == [0, 2, 4, 5, 7, 9]  # a file begins a shard


def test_standard_input(tmp_path: Path) -> None:
    assert [row.item for row in read("-", stdin=io.BytesIO(b"a\r\n\nb"))] == ["a", "", "b"]
    found = read("-", Columns(carry=("n",)), stdin=io.BytesIO(b'{"text": "a", "n": 1}\n'), format="jsonl", rows=1)
    assert found == [Row(0, "a", "a", {"n": 1})]
    found = read("-", stdin=io.BytesIO(b"id,text\n5,a\n"), format="csv")
    assert found == [Row("5", "a", "a", {})]
    assert [row.item for row in read("-", stdin=io.BytesIO(b'["a", "b"]'), format="json")] == ["a", "b"]
    source = open_source(["-"], Columns(), stdin=io.BytesIO(b"a\n"))
    assert not source.random_access
    assert len(list(source.shards(5))) == 1
    with pytest.raises(InvalidRequest, match="only once"):
        next(source.shards(5))
    with pytest.raises(InvalidRequest, match="cannot be parquet"):
        read("-", stdin=io.BytesIO(b""), format="parquet")
    with pytest.raises(InvalidRequest, match="cannot be joined"):
        read(["-", tmp_path / "a.txt"])


def test_zstandard_and_others(tmp_path: Path) -> None:
    import bz2
    import lzma

    data = "".join(f"ä{at}\n" for at in range(5000)).encode()
    for ending, pack in (
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
    ):
        (tmp_path / f"a.txt.{ending}").write_bytes(pack(data))
        source = open_source([str(tmp_path / f"a.txt.{ending}")], Columns())
        assert not source.random_access
        assert source.size() is None
        assert [row.item for row in read(tmp_path / f"a.txt.{ending}", rows=999)] == data.decode().split("\n")[:-1]
        (tmp_path / f"cut.txt.{ending}").write_bytes(pack(data)[:-20])
        with pytest.raises(InvalidRequest, match=rf"cut\.txt\.{ending}: cannot be read"):
            read(tmp_path / f"cut.txt.{ending}", rows=100)


def test_a_file_that_changes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\nb\nc\n")
    source = open_source([str(path)], Columns())
    shards = list(source.shards(2))
    assert shards[1].load().items == ["c"]
    path.write_text("a\nb\nd\n")
    with pytest.raises(InvalidRequest, match=r"a\.txt: has changed"):
        shards[1].load()
    with pytest.raises(InvalidRequest, match=r"a\.txt: has changed"):
        list(source.shards(2))
    assert open_source([str(path)], Columns()).identity() != source.identity()
    path.unlink()
    with pytest.raises(InvalidRequest, match=r"a\.txt: no such file"):
        shards[0].load()


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"short\n" + b"x" * 5000)
    with (
        mock.patch.object(lines, "MAX_LINE_BYTES", 1000),
        mock.patch.object(lines, "_BLOCK", 512),
        pytest.raises(InvalidRequest, match=r"a\.txt: line 2 has over 1000 bytes"),
    ):
        read(tmp_path / "a.txt")


def test_plain_files_need_no_other_package(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "a.json").write_text('["a"]')
    (tmp_path / "a.csv").write_text("text\na\n")
    code = f"""
import sys
from lemni.bulk.sources import Columns, open_source
for ending in ("txt", "jsonl", "json", "csv"):
    source = open_source([f"{tmp_path}/a.{{ending}}"], Columns())
    assert [shard.load().items for shard in source.shards(10)] == [["a"]]
print({{"pyarrow", "pandas", "ijson", "fsspec", "sqlalchemy", "lance"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_shard_is_loaded_by_another_process(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"é{at}"}) + "\n" for at in range(10)))
    shards = list(open_source([str(tmp_path / "a.jsonl")], Columns()).shards(4))
    code = "import pickle, sys; print(ascii(pickle.load(sys.stdin.buffer).load().items))"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(shards[1]), capture_output=True, check=True)
    assert done.stdout.decode().strip() == ascii(["é4", "é5", "é6", "é7"])


def test_utf16_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("hello\n".encode("utf-16"))
    with pytest.raises(InvalidRequest, match="is UTF-16 or UTF-32"):
        read(tmp_path / "a.txt")
