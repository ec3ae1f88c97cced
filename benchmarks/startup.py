"""Start to first vector, memory while serving the default model and installed size: of lemni and its peers."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx

from benchmarks.peers.environments import environment
from benchmarks.peers.servers import INFINITY, MODEL, SERVERS, chosen, running
from benchmarks.report import Report
from benchmarks.texts import mixed
from lemni.config import DEFAULT_MODEL, HubSettings
from lemni.hub import resolve

ROOT = Path(__file__).parents[1]
BULK_REQUESTS, BULK_SIZE = 5, 500


def installed_mb() -> float:
    """MB (10^6 bytes on disk) of an empty virtual environment after `pip install .`"""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([f"{folder}/bin/pip", "install", "--quiet", str(ROOT)], check=True)
        return du_mb(Path(folder))


def du_mb(folder: Path | None) -> float:
    """MB (10^6 bytes) that a folder takes on disk."""
    used = subprocess.run(["du", "-sk", str(folder)], check=True, capture_output=True, text=True).stdout
    return int(used.split()[0]) * 1024 / 1e6


@contextmanager
def served(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process on a free port, and its address, as soon as it says that it is ready."""
    command = [str(Path(sys.executable).with_name("lemni")), "serve", "--port", "0", "--device", "cpu", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"http://[\d.]+:\d+", line):
                yield process, found.group()
                return
        raise RuntimeError("the server has stopped")
    finally:
        process.terminate()
        process.wait()


def embed(url: str, texts: list[str]) -> None:
    answer = httpx.post(url, json={"input": texts, "model": MODEL}, timeout=600)
    assert len(answer.json()["data"]) == len(texts)


def main(rounds: int = 2, output: Path | None = None, engines: Sequence[str] | None = None) -> None:
    report = Report("startup", "From start to first vector with a warm file cache, memory, installed size")
    model = resolve(DEFAULT_MODEL, HubSettings()).path
    run, absent = chosen(SERVERS, engines, model)
    found: dict[str, list[dict[str, float]]] = {engine.name: [] for engine, _ in run}
    # The first round does not count.
    for number in range(rounds + 1):
        for engine, files in run:
            if engine.name not in found:
                continue
            try:
                with running(engine, files) as server:
                    values = {"start_s": server.start_s, "start_cpu_s": server.cpu_s()}
                    values["resident_mb"] = server.memory_mb()
                    if number == rounds:
                        for seed in range(BULK_REQUESTS):
                            embed(server.url, mixed(BULK_SIZE, seed))
                        values |= {"after_bulk_mb": server.memory_mb(), "peak_mb": server.peak_mb()}
            except RuntimeError as error:
                del found[engine.name]
                absent.append(f"{engine.name} was not run: {error}")
                continue
            if number:
                found[engine.name].append(values)
    sizes = {engine.peer: du_mb(environment(engine.peer)) if engine.peer else installed_mb() for engine, _ in run}
    peers = {engine.name: engine.peer for engine, _ in run}
    for name, each in found.items():
        keys = dict.fromkeys(key for values in each for key in values)
        middle = {key: median(values[key] for values in each if key in values) for key in keys}
        report.add("default model", name, **middle, installed_mb=sizes[peers[name]])
    for line in absent:
        report.note(line)
    report.note(
        f"bulk: {BULK_REQUESTS} requests of {BULK_SIZE} texts of mixed length; installed: the whole environment"
    )
    report.print(("start_s", "start_cpu_s", "resident_mb", "after_bulk_mb", "peak_mb", "installed_mb"), base=INFINITY)
    if output:
        report.save(output)


if __name__ == "__main__":
    main()
