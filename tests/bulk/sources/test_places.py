"""What places stand for, and what is said of those that stand for nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lemni.bulk.sources import Columns, open_source
from lemni.bulk.sources.files import File, failed, shown
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import read


def test_what_is_not_there(tmp_path: Path) -> None:
    for place, message in (
        ("nothing.txt", r"nothing\.txt: no such file or folder"),
        ("*.txt", r"\*\.txt: no file matches"),
        ("", "no file that can be read in this folder"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            read(f"{tmp_path}/{place}")
    for places in ([], "a.txt"):
        with pytest.raises(InvalidRequest, match="must be a list"):
            open_source(places, Columns())


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.npy", "a.ZIP", "a.tar.gz", "a.safetensors"])
def test_endings_that_are_no_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("even if it were text\n")
    with pytest.raises(
        InvalidRequest, match=rf"{name}: is neither text nor a format that is known \(txt, jsonl, .*name the format"
    ):
        read(tmp_path / name)
    with pytest.raises(InvalidRequest, match="no file that can be read in this folder"):
        read(tmp_path)


def test_unknown_endings_are_text_if_they_are(tmp_path: Path) -> None:
    for name in ("a", "a.md", "a.text", "a.log", "a.2024", "a.tei"):
        (tmp_path / name).write_text("one\ntwo")
        assert [row.text for row in read(tmp_path / name)] == ["one", "two"]
        (tmp_path / name).write_bytes(b"\x7fELF\0\0\0")
        with pytest.raises(InvalidRequest, match="is neither text nor"):
            read(tmp_path / name)
    assert len(read(tmp_path / "a", format="txt")) == 1  # for who insists


def test_the_format_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_text('{"text": "a"}\n')
    for word in ("jsonl", "NDJSON", ".jsonl"):
        assert [row.text for row in read(tmp_path / "a.data", format=word)] == ["a"]
    assert [row.text for row in read(tmp_path / "a.data", format="txt")] == ['{"text": "a"}']
    with pytest.raises(InvalidRequest, match="no format is called 'xml'; known: txt, jsonl, json, csv"):
        read(tmp_path / "a.data", format="xml")


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('"b"\n')
    (tmp_path / "a.jsonl").write_text('"a"\n')
    (tmp_path / "README.md").write_text("notes\n")
    (tmp_path / "_meta.csv").write_text("text\n")
    assert [row.text for row in read(tmp_path)] == ["a", "b"]
    (tmp_path / "c.csv").write_text("text\nc\n")
    with pytest.raises(InvalidRequest, match=r"files of several formats \(2 of jsonl, 1 of csv\); name one"):
        read(tmp_path)
    assert [row.text for row in read(tmp_path, format="csv")] == ["c"]
    with pytest.raises(InvalidRequest, match="no parquet file in this folder"):
        read(tmp_path, format="parquet")
    with pytest.raises(InvalidRequest, match=r"a\.jsonl is jsonl and .*c\.csv is csv; an input is of one format"):
        read(tmp_path / "?.*")
    with pytest.raises(InvalidRequest, match=r"a\.jsonl: is named twice"):
        read([tmp_path / "*.jsonl", tmp_path / "a.jsonl"])
    for name in ("a.jsonl", "b.jsonl", "c.csv", "_meta.csv"):
        (tmp_path / name).unlink()
    assert [row.text for row in read(tmp_path)] == ["notes"]


def test_names_with_marks_of_globs(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("marked\n")
    (tmp_path / "a1.txt").write_text("plain\n")
    assert [row.text for row in read(tmp_path / "a[1].txt")] == ["marked"]
    assert [row.text for row in read(tmp_path / "a[1]*")] == ["plain"]
    assert [row.text for row in read(f"file://{tmp_path}/a1.txt")] == ["plain"]
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "b.txt").write_text("b\n")
    assert [row.text for row in read(tmp_path / "**" / "*.txt")] == ["plain", "marked", "b"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    place = os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.txt")
    Path(place).write_text("a\n")
    assert [row.text for row in read(place)] == ["a"]
    assert open_source([place], Columns()).name == f"{tmp_path}/a\\xff.txt"
    (tmp_path / "in").mkdir()
    os.rename(place, os.fsencode(tmp_path / "in") + b"/\xff.png")
    (row,) = read(tmp_path / "in", Columns(kind="image"))
    assert row.id == row.text == f"{tmp_path}/in/\\xff.png"
    assert row.item.data == b"a\n"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InvalidRequest, match="is no file; a pipe is read with '-'"):
        read(tmp_path / "pipe.txt")
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(InvalidRequest, match="parquet is not read when it is compressed as a whole"):
        read(tmp_path / "a.parquet.gz")
    with pytest.raises(InvalidRequest, match="nonsense"):
        read("nonsense://bucket/a.txt")


def test_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a\n")
    identity = open_source(["a.txt"], Columns("body", kind="text")).identity()
    assert identity == {
        "format": "txt",
        "files": [{"path": str(tmp_path / "a.txt"), "size": 2, "stamp": os.stat("a.txt").st_mtime_ns}],
        "columns": {"text": "body", "id": None, "carry": None, "kind": "text"},
    }
    for at in range(1001):
        (tmp_path / f"{at}.log").write_bytes(b"")
    many = open_source(["*.log"], Columns()).identity()["files"]
    assert many["count"] == 1001
    os.utime(tmp_path / "7.log", ns=(1, 1))
    assert open_source(["*.log"], Columns()).identity()["files"] != many


def test_secrets_of_urls_are_not_shown() -> None:
    signed = "https://user:word@host:80/a.jsonl?X-Amz-Signature=abc"
    assert shown(signed) == "https://host:80/a.jsonl"
    assert shown("ftp://user:word@host/a?b") == "ftp://host/a?b"
    assert shown("s3://bucket/a@b.txt") == "s3://bucket/a@b.txt"
    message = failed(signed, OSError(f"404, url={signed}, query X-Amz-Signature=abc, word")).message
    assert "abc" not in message
    assert "word" not in message
    assert File(signed, 1, None).identity()["path"] == "https://host:80/a.jsonl"
