"""Bulk jobs on a real Ray cluster give the bytes of one machine, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lemni.bulk
from lemni.distributed.offline import Pool, embed
from lemni.errors import InvalidRequest, Unavailable
from lemni.hub import ModelFiles

from ..bulk.conftest import FAST, texts

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"id": f"row-{number}", "text": text if number % 100 else ""} for number, text in enumerate(texts(800))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something in a thread as soon as something is so."""

    def wait() -> None:
        until = time.monotonic() + 120
        while not condition() and time.monotonic() < until:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def shards(output: Path) -> int:
    return len(list(Path(f"{output}.lemni").glob("shards/*.json")))


def test_a_node_and_an_actor_die_and_nothing_changes(
    cluster: Any, rows: Path, tmp_path: Path, minilm: ModelFiles
) -> None:
    import ray

    plain, output = tmp_path / "plain.npy", tmp_path / "ray.npy"
    how: dict[str, Any] = {"model": str(minilm.path), "shard_rows": 20, "progress": False}
    first, _ = cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)
    died: list[str] = []

    def kill_actor() -> None:
        from ray.util.state import list_actors

        alive = [one for one in list_actors(filters=[("state", "=", "ALIVE")]) if "Map" in one.class_name]
        os.kill(alive[0].pid, signal.SIGKILL)
        died.append("actor")

    def kill_node() -> None:
        cluster.remove_node(first, allow_graceful=False)
        died.append("node")

    killers = [when(lambda: shards(output) >= 2, kill_actor), when(lambda: shards(output) >= 6, kill_node)]
    done = embed(rows, output, pool=Pool(2, 3, cpus=0.5), **how)
    for killer in killers:
        killer.join()
    assert sorted(died) == ["actor", "node"]
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    lemni.bulk.embed(rows, plain, **how)
    assert (done.rows, done.written, done.rejected) == (800, 792, 8)
    np.testing.assert_allclose(np.load(output), np.load(plain), atol=1e-6)
    assert output.read_bytes() == plain.read_bytes()
    assert (tmp_path / "ray.ids.npy").read_bytes() == (tmp_path / "plain.ids.npy").read_bytes()
    assert Path(f"{output}.rejects.jsonl").read_bytes() == Path(f"{plain}.rejects.jsonl").read_bytes()


def test_a_job_begins_on_one_machine_and_ends_on_a_cluster(cluster: Any, rows: Path, tmp_path: Path) -> None:
    output, plain = tmp_path / "out.parquet", tmp_path / "plain.parquet"
    script = Path(__file__).parents[1] / "bulk" / "killed.py"
    killed = subprocess.run(
        [sys.executable, str(script), "30", str(rows), str(output), FAST, "100"], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    before = shards(output)
    assert 0 < before < 8
    how: dict[str, Any] = {"model": FAST, "shard_rows": 100, "progress": False}
    done = embed(rows, output, **how)
    assert (done.rows, done.resumed) == (800, 100 * before)
    lemni.bulk.embed(rows, plain, **how)
    assert output.read_bytes() == plain.read_bytes()
    assert embed(rows, output, **how).seconds == 0
    with pytest.raises(InvalidRequest, match="output_type was"):
        embed(rows, output, output_type="float16", **how)
    # What goes wrong in a worker is said in its own words.
    with pytest.raises(InvalidRequest, match=r"row 0 \(id 'row-0'\): is empty"):
        embed(rows, tmp_path / "other.npy", fail_fast=True, **how)
    # A pipe is read once, here.
    with rows.open("rb") as pipe:
        embed("-", tmp_path / "pipe.npy", stdin=pipe, input_format="jsonl", **how)
    lemni.bulk.embed(rows, tmp_path / "file.npy", **how)
    assert (tmp_path / "pipe.npy").read_bytes() == (tmp_path / "file.npy").read_bytes()
    # A store that is a file has one writer.
    embed(rows, f"sqlite-vec:{tmp_path}/s.db?collection=docs", manifest=tmp_path / "store", **how)
    from lemni.stores import open_store

    store = open_store(f"sqlite-vec:{tmp_path}/s.db?collection=docs")
    assert store.count() == 792
    found = store.fetch(["row-5", "row-799"])
    np.testing.assert_allclose(found.vectors, np.load(tmp_path / "file.npy")[[4, 791]], atol=1e-6)
    store.close()


def test_no_cluster_at_an_address(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        embed(rows, tmp_path / "out.npy", model=FAST, ray_address="127.0.0.1:1")
