"""Servers under load, side by side: texts/s and latency by clients and size of a request, and a query beside bulk work.

All servers stay up and take turns; each shares the machine with the load generator, as on a laptop. The loop is
closed: a client sends its next request when it has the answer to the last.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from tests.shared import STSB, stsb
from tokenizers import Tokenizer

from benchmarks.load import Load, Measured
from benchmarks.peers.servers import INFINITY, MODEL, SERVERS, Server, chosen, running
from benchmarks.report import Report
from benchmarks.texts import mixed
from lemni.config import DEFAULT_MODEL, HubSettings
from lemni.hub import resolve
from lemni.quantize.data import read_collection

CLIENTS = (1, 16, 64)
SIZES = (1, 4, 32)
CRANFIELD = STSB.parents[1] / "cranfield"
QUERY_TOKENS = 12
PAUSE_S = 0.05
"""Between the queries of somebody who does not only wait for answers."""
SPIN_S = 1.5
"""vLLM's workers spin for a second after their last request, which the next server must not pay."""
BULK_CLIENTS = 2
BULK_SIZES = (128, 256)
DOCUMENT_WORDS = 64
UNTIL_STOPPED = 3600.0

LOAD_COLUMNS = ("texts_per_s", "p50_ms", "p95_ms", "p99_ms", "cpu_ms_per_text", "load_cpu_pct")
QUERY_COLUMNS = ("p50_ms", "p95_ms", "p95_by_idle", "queries", "bulk_texts_per_s")


def short_texts() -> list[str]:
    """Sentences and queries as users send them, in random order."""
    if not (STSB.exists() and CRANFIELD.exists()):
        return mixed(3000)
    first, second, _ = stsb()
    texts = sorted({*first, *second, *read_collection(CRANFIELD).queries})
    random.Random(0).shuffle(texts)
    return texts


def documents() -> list[str]:
    """Of DOCUMENT_WORDS words at most: whole ones would make the wait for the last answers long."""
    texts = read_collection(CRANFIELD).documents if CRANFIELD.exists() else mixed(1400, mean_words=4.9, spread=0.5)
    return [" ".join(text.split()[:DOCUMENT_WORDS]) for text in texts if text]


def queries(model: Path) -> list[list[str]]:
    """A text a request, each of QUERY_TOKENS tokens."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = short_texts()
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    return [[text] for text, length in zip(texts, lengths, strict=True) if length == QUERY_TOKENS]


def cut(texts: Sequence[str], *sizes: int) -> list[list[str]]:
    """Requests of these sizes in turn."""
    requests, start = [], 0
    while start + (size := sizes[len(requests) % len(sizes)]) <= len(texts):
        requests.append(list(texts[start : start + size]))
        start += size
    return requests


def under_load(servers: Mapping[str, Server], load: Load, rounds: int, seconds: float) -> Report:
    report = Report("online", "Closed loop: texts/s and latency (ms) by clients and texts of a request")
    texts = short_texts()
    requests = {size: cut(texts, size) for size in SIZES}
    for server in servers.values():
        for size in SIZES:
            load.run(server.url, requests[size], clients=16, seconds=seconds / 2, model=MODEL)
    found: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for clients in CLIENTS:
            for size in SIZES:
                for name, server in servers.items():
                    before = server.cpu_s()
                    one = load.run(server.url, requests[size], clients=clients, seconds=seconds, model=MODEL)
                    case = f"{clients} clients x {size} texts"
                    found[case, name].append(_values(one, server.cpu_s() - before))
                    if "vllm" in name:
                        time.sleep(SPIN_S)
    for (case, name), values in found.items():
        report.add(case, name, **{key: median(one[key] for one in values) for key in values[0]})
    return report


def _values(one: Measured, server_cpu_s: float) -> dict[str, float]:
    return {
        "texts_per_s": one.texts / one.wall_s,
        "p50_ms": one.quantile(0.5),
        "p95_ms": one.quantile(0.95),
        "p99_ms": one.quantile(0.99),
        "cpu_ms_per_text": 1000 * server_cpu_s / one.texts,
        "load_cpu_pct": 100 * one.cpu_s / (one.cpu_s + server_cpu_s or 1),
    }


def beside_bulk(
    servers: Mapping[str, Server], asked: Sequence[Sequence[str]], load: Load, rounds: int, seconds: float
) -> Report:
    title = f"A query of {QUERY_TOKENS} tokens: idle, and beside {BULK_CLIENTS} clients with documents (ms)"
    report = Report("query", title)
    bulk = cut(documents(), *BULK_SIZES)
    paces = {"back to back": 0.0, f"every {1000 * PAUSE_S:.0f} ms": PAUSE_S}
    latencies: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    bulk_rates: dict[str, list[float]] = defaultdict(list)

    def ask(server: Server, name: str, state: str) -> None:
        for pace, pause_s in paces.items():
            one = load.run(server.url, asked, clients=1, seconds=seconds, pause_s=pause_s, model=MODEL)
            latencies[pace, state, name] += one.latencies_ms

    with Load() as other:
        for _ in range(rounds):
            for name, server in servers.items():
                ask(server, name, "idle")
                other.start(server.url, bulk, clients=BULK_CLIENTS, seconds=UNTIL_STOPPED, model=MODEL)
                time.sleep(0.7)
                ask(server, name, "beside bulk")
                other.stop()
                one = other.result()
                bulk_rates[name].append(one.texts / one.wall_s)
    for (pace, state, name), values in latencies.items():
        p50, p95 = (float(value) for value in np.quantile(values, (0.5, 0.95)))
        idle_p95 = float(np.quantile(latencies[pace, "idle", name], 0.95))
        more = {"bulk_texts_per_s": median(bulk_rates[name])} if state != "idle" else {}
        case = f"{state}, {pace}"
        report.add(case, name, p50_ms=p50, p95_ms=p95, p95_by_idle=p95 / idle_p95, queries=len(values), **more)
    return report


def main(
    rounds: int = 3, seconds: float = 1.5, output: Path | None = None, engines: Sequence[str] | None = None
) -> None:
    model = resolve(DEFAULT_MODEL, HubSettings()).path
    run, absent = chosen(SERVERS, engines, model)
    with ExitStack() as stack:
        servers = {}
        for engine, files in run:
            try:
                servers[engine.name] = stack.enter_context(running(engine, files))
            except RuntimeError as error:
                absent.append(f"{engine.name} was not run: {error}")
        load = stack.enter_context(Load())
        base = INFINITY if INFINITY in servers else next(iter(servers))
        for measure, columns in (
            (partial(under_load, servers), LOAD_COLUMNS),
            (partial(beside_bulk, servers, queries(model)), QUERY_COLUMNS),
        ):
            report = measure(load, rounds, seconds)
            for line in absent:
                report.note(line)
            report.print(columns, base=base)
            if output:
                report.save(output)


if __name__ == "__main__":
    main()
