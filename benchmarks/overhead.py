"""What a server costs beside its model: requests/s and its CPU time with a model that computes next to nothing.

Lemni serves a static model, which looks words up in a table; Infinity its debugengine, which looks up nothing, made to
answer with as many random numbers. Its own answer is 13 numbers such as 42.0, and is here too, beside Lemni with 13.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.client import write_model
from benchmarks.load import Load
from benchmarks.peers.servers import MODEL, Engine, chosen, infinity, lemni, peer_python, running
from benchmarks.report import Report
from benchmarks.texts import mixed

CLIENTS = 64
SIZES = (1, 16)
ENCODINGS = ("float", "base64")
DIM, DEBUG_DIM = 384, 13
BASE = f"infinity {DIM}"
COLUMNS = ("requests_per_s", "requests_per_cpu_s", "cpu_us_per_request", "cpu_us_per_text", "p50_ms", "bytes_per_text")
# Infinity's debugengine with a row of a table for each length of a text, in place of its own constant row.
WIDE = f"""
import sys
import numpy as np
from infinity_emb.transformer.embedder.dummytransformer import DummyTransformer
rows = np.random.default_rng(0).standard_normal((1024, {DIM})).astype(np.float32)
rows /= np.linalg.norm(rows, axis=1, keepdims=True)
DummyTransformer.encode_core = lambda self, texts: rows[[len(text) % 1024 for text in texts]]
from infinity_emb.cli import cli
cli()
"""


def wide_infinity(name: str) -> Engine:
    narrow = infinity(name, "debugengine")

    def command(model: Path, port: int) -> list[str]:
        arguments = narrow.command(model, port)
        return [peer_python("infinity"), "-c", WIDE, *arguments[arguments.index("v2") :]]

    return Engine(name, command, narrow.path, narrow.peer)


def main(
    rounds: int = 5, seconds: float = 2.0, output: Path | None = None, engines: Sequence[str] | None = None
) -> None:
    report = Report("overhead", f"{CLIENTS} clients, a model that costs nothing")
    texts = mixed(2048)
    requests = {size: [texts[start : start + size] for start in range(0, len(texts), size)] for size in SIZES}
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for dim in (DIM, DEBUG_DIM):
            write_model(folder / str(dim), dim)
        # Infinity's engine takes any name for its model, and reads nothing.
        cases = (
            (lemni(f"lemni {DIM}"), DIM),
            (wide_infinity(BASE), DIM),
            (lemni(f"lemni {DEBUG_DIM}"), DEBUG_DIM),
            (infinity(f"infinity {DEBUG_DIM}", "debugengine"), DEBUG_DIM),
        )
        models = {engine.name: folder / str(dim) for engine, dim in cases}
        run, absent = chosen([engine for engine, _ in cases], engines, folder)
        servers = {engine.name: stack.enter_context(running(engine, models[engine.name])) for engine, _ in run}
        load = stack.enter_context(Load())
        # The first round does not count.
        for number in range(rounds + 1):
            for size, encoding in itertools.product(SIZES, ENCODINGS):
                case = f"{size} {'text' if size == 1 else 'texts'} a request, {encoding}"
                for name, server in servers.items():
                    before = server.cpu_s()
                    one = load.run(
                        server.url,
                        requests[size],
                        clients=CLIENTS,
                        seconds=seconds if number else seconds / 2,
                        model=MODEL,
                        encoding_format=encoding,
                    )
                    cpu_s = server.cpu_s() - before
                    values = {
                        "requests_per_cpu_s": one.requests / cpu_s,
                        "requests_per_s": one.requests / one.wall_s,
                        "cpu_us_per_request": 1e6 * cpu_s / one.requests,
                        "cpu_us_per_text": 1e6 * cpu_s / one.texts,
                        "p50_ms": one.quantile(0.5),
                        "load_cpu_us_per_request": 1e6 * one.cpu_s / one.requests,
                        "bytes_per_text": one.answer_bytes / one.texts,
                    }
                    if number:
                        found[case, name].append(values)
    for (case, name), each in found.items():
        report.add(case, name, **{key: median(values[key] for values in each) for key in each[0]})
    for line in absent:
        report.note(line)
    report.note(f"{DIM} and {DEBUG_DIM}: numbers of a vector")
    report.note("Lemni also splits texts into words and counts them; the debugengine takes a text's length")
    report.print(COLUMNS, base=BASE if BASE in servers else None)
    if output:
        report.save(output)


if __name__ == "__main__":
    main()
