"""Folders as `datasets.Dataset.save_to_disk` of datasets 4 writes them: state.json, and streams of Arrow."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from lemni.bulk.sources import Columns, open_source
from lemni.errors import InvalidRequest
from lemni.types import Image
from tests.bulk.sources.reading import Row, read


def save(folder: Path, parts: list[pa.Table], **state: object) -> None:
    folder.mkdir(parents=True)
    names = [f"data-{at:05}-of-{len(parts):05}.arrow" for at in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        noted = part.replace_schema_metadata({"huggingface": '{"info": {"features": {}}}'})
        with pa.OSFile(str(folder / name), "wb") as out, pa.ipc.new_stream(out, noted.schema) as writer:
            writer.write_table(noted, max_chunksize=4)
    described = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "c4", "_split": None, **state}
    (folder / "state.json").write_text(json.dumps(described))
    (folder / "dataset_info.json").write_text("{}")


def test_a_dataset(tmp_path: Path) -> None:
    whole = pa.table({"id": range(22), "text": [f"t{at}" for at in range(22)], "label": [at % 2 for at in range(22)]})
    save(tmp_path / "saved", [whole.slice(0, 11), whole.slice(11)])
    wanted = [Row(at, f"t{at}", f"t{at}", {"label": at % 2}) for at in range(22)]
    for rows in (1, 3, 4, 30):
        assert read(tmp_path / "saved", rows=rows) == wanted
    assert read(f"{tmp_path}/saved/", format="datasets") == wanted
    source = open_source([str(tmp_path / "saved")], Columns())
    assert source.random_access
    assert source.count() == 22
    assert next(source.shards(2)).load().schema == pa.schema([("label", pa.int64())])


def test_a_split_must_be_chosen(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(tmp_path / "dict" / split, [pa.table({"text": [split]})])
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InvalidRequest, match=r"has the splits train, test; choose one, such as .*/dict/train"):
        read(tmp_path / "dict")
    assert [row.text for row in read(tmp_path / "dict" / "test")] == ["test"]
    assert [row.text for row in read([tmp_path / "dict" / "train", tmp_path / "dict" / "test"])] == ["train", "test"]
    assert sorted(row.text or "" for row in read(tmp_path / "dict" / "t*")) == ["test", "train"]


def test_images_in_a_dataset(tmp_path: Path) -> None:
    (tmp_path / "seen.png").write_bytes(b"from a path")
    cells = [
        {"bytes": b"PNG", "path": "a.png"},
        {"bytes": None, "path": str(tmp_path / "seen.png")},
        None,
        {"bytes": None, "path": None},
        {"bytes": b"", "path": "e.png"},
    ]
    save(
        tmp_path / "saved",
        [pa.table({"image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})],
    )
    found = read(tmp_path / "saved", Columns("image", kind="image"), rows=2)
    assert [row.item for row in found[:4]] == [Image(b"PNG"), Image(b"from a path"), None, None]
    assert [row.text for row in found] == ["a.png", str(tmp_path / "seen.png"), None, None, "e.png"]
    assert found[4].item.reason == "is an image of no bytes"


def test_what_is_no_dataset(tmp_path: Path) -> None:
    save(tmp_path / "chosen", [pa.table({"text": ["a"]})], _indices_data_files=[{"filename": "i.arrow"}])
    with pytest.raises(InvalidRequest, match="chosen by indices"):
        read(tmp_path / "chosen")
    save(tmp_path / "lost", [pa.table({"text": ["a"]})])
    (tmp_path / "lost" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(InvalidRequest, match=r"data-00000-of-00001\.arrow: no such file"):
        read(tmp_path / "lost")
    for state in ("{}", "[]", "{"):
        (tmp_path / "lost" / "state.json").write_text(state)
        with pytest.raises(InvalidRequest, match=r"state\.json: "):
            read(tmp_path / "lost")
    with pytest.raises(InvalidRequest, match=r"has no state\.json"):
        read(tmp_path, format="datasets")
    with pytest.raises(InvalidRequest, match="is a file, and datasets are folders"):
        read(tmp_path / "lost" / "state.json", format="datasets")
