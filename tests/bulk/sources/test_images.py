"""Images: files by themselves, and by paths in other files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lemni.bulk.rows import Broken
from lemni.bulk.sources import Columns, cells, open_source
from lemni.errors import InvalidRequest
from lemni.types import Image
from tests.bulk.sources.reading import Row, read, reason

IMAGES = Columns("image", kind="image")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for name, data in (("b.png", b"B"), ("a.JPG", b"A"), ("deeper/c.webp", b"C")):
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "notes.txt").write_text("notes")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"H")
    return tmp_path / "in"


def test_files_of_images(folder: Path) -> None:
    found = read(folder, IMAGES, rows=2)
    names = [f"{folder}/a.JPG", f"{folder}/b.png", f"{folder}/deeper/c.webp"]
    assert found == [Row(name, Image(data), name, {}) for name, data in zip(names, (b"A", b"B", b"C"), strict=True)]
    assert [row.id for row in read(folder / "*.png", IMAGES)] == names[1:2]
    assert [row.id for row in read([names[2], names[0]], IMAGES)] == [names[2], names[0]]
    assert [row.text for row in read(folder, Columns())] == ["notes"]  # as texts
    with pytest.raises(InvalidRequest, match=r"b\.png: is an image; choose images"):
        read(folder / "b.png")
    with pytest.raises(InvalidRequest, match="files of images have no column 'key'"):
        read(folder, Columns("image", "key", kind="image"))


def test_files_that_are_lost_or_change(folder: Path) -> None:
    shards = list(open_source([str(folder)], IMAGES).shards(3))
    before = open_source([str(folder)], IMAGES).identity()
    (folder / "b.png").unlink()
    rows = shards[0].load()
    assert rows.items[0] == Image(b"A")
    assert rows.items[1] == Broken(f"{folder}/b.png: no such file")
    (folder / "a.JPG").write_bytes(b"another")
    with pytest.raises(InvalidRequest, match=r"a\.JPG: has changed"):
        shards[0].load()
    assert open_source([str(folder)], IMAGES).identity() != before


def test_paths_in_other_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MAX_IMAGE_BYTES", 50)
    (folder / "long.png").write_bytes(b"x" * 51)
    (folder / "none.png").write_bytes(b"")
    os.mkfifo(folder / "pipe.png")
    cell = [
        *("b.png", "deeper/../a.JPG", f"{folder}/deeper/c.webp", "nothing.png", "deeper", "", None, 3),
        *("http://127.0.0.1:1/a.png?key=secret", "long.png", "none.png", "a\0.png", "pipe.png"),
    ]
    wanted = [
        *(Image(b"B"), Image(b"A"), Image(b"C")),
        *(f"{folder}/nothing.png: no such file", f"{folder}/deeper: is no file; a pipe is read with '-'"),
        *("is an empty path", None, "is a number, not the path of an image"),
        *(
            "http://127.0.0.1:1/a.png: is a URL; images are read by path",
            f"{folder}/long.png: has 51 bytes, over the limit of 50",
        ),
        *(
            f"{folder}/none.png: is empty",
            "'a\\x00.png': is no path: ",
            f"{folder}/pipe.png: is no file; a pipe is read with '-'",
        ),
    ]
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"image": path, "n": at}) + "\n" for at, path in enumerate(cell))
    )
    found = read(folder / "a.jsonl", IMAGES, rows=4)
    for row, path, item in zip(found, cell, wanted, strict=True):
        assert row.item == item if not isinstance(item, str) else reason(row).startswith(item)
        assert row.text == (path if isinstance(path, str) else None)
    assert [row.metadata["n"] for row in found] == list(range(len(cell)))
    (folder / "paths.txt").write_text("b.png\ndeeper/c.webp\n")
    assert [row.item for row in read(folder / "paths.txt", IMAGES)] == [Image(b"B"), Image(b"C")]
    (folder / "a.csv").write_text("id,image\nx,b.png\n")
    assert read(folder / "a.csv", IMAGES) == [Row("x", Image(b"B"), "b.png", {})]


def test_bytes_in_a_table(folder: Path) -> None:
    pq.write_table(pa.table({"image": [b"one", None, b""], "path": ["b.png", None, "x.png"]}), folder / "a.parquet")
    found = read(folder / "a.parquet", IMAGES)
    assert [row.item for row in found[:2]] == [Image(b"one"), None]
    assert reason(found[2]) == "is an image of no bytes"
    assert [row.text for row in found] == [None, None, None]
    found = read(folder / "a.parquet", Columns("path", carry=(), kind="image"))
    assert found[0] == Row(0, Image(b"B"), "b.png", {})
    assert reason(read(folder / "a.parquet", Columns("image"))[0]) == "is bytes, not a text"
