"""The migrating process or the store dies in the middle; the same call goes on, and what it leaves is what an
uninterrupted one leaves, to the bit."""

from __future__ import annotations

import gc
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lemni.migrate.connection as connections
from lemni.migrate import How, Migration
from lemni.migrate.connection import StoreLost
from lemni.migrate.state import State
from lemni.stores.base import Page
from tests.stores.postgres_server import PostgresServer, running_postgres

from .chroma_process import ChromaProcess
from .conftest import Entry, check, dump, embedded
from .test_migrate import aliased, texts

Fill = Callable[..., Page]
SCRIPT = Path(__file__).with_name("killed.py")

# Clients leave their connections to a server that was killed to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed:ResourceWarning",
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def run(limit: int, source: str, model: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(SCRIPT), str(limit), source, model, "20"]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False, timeout=200)


def same(one: dict[Any, Entry], other: dict[Any, Entry]) -> None:
    assert list(one) == list(other)
    for name, (text, data, vector) in one.items():
        assert (text, data) == other[name][:2]
        np.testing.assert_array_equal(vector, other[name][2])


@pytest.mark.parametrize(("kind", "seed"), [("faiss", 1), ("faiss", 2), ("chroma", 3)])
def test_the_process_is_killed_anywhere(kind: str, seed: int, fill: Fill, tiny: str, tmp_path: Path) -> None:
    fill(f"{kind}:{tmp_path}/plain?collection=docs", count=100)
    shutil.copytree(tmp_path / "plain", tmp_path / "broken")
    (tmp_path / "work").mkdir()
    whole = run(0, f"{kind}:{tmp_path}/plain?collection=docs", tiny, tmp_path)
    assert whole.returncode == 0, whole.stderr
    calls = int(whole.stdout)
    dice = random.Random(seed)
    source = f"{kind}:{tmp_path}/broken?collection=docs"
    kills = 0
    # Somewhere in the whole of it, then again and again a little further on: the last ones hit the switch.
    for limit in (
        dice.randint(2, calls // 2),
        dice.randint(calls // 3, calls),
        dice.randint(3, 30),
        dice.randint(3, 60),
    ):
        done = run(limit, source, tiny, tmp_path / "work")
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    else:
        done = run(0, source, tiny, tmp_path / "work")
    assert done.returncode == 0, done.stderr
    assert kills >= 2
    same(dump(f"{kind}:{tmp_path}/plain?collection=docs"), dump(source))
    state = State.read(tmp_path / "work" / f"migrate-{kind}-broken-docs-to-docs__tiny_bert" / "migration.json")
    assert state is not None
    assert state.phase == "switched"
    assert len(dump(source.replace("collection=docs", f"collection={state.old}"))) == 100


@pytest.mark.parametrize("kind", ["chroma", "qdrant", "faiss", "lancedb", "postgresql"])
@pytest.mark.parametrize("step", ["switched", "undone"])
def test_a_switch_that_was_not_written_down_is_finished(
    kind: str,
    step: str,
    fill: Fill,
    tiny: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "postgresql":
        source = request.getfixturevalue("postgres").address("docs", schema=step)
        request.getfixturevalue("postgres").execute(f"CREATE SCHEMA {step}")
        entries = fill(source)
    else:
        source, entries = aliased(kind, fill)
    entered = State.enter

    def dies(self: State, phase: Any) -> None:
        if phase == step:
            raise KeyboardInterrupt
        entered(self, phase)

    if step == "undone":
        assert Migration(source, None, tiny).run().switched
    with monkeypatch.context() as patched:
        patched.setattr(State, "enter", dies)
        with pytest.raises(KeyboardInterrupt):
            Migration(source, None, tiny).run() if step == "switched" else Migration(source, None, tiny).roll_back()
    vectors = embedded(tiny, texts(300))
    if step == "switched":
        done = Migration(source, None, tiny).run()
        assert done.switched
        check(dump(source), entries, vectors)
        check(
            dump(source.replace("collection=docs", f"collection={done.state.old}")),
            entries,
            np.asarray(entries.vectors),
        )
    done = Migration(source, None, tiny).roll_back()
    assert done.state.phase == "undone"
    check(dump(source), entries, np.asarray(entries.vectors))
    check(dump(source.replace("collection=docs", f"collection={done.state.new}")), entries, vectors)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def dying(monkeypatch: pytest.MonkeyPatch, kill: Callable[[], None], after: int, cls: type) -> None:
    """The store is killed when `after` pages are written."""
    write, count = cls.write, 0  # type: ignore[attr-defined]

    def written(self: Any, page: Page) -> None:
        nonlocal count
        count += 1
        if count == after:
            kill()
        write(self, page)

    monkeypatch.setattr(cls, "write", written)


def test_postgres_is_killed_in_the_middle(
    postgres: PostgresServer, fill: Fill, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from lemni.stores.pgvector import PgVector

    source = postgres.address("docs")
    entries = fill(source)
    how = How(batch=30)
    monkeypatch.setattr(connections, "WAITS_S", (0.05, 0.1))
    with monkeypatch.context() as patched:
        dying(patched, postgres.kill, 4, PgVector)
        with pytest.raises(StoreLost, match="docs__tiny_bert"):
            Migration(source, None, tiny, how).run()
    (folder,) = tmp_path.glob("migrate-postgresql-*-docs-to-docs__tiny_bert")
    records = list((folder / "job.lemni" / "shards").glob("*.json"))
    assert len(records) == 3
    postgres.start()
    # And a moment without the store is waited for.
    monkeypatch.setattr(connections, "WAITS_S", (0.2,) * 100)
    dying(monkeypatch, lambda: (postgres.kill(), threading.Timer(1, postgres.start).start())[0], 3, PgVector)
    done = Migration(source, None, tiny, how).run()
    assert done.switched
    assert done.summary is not None
    assert (done.summary.written, done.summary.resumed) == (300, 90)
    check(dump(source), entries, embedded(tiny, texts(300)))
    check(dump(postgres.address(done.state.old)), entries, np.asarray(entries.vectors))
    undone = Migration(source, None, tiny, how).roll_back()
    assert undone.state.phase == "undone"
    check(dump(source), entries, np.asarray(entries.vectors))


def test_chromas_server_is_killed_in_the_middle(
    fill: Fill, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lemni.stores.chroma import Chroma

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connections, "WAITS_S", (0.05,))
    server, how = ChromaProcess(tmp_path), How(batch=20)
    source = f"chroma://127.0.0.1:{server.port}?collection=docs"
    try:
        server.start()
        entries = fill(source, count=100)
        with monkeypatch.context() as patched:
            dying(patched, server.kill, 3, Chroma)
            with pytest.raises(StoreLost, match="docs__tiny_bert"):
                Migration(source, None, tiny, how).run()
        server.start()
        done = Migration(source, None, tiny, how).run()
        assert done.switched
        assert done.summary is not None
        assert (done.summary.written, done.summary.resumed) == (100, 40)
        check(dump(source), entries, embedded(tiny, texts(100)))
    finally:
        server.kill()
