"""Bulk embedding, the bare engine and sentence-transformers: the same sentences from a file into a file, in turns."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import numpy as np

import lemni
import lemni.bulk
from benchmarks.peers.engines import default_model
from benchmarks.report import Report
from benchmarks.texts import mixed

SENTENCES = 3000
BARE = "the bare engine"
COLUMNS = ("texts_per_s", "texts_per_cpu_s", "wall_s", "cpu_s")


def cpu_s() -> float:
    """Of this process's threads, in seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def alternate(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Wall and CPU seconds of each case in each round, after one round that does not count."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            wall, cpu = time.perf_counter(), cpu_s()
            case()
            if number:
                found[name].append((time.perf_counter() - wall, cpu_s() - cpu))
    return found


def ratios(found: Mapping[str, list[tuple[float, float]]], base: str) -> dict[str, tuple[float, float]]:
    """Median over the rounds of each case's wall and CPU time to those of `base` in the same round."""
    return {
        name: (
            median(mine[0] / other[0] for mine, other in zip(rows, found[base], strict=True)),
            median(mine[1] / other[1] for mine, other in zip(rows, found[base], strict=True)),
        )
        for name, rows in found.items()
    }


def cases_of(folder: Path, texts: list[str]) -> dict[str, Callable[[], object]]:
    """Each loads the model, reads the file, embeds, and writes a file of vectors."""
    model, source = default_model(), folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")

    def read() -> list[str]:
        return [json.loads(line)["text"] for line in source.read_text("utf-8").splitlines()]

    def bare() -> None:
        with lemni.load(str(model)) as engine:
            np.save(folder / "bare.npy", engine.embed(read()))

    def bulk() -> None:
        lemni.bulk.embed(source, folder / "bulk.npy", model=str(model), overwrite=True, progress=False)

    cases: dict[str, Callable[[], object]] = {BARE: bare, "lemni.bulk.embed": bulk}
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return cases

    def reference() -> None:
        encoder = SentenceTransformer(str(model), device="cpu")
        np.save(folder / "reference.npy", encoder.encode(read(), show_progress_bar=False))

    return {**cases, "sentence-transformers encode": reference}


def main(rounds: int = 5, output: Path | None = None) -> None:
    texts = mixed(SENTENCES, mean_words=2.3)
    report = Report("bulk", "Bulk embedding")
    with tempfile.TemporaryDirectory() as folder:
        cases = cases_of(Path(folder), texts)
        found = alternate(cases, rounds)
        vectors = [np.load(path) for path in sorted(Path(folder).glob("*.npy")) if not path.stem.endswith(".ids")]
    for name, rows in found.items():
        wall, cpu = (median(values) for values in zip(*rows, strict=True))
        per = {"texts_per_s": len(texts) / wall, "texts_per_cpu_s": len(texts) / cpu}
        report.add(f"{len(texts)} sentences, MiniLM-L6", name, **per, wall_s=wall, cpu_s=cpu)
    report.note(f"median of {rounds} rounds, in turns; each loads the model, reads the file and writes one")
    for name, (wall, cpu) in ratios(found, BARE).items():
        if name != BARE:
            report.note(f"{name}: {wall:.3f} of the bare engine's time, {cpu:.3f} of its CPU time (medians of rounds)")
    difference = max(float(np.abs(one - vectors[0]).max()) for one in vectors)
    report.note(f"largest difference of any two values: {difference:.1e}")
    report.print(COLUMNS, base=BARE)
    if output:
        report.save(output, "texts_per_cpu_s")


if __name__ == "__main__":
    main()
