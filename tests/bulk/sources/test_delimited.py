"""CSV and TSV against `csv.DictReader`, however they are cut."""

from __future__ import annotations

import csv
import gzip
import io
import re
import tempfile
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lemni.bulk.sources import Columns, delimited
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import Row, read, reason

CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from(',"\n\r\té'), max_size=8
)


def reference(text: str, delimiter: str = ",") -> list[Row]:
    """Rows with a text, and their other columns."""
    found = []
    for at, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)):
        others = {name: value for name, value in row.items() if name not in ("text", "id")}
        found.append(Row(row.get("id") if row.get("id") is not None else at, row["text"], row["text"], others))
    return found


@given(
    st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([",", "\t"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),
    st.integers(1, 9),
)
@settings(max_examples=300, deadline=None)
def test_tables_that_csv_wrote(cells: list[list[str]], end: str, comma: str, bom: str, last: bool, rows: int) -> None:
    out = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if rows % 2 else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=comma, lineterminator=end, quoting=quoting)
    writer.writerows([["id", "text", "ä"], *cells])
    text = out.getvalue() if last else out.getvalue().removesuffix(end)
    ending = "csv" if comma == "," else "tsv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{ending}"
        path.write_bytes((bom + text).encode())
        found = read(path, rows=rows)
        (Path(folder) / f"b.{ending}.gz").write_bytes(gzip.compress((bom + text).encode()))
        assert read(Path(folder) / f"b.{ending}.gz", rows=rows) == found
    assert found == reference(text, comma)
    if quoting == csv.QUOTE_ALL:  # else csv writes carriage returns that it does not read again
        assert [row.text for row in found] == [row[1] for row in cells]


@given(st.text(st.sampled_from('a,"\n\ré '), max_size=40), st.integers(1, 6))
@settings(max_examples=500, deadline=None)
def test_tables_that_nobody_wrote(text: str, rows: int) -> None:
    """Stray quotes and line ends, rows of any length."""
    text = "text,n\n" + text
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(text.encode())
        try:
            expected = reference(text)
        except csv.Error:
            expected = None
        try:
            whole = read(path, rows=1000)
        except InvalidRequest as error:
            message = error.message
        else:
            message = ""
        if message:
            with pytest.raises(InvalidRequest, match=re.escape(message)):
                read(path, rows=rows)
            assert "is opened in the row of line" in message
            assert _open_at_the_end(text)
            return
        assert read(path, rows=rows) == whole
    if expected is not None:
        assert len(whole) == len(expected)
        for row, wanted in zip(whole, expected, strict=True):
            if None in wanted.metadata:  # DictReader's name for what the header has not
                assert "fields and the header 2" in reason(row)
            else:
                assert row == wanted


def _open_at_the_end(text: str) -> bool:
    """Whether one more line changes the last row instead of being one: by the reference alone."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    more = list(csv.reader([*io.StringIO(text, newline=""), "END"]))
    return more[: len(rows)] != rows or len(more) == len(rows)


def test_pandas_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    frame = pd.DataFrame({"text": [f'line "{at}",\nü' for at in range(50)], "n": [str(at) for at in range(50)]})
    frame.to_csv(path, index=False)
    again = pd.read_csv(path, dtype=str)
    found = read(path, rows=7)
    assert [row.text for row in found] == list(again["text"])
    assert [row.metadata["n"] for row in found] == list(again["n"])


def test_what_is_wrong_with_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text,n\n1,"a\nb",x\n\n2,\xff,y\n3,c\n4,d,e,f\n5,"g"\n,h,i\n')
    found = read(path, rows=2)
    assert found[0] == Row("1", "a\nb", "a\nb", {"n": "x"})
    assert found[1].id == 1
    assert reason(found[1]) == "line 5 is not UTF-8: byte 0xff in one of its fields"
    assert found[2] == Row("3", "c", "c", {"n": None})
    assert (found[3].id, reason(found[3])) == (3, "line 7 has 4 fields and the header 3")
    assert found[4] == Row("5", "g", "g", {"n": None})
    assert found[5] == Row("", "h", "h", {"n": "i"})


def test_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id;body\n1;a\n")
    with pytest.raises(InvalidRequest, match=r"a\.csv: has no column 'text'; it has 'id;body'"):
        read(path)
    path.write_text("text,text\n")
    with pytest.raises(InvalidRequest, match="two columns called 'text'"):
        read(path)
    path.write_text("text,n\na,1\n")
    with pytest.raises(InvalidRequest, match="has no column 'm'; it has 'text', 'n'"):
        read(path, Columns(carry=("m",)))
    with pytest.raises(InvalidRequest, match="has no column 'key'"):
        read(path, Columns(id="key"))
    assert read(path, Columns(id="n", carry=())) == [Row("1", "a", "a", {})]
    path.write_text('text\na\nb\n"c\nd\n')
    with pytest.raises(InvalidRequest, match=r"a\.csv: a quote is opened in the row of line 4 and not closed"):
        read(path)
    path.write_bytes(b"\xff,text\n")
    with pytest.raises(InvalidRequest, match="its header is not UTF-8"):
        read(path)
    path.write_bytes(b"")
    assert read(path) == []
    path.write_bytes(b"text\n")
    assert read(path) == []


def test_long_fields(tmp_path: Path) -> None:
    long = "x" * 300_000  # over csv's own limit
    (tmp_path / "a.csv").write_text(f"text\n{long}\n")
    assert read(tmp_path / "a.csv")[0].text == long
    before = csv.field_size_limit()
    try:
        csv.field_size_limit(1000)
        with (
            mock.patch.object(delimited, "MAX_FIELD_BYTES", 1000),
            pytest.raises(InvalidRequest, match="line 2 has a field of over 1000 bytes; is a quote not closed"),
        ):
            read(tmp_path / "a.csv")
    finally:
        csv.field_size_limit(before)
