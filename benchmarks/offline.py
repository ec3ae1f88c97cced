"""Lemni and its peers in a process each: texts/s and pairs/s, in turns, beside what this machine could do at best."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks import limits, shapes
from benchmarks.peers import engines as peers
from benchmarks.peers.engines import Engine
from benchmarks.peers.process import Process
from benchmarks.report import Report
from benchmarks.works import Texts, Work

COLUMNS = ("gflop_per_s", "texts_per_s", "tokens_per_s", "of_limit", "with_attention", "mean_cosine", "min_cosine")
Measured = dict[str, dict[str, float]]


def measure(running: Mapping[str, Process], work: Work, rounds: int) -> tuple[Measured, dict[str, str]]:
    """Median seconds of each engine, which take turns after a round that does not count; reasons of those that fail."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, process in running.items():
            if name in failed:
                continue
            try:
                answer = process.ask({"texts": work.texts})
            except RuntimeError as error:
                failed[name] = str(error)
                continue
            if number:
                found[name].append(answer)
    medians = {
        name: {key: median(one[key] for one in values) for key in values[0]} for name, values in found.items() if values
    }
    return {name: values for name, values in medians.items() if name not in failed}, failed


def vectors(process: Process, work: Work) -> NDArray[np.float32]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        process.ask({"texts": work.texts, "vectors": str(path)})
        found: NDArray[np.float32] = np.load(path)
    return found


def alike(found: NDArray[np.float32], reference: NDArray[np.float32]) -> dict[str, float]:
    """Cosines of rows, whatever their length."""
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(reference, axis=-1)
    cosines = np.sum(found.astype(np.float64) * reference, axis=-1) / lengths
    return {"mean_cosine": float(cosines.mean()), "min_cosine": float(cosines.min())}


def rates(work: Work, wall_s: float, about: limits.Shapes, limit: float) -> dict[str, float]:
    """`limit` in GFLOP/s. Its fraction counts linear layers only, or attention too, of real tokens without padding."""
    linear, attention = about.linear_flop(work.tokens), about.attention_flop(work.lengths)
    return {
        "texts_per_s": work.items / wall_s,
        "tokens_per_s": work.tokens / wall_s,
        "of_limit": linear / wall_s / limit / 1e9,
        "with_attention": (linear + attention) / wall_s / limit / 1e9,
    }


def compare(
    report: Report,
    chosen: Sequence[Engine],
    model: Path,
    works: Sequence[Work],
    rounds: int,
    *,
    title: str = "",
    correct: bool = True,
) -> None:
    """Add a case for each work. `correct`: compare vectors of the first work with sentence-transformers on torch."""
    about, threads = limits.Shapes.of(model), peers.default_threads()
    names = {engine.name: engine for engine in chosen}
    with peers.started(chosen, model, threads) as (running, failed):
        limit = limits.add(report, title or "MiniLM-L6", about, threads)
        cosines = _cosines(running, model, works[0], threads) if correct else {}
        for work in works:
            found, errors = measure({name: one for name, one in running.items() if name not in failed}, work, rounds)
            failed |= errors
            for name, values in found.items():
                more = cosines.get(name, {}) if work is works[0] else {}
                measured = rates(work, values["wall_s"], about, limit[names[name].precision])
                cpu = {"tokens_per_cpu_s": work.tokens / values["cpu_s"]} if values["cpu_s"] else {}
                report.add(f"{title}{', ' if title else ''}{work.name}", name, **measured, **more, **cpu)
    for name, reason in failed.items():
        report.note(f"{title or 'MiniLM-L6'}: {name} cannot be run: {reason}")


def _cosines(running: Mapping[str, Process], model: Path, work: Work, threads: int) -> dict[str, dict[str, float]]:
    if peers.REFERENCE.name in running:
        reference = vectors(running[peers.REFERENCE.name], work)
    else:
        # Not among those that are compared, or not installed: the tests' own environment has it too.
        process = peers.start(peers.own(peers.REFERENCE), model, threads)
        try:
            reference = vectors(process, work)
        finally:
            process.close()
    return {name: alike(vectors(process, work), reference) for name, process in running.items()}


def report_of(name: str, title: str, output: Path | None, fill: Callable[[Report], None]) -> Report:
    """Fill a report, print it and save it if there is a folder."""
    report = Report(name, title)
    fill(report)
    report.print(COLUMNS, base=peers.INFINITY.name)
    if output:
        report.save(output, "tokens_per_s")
    return report


def main(rounds: int = 3, engines: Sequence[str] | None = None, output: Path | None = None) -> None:
    def fill(report: Report) -> None:
        model = peers.default_model()
        texts = Texts(model / "tokenizer.json")
        report.note(f"texts: {texts.source}; {peers.default_threads()} threads for every engine")
        report.note(f"median of {rounds} rounds, in turns")
        works = [texts.mixed(150), texts.short(300), texts.long(24)]
        compare(report, peers.named(peers.EMBED, engines), model, works, rounds)
        for name, folder in shapes.cross_encoders(model):
            compare(
                report,
                peers.named(peers.RERANK, engines),
                folder,
                [texts.pairs(100)],
                rounds,
                title=name,
                correct=False,
            )
        for name, folder in shapes.encoders(model):
            work = shapes.work(texts, name)
            compare(report, peers.named(peers.SHAPES, engines), folder, [work], rounds, title=name)

    report_of("offline", "Offline throughput", output, fill)


if __name__ == "__main__":
    main()
