"""The records of a job: what is there after a crash, what is refused, and what is left in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.bulk.manifest import Manifest, Record, Reject, differences, write_whole
from lemni.errors import InvalidRequest

JOB: dict[str, Any] = {"model": {"name": "m", "revision": "r1"}, "shard_rows": 4, "files": ("a", "b")}


def record(index: int, *rejects: Reject) -> Record:
    return Record(index, index * 4, 4, 4 - len(rejects), 20, 1, f"digest-{index}", list(rejects))


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_job_from_begin_to_end(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out.npy")
    assert manifest.completed(JOB) is None
    manifest.begin(JOB)
    bad = [Reject(5, "k5", "is null"), Reject(6, 6, "is empty", "ü ")]
    for one in (record(1, *bad), record(0)):
        manifest.draft(one.index).write_bytes(b"part %d" % one.index)
        assert one.index not in manifest.done()
        manifest.keep(one)
        assert manifest.part(one.index).read_bytes() == b"part %d" % one.index
        assert not manifest.draft(one.index).exists()
    assert manifest.done() == {0, 1}
    assert list(manifest.records()) == [record(0), record(1, *bad)]
    assert manifest.record(1) == record(1, *bad)
    manifest.complete(JOB, {"summary": {"rows": 8}})
    assert names(tmp_path) == ["out.npy.manifest.json", "out.npy.rejects.jsonl"]
    assert manifest.completed(JOB) == {
        "job": {"format": 1, **JOB, "files": ["a", "b"]},
        "summary": {"rows": 8},
    }
    lines = (tmp_path / "out.npy.rejects.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"row": 5, "id": "k5", "reason": "is null", "text": None},
        {"row": 6, "id": 6, "reason": "is empty", "text": "ü "},
    ]
    # Done again without such rows, there is no file of them.
    manifest.discard()
    assert names(tmp_path) == []
    manifest.begin(JOB)
    (tmp_path / "out.npy.rejects.jsonl").write_text("of a run before")
    manifest.keep(record(0))
    manifest.complete(JOB, {})
    assert names(tmp_path) == ["out.npy.manifest.json"]


def test_only_the_same_job_goes_on(tmp_path: Path) -> None:
    first = Manifest(tmp_path / "out.npy")
    first.begin(JOB)
    first.keep(record(0))
    first.release()
    again = Manifest(tmp_path / "out.npy")
    again.begin(JOB)
    assert again.done() == {0}
    with pytest.raises(InvalidRequest, match=r"out\.npy\.lemni: another process is at this job"):
        Manifest(tmp_path / "out.npy").begin(JOB)
    again.release()
    again.release()
    other = {**JOB, "model": {"name": "m", "revision": "r2"}, "shard_rows": 5}
    with pytest.raises(
        InvalidRequest, match=r'another one: model\.revision was "r1" and is "r2"; shard_rows was 4 and is 5\. Give'
    ):
        Manifest(tmp_path / "out.npy").begin(other)
    # Whoever is refused does not keep the lock.
    again.begin(JOB)
    again.complete(JOB, {})
    with pytest.raises(InvalidRequest, match=r"is there already, of another job: model\.revision was"):
        again.completed(other)


def test_a_job_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out.npy")
    manifest.begin(JOB)
    manifest.abandon()
    manifest.release()
    assert names(tmp_path) == []
    manifest.begin(JOB)
    manifest.keep(record(0))
    manifest.abandon()
    manifest.release()
    assert manifest.done() == {0}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"index": 1}', b'{"rejects": [{"line": 1}]}', b"\xff"])
def test_a_record_that_is_none(content: bytes, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out.npy")
    manifest.begin(JOB)
    path = tmp_path / "out.npy.lemni" / "shards" / "000000.json"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"000000\.json: is no record of a shard .*; remove it to do the shard"):
        manifest.record(0)
    manifest.release()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_files_that_somebody_has_damaged(content: bytes, tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out.npy")
    manifest.begin(JOB)
    manifest.release()
    (tmp_path / "out.npy.lemni" / "job.json").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"out\.npy\.lemni.*--overwrite"):
        manifest.begin(JOB)
    (tmp_path / "out.npy.manifest.json").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"out\.npy.*--overwrite"):
        manifest.completed(JOB)


def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_whole(path, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"


def test_differences_are_named_and_short() -> None:
    old, new = {"a": {"b": 1, "c": [1, 2]}, "d": "x" * 500}, {"a": {"b": 2, "c": [1, 2]}, "e": None, "d": "y"}
    said = differences(old, new)
    assert said.startswith('a.b was 1 and is 2; d was "xxx')
    assert said.endswith('… and is "y"')
    assert len(said) < 200
    assert differences(old, old) == ""


def test_nothing_is_forgotten_under_a_process_that_is_at_it(tmp_path: Path) -> None:
    running = Manifest(tmp_path / "out.npy")
    running.begin(JOB)
    running.keep(record(0))
    with pytest.raises(InvalidRequest, match="another process is at this job"):
        Manifest(tmp_path / "out.npy").discard()
    Manifest(tmp_path / "out.npy").sweep()
    assert running.done() == {0}
    running.release()
    Manifest(tmp_path / "out.npy").sweep()
    assert names(tmp_path) == []


def test_records_that_an_interrupted_discard_has_left_are_of_no_job(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out.npy")
    manifest.begin(JOB)
    manifest.keep(record(0))
    manifest.release()
    (manifest.work / "job.json").unlink()  # goes first
    manifest.begin({**JOB, "model": {"name": "another", "revision": "r1"}})
    assert manifest.done() == set()
    manifest.release()


def test_a_job_keeps_the_ranges_that_it_began_with(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "out.npy")
    manifest.begin({"a": 1})
    first, later = np.float32([[0, 1], [2, 3]]), np.float32([[5, 5], [6, 6]])
    assert manifest.same_ranges(None) is None
    for given in (first, later):
        np.testing.assert_array_equal(manifest.same_ranges(given), first)
    manifest.release()
