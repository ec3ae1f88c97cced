"""The simulated cluster against queueing theory, and what is made of its numbers."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from benchmarks import scale
from benchmarks.cluster import BALANCERS, Arrivals, Outcome, balancer, simulate
from benchmarks.scale import Measured, arrivals, needs, summary

TOKENS = 100
"""A pass takes one request: a batch has room for one."""


def poisson(rate: float, count: int, seed: int) -> Arrivals:
    times = np.random.default_rng(seed).exponential(1 / rate, count).cumsum()
    return Arrivals(times, [[TOKENS]] * count, ["interactive"] * count)


def test_one_replica_with_equal_requests_is_an_m_d_1_queue() -> None:
    for load in (0.5, 0.8):
        found = simulate(1, poisson(load, 30_000, seed=1), lambda tokens: 1.0, balancer("random", 1, 0), budget=TOKENS)
        waits = found.latencies_s - 1
        assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.06)  # Pollaczek and Khinchine
        assert (waits == 0).mean() == pytest.approx(1 - load, abs=0.01)
        assert found.busy == pytest.approx(load, abs=0.01)
        assert found.tokens_per_s == pytest.approx(load * TOKENS, rel=0.02)
        assert found.refused == 0


def test_random_passes_are_an_m_m_1_queue() -> None:
    """The mean does not depend on the order in which the scheduler serves requests that are alike."""
    load = 0.7
    rng = np.random.default_rng(2)
    found = simulate(
        1, poisson(load, 40_000, seed=3), lambda tokens: rng.exponential(1.0), balancer("random", 1, 0), budget=TOKENS
    )
    assert found.latencies_s.mean() == pytest.approx(1 / (1 - load), rel=0.06)
    assert found.busy == pytest.approx(load, abs=0.015)


def test_balancers() -> None:
    """Split at random, each of sixteen is a queue of its own; the more a balancer knows, the shorter the wait."""
    load, replicas, count = 0.8, 16, 30_000
    arrivals = poisson(load * replicas, count, seed=4)
    waits = {}
    for name in BALANCERS:
        passes = iter(np.random.default_rng(5).exponential(1.0, count).tolist())
        found = simulate(
            replicas, arrivals, lambda tokens, s=passes: next(s), balancer(name, replicas, 6), budget=TOKENS
        )
        waits[name] = found.latencies_s.mean() - 1
    assert waits["random"] == pytest.approx(load / (1 - load), rel=0.1)
    # With a choice of two, the share of replicas with at least i requests is load ** (2 ** i - 1) (Mitzenmacher), for
    # very many replicas.
    lengths = sum(load ** (2**i - 1) for i in range(1, 20))
    assert waits["two choices"] == pytest.approx(lengths / load - 1, rel=0.15)
    assert waits["least queued"] < waits["two choices"] < waits["round robin"] < waits["random"]


def test_batches_lengthen_passes_and_save_them() -> None:
    """Ten tokens in a pass cost as much as one: at ten times the load of single passes the queue is stable."""
    arrivals = Arrivals(poisson(5.0, 20_000, 6).times_s, [[10]] * 20_000, ["interactive"] * 20_000)
    found = simulate(1, arrivals, lambda tokens: 1.0, balancer("random", 1, 0), budget=TOKENS)
    assert found.latencies_s.max() < 4
    assert found.tokens_per_s == pytest.approx(50, rel=0.03)


def test_bulk_lets_queries_pass() -> None:
    times = np.array([0.0, 0.5])
    arrivals = Arrivals(times, [[TOKENS] * 50, [TOKENS]], ["bulk", "interactive"])
    found = simulate(1, arrivals, lambda tokens: 1.0, balancer("random", 1, 0), budget=TOKENS, warm_up=0)
    bulk, query = found.latencies_s
    assert bulk == pytest.approx(51)
    assert query == pytest.approx(1.5)


def test_a_full_queue_refuses() -> None:
    arrivals = Arrivals(np.linspace(0, 1, 11), [[TOKENS]] * 11, ["interactive"] * 11)
    found = simulate(1, arrivals, lambda tokens: 10.0, balancer("random", 1, 0), budget=TOKENS,
                     max_queue_tokens=3 * TOKENS, warm_up=0)  # fmt: skip
    assert found.refused == 11 - 4, "one runs and three wait"
    assert np.isnan(found.latencies_s).sum() == 7


MEASURED = Measured(
    cores=2,
    pass_ms=[4.0, 4.0, 5.0, 8.0, 15.0, 29.0, 64.0],
    query_tokens=[10, 20],
    document_tokens=[50, 100],
    text_bytes=[100.0, 400.0],
    tokenized_per_cpu_s=10_000.0,
    requests_per_cpu_s=2_000.0,
    answer_bytes=2_348.0,
    writes_per_s={"a store": 640.0},
)


def test_what_it_takes() -> None:
    """Of 1,000 requests a second 40 are bulk, with 16 texts each."""
    assert MEASURED.tokens_per_s == 512 / 0.064
    assert MEASURED.pass_s(96) == pytest.approx(0.0115)
    assert MEASURED.tokens_per_request == pytest.approx(0.96 * 15 + 0.04 * 16 * 75)
    found = needs(MEASURED, 1000.0, link_gbit_per_s=1.0)
    assert found.pop("compute_cores") == pytest.approx(2 * 1000 * 62.4 / 8000)
    assert found.pop("http_cores") == pytest.approx(0.5)
    assert found.pop("tokenizer_cores") == pytest.approx(0.16)
    assert found.pop("a store_writers") == pytest.approx(1.0)
    # Texts of 960 queries and 640 documents; 300 bytes around each answer; 2,048 or 512 for each of 1,600 vectors.
    around = 960 * 100 + 640 * 400 + 1000 * 300
    assert found == {
        "links_float32": pytest.approx(8e-9 * (around + 1600 * 2048)),
        "links_int8": pytest.approx(8e-9 * (around + 1600 * 512)),
    }


def test_arrivals_and_their_summary() -> None:
    sent = arrivals(MEASURED, rate=100.0, count=5_000, seed=7)
    assert sent.times_s[-1] == pytest.approx(50, rel=0.05)
    assert sent.priorities.count("bulk") == 200
    for lengths, priority in zip(sent.lengths, sent.priorities, strict=True):
        assert len(lengths) == (16 if priority == "bulk" else 1)
        assert set(lengths) <= ({50, 100} if priority == "bulk" else {10, 20})
    assert sent.tokens / 5_000 == pytest.approx(MEASURED.tokens_per_request, rel=0.03)
    latencies = np.array([3.0 if priority == "bulk" else 0.5 for priority in sent.priorities])
    latencies[sent.priorities.index("interactive")] = np.nan  # refused
    found = summary(Outcome(latencies, 0, busy=0.5, tokens_per_s=7.0, refused=1), sent)
    assert found == {
        "tokens_per_s": 7.0, "busy": 0.5, "refused": 1.0,
        "p50_ms": 500.0, "p99_ms": 500.0, "bulk_p50_ms": 3000.0, "bulk_p99_ms": 3000.0,
    }  # fmt: skip


def test_a_replica_at_half_its_speed() -> None:
    found = scale.simulated(Measured(**json.loads(json.dumps(asdict(MEASURED)))), (1, 0.5, "random"))
    assert found["tokens_per_s"] == pytest.approx(4000, rel=0.05)
    assert found["requests_per_s"] == pytest.approx(4000 / MEASURED.tokens_per_request)
    assert 0.5 < found["busy"] < 0.8, "short passes while queries come cost some of it"
    assert 4 < found["p50_ms"] < found["p99_ms"] < found["bulk_p50_ms"] < found["bulk_p99_ms"]


def test_every_size_is_simulated_with_what_differs_there() -> None:
    assert {replicas: len(scale.balancers(replicas)) for replicas in scale.REPLICAS} == {
        1: 1, 4: 3, 16: 3, 64: 3, 256: 2, 1000: 2,
    }  # fmt: skip
    assert all(set(scale.balancers(replicas)) <= set(BALANCERS) for replicas in scale.REPLICAS)
