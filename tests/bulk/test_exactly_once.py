"""A job that is killed at any moment and given again makes the files of one that never was."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import lemni
import lemni.bulk
from lemni.bulk.manifest import Record, Reject
from lemni.bulk.plan import Rules
from lemni.bulk.run import Rejected
from lemni.errors import InvalidRequest

from .conftest import FAST, texts

SCRIPT = Path(__file__).with_name("killed.py")


def run(limit: int, source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(SCRIPT), str(limit), str(source), str(output), FAST, "100"]
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)


def everything(folder: Path) -> dict[str, bytes]:
    """All files that a job leaves, by name."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "rows.jsonl"}


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.jsonl"])
def test_killed_at_any_write_it_goes_on_and_gives_the_same_bytes(name: str, rows: Path, tmp_path: Path) -> None:
    plain, broken = tmp_path / "plain", tmp_path / "broken"
    plain.mkdir()
    broken.mkdir()
    whole = run(0, rows, plain / name)
    assert whole.returncode == 0, whole.stderr
    calls, count, written, resumed = map(int, whole.stdout.split())
    assert (count, written, resumed) == (1000, 992, 0)
    # One job, killed again and again, each time a little further on or at once.
    chance = random.Random(name)
    kills = 0
    for _ in range(40):
        done = run(chance.choice([1, 2, 3, chance.randint(4, 30), calls]), rows, broken / name)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
        assert not (broken / f"{name}.manifest.json").exists() or (broken / name).exists()
    else:
        done = run(0, rows, broken / name)
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    found, expected = everything(broken), everything(plain)
    assert sorted(found) == sorted(expected)
    for file in expected:
        if not file.endswith("manifest.json"):
            assert found[file] == expected[file], file
    summary = [json.loads(one[f"{name}.manifest.json"])["summary"] for one in (found, expected)]
    for one in summary:
        for name in ("outputs", "manifest", "rejects", "seconds", "resumed"):
            one.pop(name)
    assert summary[0] == summary[1]
    assert not list(broken.glob("*.lemni"))


def test_killed_from_outside_with_a_real_transformer(tmp_path: Path, minilm: object) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(text) + "\n" for text in texts(3000)))
    command = [sys.executable, "-m", "lemni", "embed", str(source), "-o"]
    options = ["--shard-rows", "64", "--no-progress"]
    subprocess.run([*command, str(tmp_path / "plain.npy"), *options], check=True, timeout=280)
    work = tmp_path / "broken.npy.lemni" / "shards"
    for wanted in (1, 20):
        process = subprocess.Popen([*command, str(tmp_path / "broken.npy"), *options])
        until = time.monotonic() + 120
        while len(list(work.glob("*.json"))) < wanted and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "broken.npy").exists()
    before = len(list(work.glob("*.json")))
    subprocess.run([*command, str(tmp_path / "broken.npy"), *options], check=True, timeout=280)
    assert before >= 20
    assert (tmp_path / "broken.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


def test_the_vectors_are_the_librarys(rows: Path, tmp_path: Path) -> None:
    done = lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, shard_rows=300, progress=False)
    assert (done.rows, done.written, done.rejected, done.resumed) == (1000, 992, 8, 0)
    given = [json.loads(line) for line in rows.read_text().splitlines()]
    good = [one for one in given if isinstance(one["text"], str) and one["text"].strip()]
    with lemni.load(FAST) as model:
        expected = model.embed([one["text"] for one in good])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    assert np.load(tmp_path / "out.ids.npy").tolist() == [one["id"] for one in good]
    rejects = [json.loads(line) for line in Path(done.rejects or "").read_text().splitlines()]
    assert [(one["row"], one["id"]) for one in rejects] == [(n, f"row-{n}") for n in range(7, 1000, 125)]
    reasons = {one["reason"] for one in rejects}
    assert {"is null", "is empty"} < reasons
    assert any("number" in reason for reason in reasons)


def test_a_complete_job_is_not_done_again(rows: Path, tmp_path: Path) -> None:
    first = lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, progress=False)
    stamp = (tmp_path / "out.npy").stat().st_mtime_ns
    again = lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, progress=False)
    assert (again.written, again.seconds, again.resumed) == (first.written, 0, first.rows)
    assert (tmp_path / "out.npy").stat().st_mtime_ns == stamp
    with pytest.raises(InvalidRequest, match=r"output_type was \"float32\" and is \"float16\".*--overwrite"):
        lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, output_type="float16", progress=False)
    lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, output_type="float16", overwrite=True, progress=False)
    assert np.load(tmp_path / "out.npy").dtype == np.float16


def test_a_file_of_somebody_else_is_not_replaced(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "out.npy").write_text("precious")
    with pytest.raises(InvalidRequest, match="is there already"):
        lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, progress=False)
    assert (tmp_path / "out.npy").read_text() == "precious"
    with pytest.raises(InvalidRequest, match="is the input"):
        lemni.bulk.embed(rows, rows, model=FAST, overwrite=True, progress=False)


def test_another_job_does_not_go_on_with_this_one(rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npy"
    assert run(40, rows, output).returncode == -signal.SIGKILL
    for changed, said in (
        ({"model": "sentence-transformers/all-MiniLM-L6-v2"}, r"model\.name was"),
        ({"prompt": "query: "}, r"options\.prompt was null and is \"query: \""),
        ({"output_type": "int8"}, "output_type was"),
        ({"text": "id"}, r"input\.columns\.text was"),
    ):
        how = {"model": FAST, "shard_rows": 100, "progress": False, **changed}
        with pytest.raises(InvalidRequest, match=said):
            lemni.bulk.embed(rows, output, **how)
    with rows.open("a") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(InvalidRequest, match=r"input\.files was"):
        lemni.bulk.embed(rows, output, model=FAST, shard_rows=100, progress=False)
    done = lemni.bulk.embed(rows, output, model=FAST, shard_rows=100, overwrite=True, progress=False)
    assert done.rows == 1001


def test_two_processes_at_one_job(rows: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "out.npy.lemni").mkdir()
    with (
        FileLock(tmp_path / "out.npy.lemni" / "lock"),
        pytest.raises(InvalidRequest, match="another process is at this job"),
    ):
        lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, progress=False)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"fail_fast": True}, r"row 7 \(id 'row-7'\): is null"),
        ({"max_rejects": 3}, "4 rows are rejected, and at most 3 may be"),
    ],
)
def test_rejected_rows_may_end_it(how: dict[str, object], said: str, rows: Path, tmp_path: Path) -> None:
    arguments: dict[str, object] = {"model": FAST, "shard_rows": 100, "progress": False, **how}
    with pytest.raises(InvalidRequest, match=said):
        lemni.bulk.embed(rows, tmp_path / "out.npy", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out.npy").exists()
    done = lemni.bulk.embed(rows, tmp_path / "out.npy", model=FAST, shard_rows=100, progress=False)
    assert done.written == 992


def test_rows_of_a_pipe_are_compared_when_it_goes_on(tmp_path: Path) -> None:
    import io

    def lines(changed: str = "") -> io.BytesIO:
        return io.BytesIO("".join(f"{text}{changed}\n" for text in texts(300)).encode())

    class Breaks(io.BytesIO):
        def __init__(self) -> None:
            super().__init__(lines().getvalue())
            self._left = 5000

        def read(self, size: int | None = -1) -> bytes:
            return self._part(super().read(min(size or 500, 500) if size and size > 0 else 500))

        def readline(self, size: int | None = -1) -> bytes:
            return self._part(super().readline(size or -1))

        def readinto(self, buffer: object) -> int:  # type: ignore[override]
            raise NotImplementedError

        def _part(self, part: bytes) -> bytes:
            self._left -= len(part)
            if self._left < 0:
                until = time.monotonic() + 60
                while not list(done.glob("*.json")) and time.monotonic() < until:
                    time.sleep(0.01)
                raise OSError("the pipe broke")
            return part

    output = tmp_path / "out.npy"
    done = tmp_path / "out.npy.lemni" / "shards"
    how = {"model": FAST, "shard_rows": 50, "progress": False}
    with pytest.raises((OSError, InvalidRequest), match="the pipe broke"):
        lemni.bulk.embed("-", output, stdin=Breaks(), **how)  # type: ignore[arg-type]
    assert list(done.glob("*.json"))
    with pytest.raises(InvalidRequest, match="rows 0 to 49 are not what they were"):
        lemni.bulk.embed("-", output, stdin=lines("!"), **how)  # type: ignore[arg-type]
    whole = lemni.bulk.embed("-", output, stdin=lines(), **how)  # type: ignore[arg-type]
    assert whole.resumed >= 50
    lemni.bulk.embed("-", tmp_path / "plain.npy", stdin=lines(), **how)  # type: ignore[arg-type]
    assert output.read_bytes() == (tmp_path / "plain.npy").read_bytes()


def test_what_a_job_needs_does_not_grow_with_its_input(tmp_path: Path) -> None:
    """The peak of the whole process, on an input four times as long."""
    code = (
        "import sys, lemni.bulk\n"
        f"lemni.bulk.embed(sys.argv[1], sys.argv[2], model={FAST!r}, progress=False, shard_rows=2048)\n"
        # Not getrusage: a child begins with its parent's peak there.
        "print(next(int(line.split()[1]) // 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )

    def peak(count: int) -> int:
        source, output = tmp_path / f"{count}.txt", tmp_path / f"{count}.npy"
        source.write_text("".join(f"{text}\n" for text in texts(count)))
        done = subprocess.run([sys.executable, "-c", code, source, output], capture_output=True, text=True, check=True)
        assert np.load(output, mmap_mode="r").shape[0] == count
        return int(done.stdout)

    small, large = peak(20_000), peak(80_000)
    assert large - small < 40, f"{small} MiB and {large} MiB"  # the larger output alone has 78 MB more


def test_other_rows_of_a_pipe_or_a_query_are_not_taken_for_a_complete_job(tmp_path: Path) -> None:
    import io
    import sqlite3

    how: dict[str, object] = {"model": FAST, "shard_rows": 2, "progress": False}

    def pipe(text: str) -> lemni.bulk.Summary:
        return lemni.bulk.embed("-", tmp_path / "out.npy", stdin=io.BytesIO(text.encode()), **how)  # type: ignore[arg-type]

    assert pipe("one\ntwo\nthree\n").seconds > 0
    assert pipe("one\ntwo\nthree\n").seconds == 0
    before = (tmp_path / "out.npy").read_bytes()
    for other in ("one\ntwo\nfour\n", "one\ntwo\n", "one\ntwo\nthree\nfour\n"):
        with pytest.raises(InvalidRequest, match="standard input has other rows than it was made of"):
            pipe(other)
    assert (tmp_path / "out.npy").read_bytes() == before

    with contextlib.closing(sqlite3.connect(tmp_path / "rows.db")) as base:
        base.execute("create table rows (id integer primary key, text text)")
        base.executemany("insert into rows values (?, ?)", enumerate(texts(5)))
        base.commit()
        store, url = f"sqlite-vec:{tmp_path}/store.db?collection=docs", f"sqlite:///{tmp_path}/rows.db"

        def query() -> lemni.bulk.Summary:
            return lemni.bulk.embed(url, store, query="select * from rows", **how)  # type: ignore[arg-type]

        assert query().written == 5
        assert query().seconds == 0
        base.execute("insert into rows values (5, 'a sixth')")
        base.commit()
        assert query().written == 6
        assert query().seconds == 0


def test_rejected_rows_of_a_shard_that_is_done_again_count_once() -> None:
    job = SimpleNamespace(plan=SimpleNamespace(rules=Rules(max_rejects=2)))
    rejected = Rejected(job)  # type: ignore[arg-type]
    bad = [Reject(0, 0, "is null"), Reject(1, 1, "is null")]
    for _ in range(2):
        rejected.add(Record(0, 0, 4, 2, 1, 0, "", bad))
    with pytest.raises(InvalidRequest, match="3 rows are rejected"):
        rejected.add(Record(1, 4, 4, 3, 1, 0, "", bad[:1]))


def test_a_complete_job_is_known_from_another_folder(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    lemni.bulk.embed("../rows.jsonl", "out.npy", model=FAST, progress=False)
    monkeypatch.chdir(tmp_path)
    assert lemni.bulk.embed("rows.jsonl", "below/out.npy", model=FAST, progress=False).seconds == 0
    (tmp_path / "below" / "out.ids.npy").unlink()
    assert lemni.bulk.embed("rows.jsonl", "below/out.npy", model=FAST, progress=False).seconds > 0


def test_what_a_glob_finds_is_not_written_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "precious"}\n')
    with pytest.raises(InvalidRequest, match=r"b\.jsonl is the input"):
        lemni.bulk.embed(tmp_path / "*.jsonl", tmp_path / "b.jsonl", model=FAST, overwrite=True, progress=False)
    assert (tmp_path / "b.jsonl").read_text() == '{"text": "precious"}\n'
