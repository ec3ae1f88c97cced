"""Parts become the output in bounded memory, to the same bytes every time, whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from lemni.bulk.outputs import open_output
from tests.bulk.outputs.made import dense, parts, shards, stacked

# Place and format.
PLACES = [
    ("v.npy", ""),
    ("v.npz", ""),
    ("v.jsonl", ""),
    ("v.safetensors", ""),
    ("v.parquet", ""),
    ("v.arrow", ""),
    ("v.lance", ""),
    ("n.npy", "numpy"),
    ("c.json", "chroma"),
    ("p.json", "pinecone"),
    ("f/", "parquet"),
    ("f/", "npy"),
]
ONE_FILE = [place for place in PLACES if place[0] != "f/" and place != ("n.npy", "numpy")]


def run(what: str, place: str, format: str, tmp_path: Path) -> list[int]:
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-m", "tests.bulk.outputs.joining", what]
    done = subprocess.run(
        [*command, f"{tmp_path}/out/{place}", format, str(tmp_path / "work")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize(("place", "format"), [one for one in PLACES if one[0] != "v.lance"])
def test_killed_at_any_moment_and_done_again(tmp_path: Path, place: str, format: str) -> None:
    [times] = run("killed", place, format, tmp_path)
    assert times > 2


def test_a_lance_dataset_that_was_interrupted(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lance cannot be used in a forked process: here its steps fail instead."""

    class Killed(BaseException):
        pass

    made, output = dense(), open_output(f"{tmp_path}/v.lance")
    given = shards(made, 5, 7)
    some = parts(output, given, made, work)
    step = 0
    for there in (False, True):
        for step in range(100):
            shutil.rmtree(tmp_path / "v.lance", ignore_errors=True)
            if there:
                lance.write_dataset(pa.table({"old": [1]}), str(tmp_path / "v.lance"))
            left = [step]

            def dying(original: Any, left: list[int] = left) -> Any:
                def call(*given: Any, **how: Any) -> Any:
                    if not left[0]:
                        raise Killed
                    left[0] -= 1
                    return original(*given, **how)

                return call

            with monkeypatch.context() as patch:
                for place, name in ((Path, "replace"), (shutil, "rmtree"), (os, "fsync"), (lance, "write_dataset")):
                    patch.setattr(place, name, dying(getattr(place, name)))
                try:
                    output.assemble(some, made)
                    break
                except Killed:
                    pass
            output.prepare(made)
            output.assemble(some, made)
            found = lance.dataset(str(tmp_path / "v.lance")).to_table()
            np.testing.assert_array_equal(np.stack(found["embedding"].to_numpy()), stacked(given))
            assert sorted(path.name for path in tmp_path.iterdir()) == ["v.lance", "work"]
        assert step > 5


@pytest.mark.parametrize(("place", "format"), ONE_FILE)
def test_memory_does_not_grow_with_the_number_of_parts(tmp_path: Path, place: str, format: str) -> None:
    grown, size = run("memory", place, format, tmp_path)
    assert size > 200e6
    assert grown < 60e6


@pytest.mark.parametrize(("place", "format"), [one for one in PLACES if one[0] != "v.lance"])
def test_the_same_parts_give_the_same_bytes(
    tmp_path: Path, place: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = dense()
    found = []
    for number in range(2):
        # At another time, and from parts that were written anew.
        monkeypatch.setattr("time.time", lambda now=number: 1.7e9 + 1e7 * now)
        output = open_output(f"{tmp_path}/{number}/{place}", format=format or None)
        files = output.assemble(parts(output, shards(made, 5, 0, 7), made, tmp_path / f"work{number}"), made)
        found.append([(path.name, path.read_bytes()) for path in files])
    assert found[0] == found[1]
