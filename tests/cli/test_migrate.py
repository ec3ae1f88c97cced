"""`lemni migrate` as a process: what it prints, writes and refuses, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lemni.migrate import How, Migration, migrate
from lemni.stores import open_store
from lemni.stores.base import Page
from tests.bulk.conftest import texts
from tests.migrate.conftest import check, dump, embedded, fill, old_vectors, tiny

from .command import COMMAND, environment, error_line, lemni

__all__ = ["fill", "old_vectors", "tiny"]  # fixtures

Fill = Callable[..., Page]
SOURCE = "faiss:data?collection=docs"


def test_the_whole_way(
    fill: Fill, tiny: str, old_vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = fill(SOURCE, count=60)
    dry = lemni("migrate", SOURCE, "-m", tiny, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert "60 entries" in dry.stdout
    assert "dense vectors, 64 dimensions, cosine" in dry.stdout
    assert "does not exist yet; dense vectors, 32 dimensions, cosine" in dry.stdout
    assert "rows      60" in dry.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    # Judgements of which each side's exact answer is known: a document is what its own text asks for.
    Path("queries.jsonl").write_text("\n".join(json.dumps({"_id": f"q{n}", "text": texts(60)[n]}) for n in range(20)))
    Path("qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\tdoc-{n}\t1\n" for n in range(20)))
    judged = ("--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    done = lemni("migrate", SOURCE, "-m", tiny, "--no-switch", *judged, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ok     counts: 60 entries" in done.stdout
    assert "judged queries, old side: not measured: --old-model" in done.stdout
    assert "judged queries, new side: nDCG@10 1.0000, recall@10 1.0000, 20 queries" in done.stdout
    assert "docs__tiny_bert: verified, not switched" in done.stdout
    check(dump(SOURCE), entries, old_vectors[:60])
    done = lemni("migrate", SOURCE, "-m", tiny, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "docs: switched" in done.stdout
    check(dump(SOURCE), entries, embedded(tiny, texts(60)))
    folder = tmp_path / "migrate-faiss-data-docs-to-docs__tiny_bert"
    report, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    assert "| ids | passed | the same on both sides | the same |" in report
    assert f"--model {tiny} --rollback" in report
    assert "<svg" in page
    assert "<td>passed</td>" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    # Notes for a system that is written to come into the report, once, and nothing else is done.
    for _ in range(2):
        notes = lemni("migrate", SOURCE, "-m", tiny, "--dual-write", cwd=tmp_path)
        assert notes.returncode == 0, notes.stderr
        assert notes.stdout.startswith("1. Embed once")
        noted = (folder / "report.md").read_text()
        assert noted.count("## While the system is written to") == 1
        assert all(line in noted for line in notes.stdout.splitlines())
        assert "## Journal" in noted
        assert [line for line in report.splitlines() if line not in noted.splitlines()] == []
    # Nothing is removed without a yes.
    asked = lemni("migrate", SOURCE, "-m", tiny, "--drop-old", cwd=tmp_path)
    assert "--yes" in error_line(asked)
    assert open_store("faiss:data?collection=docs_before_docs__tiny_bert").exists()
    back = lemni("migrate", SOURCE, "-m", tiny, "--rollback", cwd=tmp_path)
    assert back.returncode == 0, back.stderr
    assert "docs: rolled back" in back.stdout.splitlines()
    check(dump(SOURCE), entries, old_vectors[:60])


def test_a_failed_verification_exits_with_1(
    fill: Fill, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = fill(SOURCE, count=40)
    done = lemni("migrate", SOURCE, "-m", tiny, "--no-switch", "--sample", "40", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    store = open_store("faiss:data?collection=docs__tiny_bert")
    first = store.fetch(["doc-0", "doc-1"])
    store.write(Page(["doc-0"], first.texts[:1], first.metadata[:1], np.asarray(first.vectors)[1:]))
    store.close()
    done = lemni("migrate", SOURCE, "-m", tiny, cwd=tmp_path)
    assert done.returncode == 1
    assert "FAILED vectors: 40 embedded again; lowest cosine" in done.stdout
    assert "not verified: vectors" in done.stderr.splitlines()
    assert "lowest cosine" not in done.stderr
    assert "'doc-0'" in done.stdout
    assert "verification FAILED, not switched" in done.stdout
    check(dump(SOURCE), entries, np.asarray(entries.vectors))
    refused = lemni("migrate", SOURCE, "-m", tiny, "--drop-old", "--yes", cwd=tmp_path)
    assert "did not pass its verification" in error_line(refused)
    assert len(dump(SOURCE)) == 40


def test_the_model_has_to_be_named(fill: Fill, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(SOURCE, count=20)
    before = everything(tmp_path)
    assert "name the new model with --model (or LEMNI_MODEL)" in error_line(lemni("migrate", SOURCE, cwd=tmp_path))
    assert everything(tmp_path) == before
    dry = lemni("migrate", SOURCE, "--dry-run", cwd=tmp_path, env={"LEMNI_MODEL": tiny})
    assert dry.returncode == 0, dry.stderr
    assert f"model: {tiny}" in dry.stderr.splitlines()


def test_an_interrupted_one_says_that_it_goes_on(
    fill: Fill, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(SOURCE, count=300)
    command = ("migrate", SOURCE, "-m", tiny, "--batch", "1", "--no-progress")
    shards = tmp_path / "migrate-faiss-data-docs-to-docs__tiny_bert" / "job.lemni" / "shards"
    process = subprocess.Popen(
        [*COMMAND, *command], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        while process.poll() is None and len(list(shards.glob("*.json"))) < 3:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "lemni: interrupted; the same command goes on"
    assert "Traceback" not in said
    left = len(list(shards.glob("*.json")))
    assert 3 <= left < 300
    done = lemni(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"300 entries are written, {left} of them by an earlier run, the other {300 - left} in " in done.stderr


def everything(folder: Path) -> dict[str, bytes]:
    """All files below it, but locks."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith("lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def on_a_terminal(answer: str, *arguments: str, cwd: Path) -> tuple[int, str]:
    """The exit code and stderr of a command whose user types `answer`."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=cwd, env=environment(), stdin=theirs, capture_output=True, timeout=120
        )
    finally:
        os.close(ours)
        os.close(theirs)
    return done.returncode, done.stderr.decode()


def test_only_what_is_switched_and_verified_is_dropped(
    fill: Fill, tiny: str, old_vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = fill(SOURCE, count=40)
    drop = ("migrate", SOURCE, "-m", tiny, "--drop-old")

    def refused(why: str) -> None:
        before = everything(tmp_path)
        assert why in error_line(lemni(*drop, "--yes", cwd=tmp_path))
        assert everything(tmp_path) == before

    refused("has not been verified. First give the same command without --drop-old")
    assert migrate(SOURCE, model=tiny, how=How(switch=False)).ok
    refused("was not switched")
    done = migrate(SOURCE, model=tiny)
    assert done.switched
    before = everything(tmp_path)
    assert "no terminal: --yes" in error_line(lemni(*drop, cwd=tmp_path))
    code, said = on_a_terminal("n", *drop, cwd=tmp_path)
    assert (code, "Remove faiss:data?collection=docs_before_docs__tiny_bert for good?" in said) == (130, True), said
    assert everything(tmp_path) == before
    Migration(SOURCE, None, tiny).roll_back()
    refused("was rolled back")
    code, said = on_a_terminal("y", *drop, cwd=tmp_path)
    assert (code, "was rolled back" in said) == (2, True), said
    check(dump(SOURCE), entries, old_vectors[:40])
    assert migrate(SOURCE, model=tiny).switched
    code, said = on_a_terminal("y", *drop, cwd=tmp_path)
    assert code == 0, said
    assert not open_store("faiss:data?collection=docs_before_docs__tiny_bert").exists()
    check(dump(SOURCE), entries, embedded(tiny, texts(40)))
    again = lemni(*drop, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rows.jsonl",), "is no vector store: name the store"),
        ((SOURCE, "new.npy"), "is no address of a vector store"),
        ((SOURCE, "faiss:data?collection=docs"), "are the same collection"),
        ((SOURCE,), "there is no"),
        ((SOURCE, "--rollback"), "nothing was switched"),
        ((SOURCE, "--dry-run", "--rollback"), "choose one"),
        ((SOURCE, "--queries", "q.jsonl"), "--queries and --qrels"),
    ],
)
def test_mistakes_are_a_line(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in error_line(lemni("migrate", *arguments, "-m", "all-MiniLM-L6-v2", cwd=tmp_path))
    assert not list(tmp_path.iterdir())
