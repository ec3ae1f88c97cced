"""From 1 to 1,000 replicas: latency, throughput and cost by simulation with the real scheduler, and what limits each.

Measured first, in this run (or read with `--measured`): how long a pass of the default model takes by its tokens, what
tokenising and HTTP cost, how fast embedded stores write. Then simulated: requests at a share of the replicas' capacity,
of which a few are bulk.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import write_model
from benchmarks.cluster import BALANCERS, Arrivals, Outcome, balancer, sequence, simulate
from benchmarks.load import Load
from benchmarks.peers.servers import MODEL, lemni, running
from benchmarks.report import Report
from benchmarks.texts import mixed
from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.errors import LemniError
from lemni.loading import load_model
from lemni.types import PackedBatch, Request

REPLICAS = (1, 4, 16, 64, 256, 1000)
LOADS = (0.5, 0.8)
"""Shares of the tokens that full passes could compute."""
PASSES = (8, 16, 32, 64, 128, 256, 512)
BUDGET, ENOUGH = 512, 64  # `lemni.runtimes.cpu`
BULK_SHARE, BULK_TEXTS = 0.04, 16
"""Of the requests, and texts of each; the others are one query."""
DIM = 384
PRICE_PER_CPU_HOUR = 0.04
LINK_GBIT_PER_S = 10.0
STORES = ("chroma", "lancedb")
COLUMNS = (
    "requests_per_s", "tokens_per_s", "p50_ms", "p99_ms", "bulk_p50_ms", "bulk_p99_ms", "busy",
    "usd_per_million_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What one replica and its surroundings do on this machine.

    Attributes:
        pass_ms: of the fastest forward pass of several, by `PASSES`.
        query_tokens, document_tokens: lengths that occur.
        text_bytes: of a query and of a document, on average, as JSON.
        tokenized_per_cpu_s: texts that one core tokenises in a second.
        requests_per_cpu_s: of one text, answered in base64 by a server whose model costs nothing.
        answer_bytes: of such an answer.
        writes_per_s: vectors that a store takes in a second, from one writer.
    """

    cores: int
    pass_ms: list[float]
    query_tokens: list[int]
    document_tokens: list[int]
    text_bytes: list[float]
    tokenized_per_cpu_s: float
    requests_per_cpu_s: float
    answer_bytes: float
    writes_per_s: dict[str, float]

    def pass_s(self, tokens: int) -> float:
        return float(np.interp(tokens, PASSES, self.pass_ms)) / 1000

    @property
    def tokens_per_s(self) -> float:
        """Of a replica, in full passes."""
        return BUDGET / self.pass_s(BUDGET)

    @property
    def texts_per_request(self) -> float:
        return 1 - BULK_SHARE + BULK_SHARE * BULK_TEXTS

    @property
    def tokens_per_request(self) -> float:
        query, document = np.mean(self.query_tokens), np.mean(self.document_tokens)
        return float((1 - BULK_SHARE) * query + BULK_SHARE * BULK_TEXTS * document)


def main(
    rounds: int = 15,
    seconds: float = 2.0,
    output: Path | None = None,
    measured: Path | None = None,
    price: float = PRICE_PER_CPU_HOUR,
    link: float = LINK_GBIT_PER_S,
) -> None:
    """`measured` is what an earlier run has written beside its report. `price` is of a CPU core for an hour, in USD;
    `link` the network's width at one place, in Gbit/s."""
    report = Report("scale", "1 to 1,000 replicas")
    known = Measured(**json.loads(measured.read_text("utf-8"))) if measured else measure(rounds, seconds, report.note)
    cases = [(replicas, load, name) for load, replicas in product(LOADS, REPLICAS) for name in balancers(replicas)]
    # Processes that share nothing: the parent has threads of a model's runtime. The long ones come first.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        order = sorted(cases, key=lambda case: -case[0])
        found = dict(zip(order, pool.map(simulated, [known] * len(order), order), strict=True))
    for replicas, load, name in cases:
        values = found[replicas, load, name]
        dollars_per_s = known.cores * replicas * price / 3600
        values["usd_per_million_tokens"] = 1e6 * dollars_per_s / values["tokens_per_s"]
        report.add(f"load {load}", f"{replicas}, {name}", **values)
    for replicas in REPLICAS:
        rate = found[replicas, LOADS[-1], balancers(replicas)[0]]["requests_per_s"]
        report.add(f"units needed at load {LOADS[-1]}", f"{replicas}", **needs(known, rate, link))
    for line in assumptions(known, price, link):
        report.note(line)
    report.print((*COLUMNS, *needs(known, 1.0, link)))
    if output:
        report.save(output, "p99_ms")
        (output / "scale-measured.json").write_text(json.dumps(asdict(known), indent=2) + "\n", "utf-8")


def balancers(replicas: int) -> tuple[str, ...]:
    """Those worth simulating. Split at random, any number of replicas are queues of their own, each like that of one;
    in turns, it makes no difference any more beyond some dozens of them."""
    if replicas == 1:
        return ("random",)
    return BALANCERS[1:] if replicas <= 64 else BALANCERS[2:]


def assumptions(known: Measured, price: float, link: float) -> Iterator[str]:
    """What the numbers stand on, for the reader."""
    tokens, ms = (", ".join(texts) for texts in (map(str, PASSES), (f"{one:.1f}" for one in known.pass_ms)))
    yield f"a replica is {known.cores} cores: passes of {tokens} tokens take {ms} ms"
    yield f"full passes compute {known.tokens_per_s:,.0f} tokens/s, which is load 1"
    query, document = np.mean(known.query_tokens), np.mean(known.document_tokens)
    yield f"{100 - 100 * BULK_SHARE:g} % of the requests are one query of {query:.0f} tokens on average"
    yield f"the others are bulk, {BULK_TEXTS} texts of {document:.0f} tokens, and are stored; p50, p99 are of queries"
    yield (
        f"one core tokenises {known.tokenized_per_cpu_s:,.0f} texts/s (half queries, half documents) and answers "
        f"{known.requests_per_cpu_s:,.0f} requests/s"
    )
    stores = ", ".join(f"{name} {rate:,.0f}" for name, rate in known.writes_per_s.items())
    yield f"vectors/s that one writer stores: {stores or 'not measured'}"
    yield f"assumed: {price:g} USD for a core for an hour, links of {link:g} Gbit/s"
    yield "random: any number of replicas that get requests at random are each like one"


def simulated(known: Measured, case: tuple[int, float, str]) -> dict[str, float]:
    """One simulation: so many replicas at a load behind a balancer."""
    replicas, load, name = case
    # Enough for queues to settle; many replicas with a good balancer need less each.
    count = min(max(20_000, 200 * replicas), 120_000)
    rate = load * replicas * known.tokens_per_s / known.tokens_per_request
    sent = arrivals(known, rate, count, seed=replicas)
    balance = balancer(name, replicas, seed=1)
    outcome = simulate(replicas, sent, known.pass_s, balance, budget=BUDGET, enough=ENOUGH, warm_up=0.3)
    return {"requests_per_s": rate, **summary(outcome, sent)}


def arrivals(measured: Measured, rate: float, count: int, seed: int) -> Arrivals:
    """Poisson arrivals of queries and bulk requests, by `rate` a second."""
    rng = np.random.default_rng(seed)
    times = rng.exponential(1 / rate, count).cumsum()
    bulk = rng.permutation(count) < BULK_SHARE * count  # exactly so many: less noise
    queries = rng.choice(measured.query_tokens, count).tolist()
    lengths = [
        rng.choice(measured.document_tokens, BULK_TEXTS).tolist() if is_bulk else [query]
        for is_bulk, query in zip(bulk.tolist(), queries, strict=True)
    ]
    return Arrivals(times, lengths, ["bulk" if is_bulk else "interactive" for is_bulk in bulk])


def summary(outcome: Outcome, sent: Arrivals) -> dict[str, float]:
    """In milliseconds, of those that were not refused."""
    bulk = np.array([priority == "bulk" for priority in sent.priorities[outcome.first :]])
    ms = 1000 * outcome.latencies_s
    quantiles = {
        f"{prefix}p{int(100 * share)}_ms": float(np.nanquantile(ms[which], share))
        for prefix, which in (("", ~bulk), ("bulk_", bulk))
        for share in (0.5, 0.99)
    }
    return {"tokens_per_s": outcome.tokens_per_s, "busy": outcome.busy, "refused": float(outcome.refused), **quantiles}


def needs(measured: Measured, requests_per_s: float, link_gbit_per_s: float) -> dict[str, float]:
    """How many of each it takes to carry so many requests a second: cores, links, writers of a store."""
    texts_per_s = requests_per_s * measured.texts_per_request
    stored_per_s = requests_per_s * BULK_SHARE * BULK_TEXTS
    query_bytes, document_bytes = measured.text_bytes
    sent = (1 - BULK_SHARE) * query_bytes + BULK_SHARE * BULK_TEXTS * document_bytes
    base64 = 4 * -(-4 * DIM // 3)
    envelope = measured.answer_bytes - base64

    def links(vector_bytes: float) -> float:
        each = sent + envelope + measured.texts_per_request * vector_bytes
        return 8e-9 * requests_per_s * each / link_gbit_per_s

    found = {
        "compute_cores": requests_per_s * measured.tokens_per_request / measured.tokens_per_s * measured.cores,
        "http_cores": requests_per_s / measured.requests_per_cpu_s,
        "tokenizer_cores": texts_per_s / measured.tokenized_per_cpu_s,
        "links_float32": links(base64),
        "links_int8": links(4 * -(-DIM // 3)),
    }
    return found | {f"{name}_writers": stored_per_s / rate for name, rate in measured.writes_per_s.items()}


def measure(rounds: int, seconds: float, note: Callable[[str], None]) -> Measured:
    """Everything that the simulation and its limits stand on, on this machine, now."""
    queries = mixed(400, seed=1, mean_words=2.0, spread=0.5)
    documents = mixed(400, seed=2, mean_words=3.5, spread=0.6)
    with closing(load_model(ModelSettings(device="cpu"), HubSettings(), EngineSettings())) as model:
        model.tokenize(Request(queries[:8]), 0, 8)
        cpu_s = time.process_time()
        lengths = [
            [sum(map(len, one)) for one in model.tokenize(Request(texts), 0, len(texts)) if isinstance(one, list)]
            for texts in (queries, documents)
        ]
        tokenized_per_cpu_s = (len(queries) + len(documents)) / (time.process_time() - cpu_s)
        with closing(model.new_runtime(0)) as runtime:
            pass_ms = _passes_ms(runtime.run, rounds)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), DIM)
        texts = [[text] for text in queries]
        with running(lemni("lemni"), Path(folder)) as server, Load() as load:
            options: dict[str, Any] = {"clients": 16, "model": MODEL, "encoding_format": "base64"}
            load.run(server.url, texts, seconds=seconds / 2, **options)
            before = server.cpu_s()
            one = load.run(server.url, texts, seconds=seconds, **options)
            requests_per_cpu_s = one.requests / (server.cpu_s() - before)
    return Measured(
        cores=len(os.sched_getaffinity(0)),
        pass_ms=pass_ms,
        query_tokens=lengths[0],
        document_tokens=lengths[1],
        text_bytes=[_json_bytes(queries), _json_bytes(documents)],
        tokenized_per_cpu_s=tokenized_per_cpu_s,
        requests_per_cpu_s=requests_per_cpu_s,
        answer_bytes=one.answer_bytes / one.requests,
        writes_per_s=dict(_writes(note)),
    )


def _passes_ms(run: Callable[[PackedBatch], object], rounds: int) -> list[float]:
    """The fastest of each of `PASSES`, which take turns: what a machine that does nothing else needs. Sequences have at
    most 32 tokens."""
    batches = [
        PackedBatch.pack([sequence(min(32, tokens - start)) for start in range(0, tokens, 32)]) for tokens in PASSES
    ]
    found = [float("inf")] * len(batches)
    for number in range(rounds + 2):
        for place, batch in enumerate(batches):
            began = time.perf_counter()
            run(batch)
            if number >= 2:  # the first are slow
                found[place] = min(found[place], 1000 * (time.perf_counter() - began))
    return found


def _json_bytes(texts: list[str]) -> float:
    return sum(len(json.dumps(text)) + 1 for text in texts) / len(texts)


def _writes(note: Callable[[str], None], count: int = 4096, page: int = 1024) -> Iterator[tuple[str, float]]:
    """Vectors a second into a new collection of each embedded store that is installed."""
    from lemni.stores import open_store
    from lemni.stores.base import Page, Schema

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for name in STORES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                with closing(open_store(f"{name}:{folder}/store?collection=scale")) as store:
                    store.create(Schema(DIM))
                    began = time.perf_counter()
                    for start in range(0, count, page):
                        rows = range(start, min(start + page, count))
                        texts: list[str | None] = ["a text"] * len(rows)
                        store.write(Page([str(row) for row in rows], texts, [{}] * len(rows), vectors[rows]))
                    assert store.count() == count
                    yield name, count / (time.perf_counter() - began)
            except (ImportError, LemniError) as error:
                note(f"{name} could not be measured: {error}")


if __name__ == "__main__":
    main()
