"""Replicas behind a load balancer, simulated event by event. Arrivals and passes are made up, the scheduler is real.

Each replica is one `lemni.engine.scheduler.Scheduler` and one device that runs a pass at a time. Nothing else takes
time: no network, no HTTP, no tokenising (`benchmarks.scale` sets those beside it), and no express lane.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lemni.engine.scheduler import Flow, Scheduler, Work
from lemni.types import Priority
from lemni.types import Sequence as Tokens

Balance = Callable[[NDArray[np.float64], int], int]
"""From the tokens that each replica has not computed yet, and the number of the request, to a replica."""


@dataclass(frozen=True)
class Arrivals:
    """Requests in the order in which they come.

    Attributes:
        times_s: [requests], ascending.
        lengths: tokens of each sequence of each request.
        priorities: of each request.
    """

    times_s: NDArray[np.float64]
    lengths: Sequence[Sequence[int]]
    priorities: Sequence[Priority]

    @property
    def tokens(self) -> int:
        return sum(map(sum, self.lengths))


@dataclass(frozen=True)
class Outcome:
    """What became of the requests that came after the warm-up.

    Attributes:
        latencies_s: of each, from arrival to its last pass; NaN if it was refused.
        first: number of the first request that counts.
        busy: share of the time, over all replicas, that was spent in passes while requests came.
        tokens_per_s: computed in that time.
        refused: requests that a full queue refused.
    """

    latencies_s: NDArray[np.float64]
    first: int
    busy: float
    tokens_per_s: float
    refused: int


@cache
def sequence(tokens: int) -> Tokens:
    """One of a length; the scheduler looks at nothing else."""
    return Tokens(np.zeros(tokens, np.int32))


class _Replica:
    def __init__(self, max_queue_tokens: int) -> None:
        self.scheduler = Scheduler(max_queue_tokens, interactive_weight=8)
        self.idle = True


def simulate(
    replicas: int,
    arrivals: Arrivals,
    pass_s: Callable[[int], float],
    balance: Balance,
    *,
    budget: int = 512,
    enough: int = 64,
    max_queue_tokens: int = 2_000_000,
    warm_up: float = 0.2,
) -> Outcome:
    """Send the arrivals to so many replicas and wait for the last answer.

    Args:
        pass_s: seconds that a pass of so many tokens takes.
        budget, enough: of a batch, in tokens: `lemni.runtimes.base.Limits`.
        warm_up: share of the requests that come first and do not count.
    """
    nodes = [_Replica(max_queue_tokens) for _ in range(replicas)]
    load = np.zeros(replicas)
    total = len(arrivals.times_s)
    first = int(warm_up * total)
    latencies = np.full(total, np.nan)
    missing: dict[Flow, tuple[int, int]] = {}  # its request, and how many of the request's works run or wait
    passes: list[tuple[float, int, int, list[Work]]] = []  # end, number, replica, works
    number = refused = 0
    start_s, end_s = float(arrivals.times_s[first]), float(arrivals.times_s[-1])
    busy_s = computed = 0.0

    def run(node: int, now: float) -> None:
        nonlocal number, busy_s, computed
        works = nodes[node].scheduler.take(budget, enough)
        nodes[node].idle = not works
        if not works:
            return
        tokens = sum(work.tokens for work in works)
        took_s = pass_s(tokens)
        within = max(0.0, min(now + took_s, end_s) - max(now, start_s))
        busy_s += within
        computed += tokens * within / took_s if took_s else 0
        number += 1
        heapq.heappush(passes, (now + took_s, number, node, works))

    def end(now: float, node: int, works: list[Work]) -> None:
        scheduler = nodes[node].scheduler
        for work in works:
            load[node] -= work.tokens
            for flow, _ in scheduler.complete(work):
                request, left = missing[flow]
                if left > 1:
                    missing[flow] = (request, left - 1)
                    continue
                del missing[flow]
                scheduler.leave(flow)
                latencies[request] = now - arrivals.times_s[request]
        run(node, now)

    for request, now in enumerate(arrivals.times_s.tolist()):
        while passes and passes[0][0] <= now:
            ended, _, node, works = heapq.heappop(passes)
            end(ended, node, works)
        node = balance(load, request)
        scheduler = nodes[node].scheduler
        lengths = arrivals.lengths[request]
        tokens = sum(lengths)
        if scheduler.excess(tokens):
            refused += request >= first
            continue
        flow = scheduler.admit(tokens, arrivals.priorities[request])
        missing[flow] = (request, len(lengths))
        wanted = [((place, 0), sequence(one), (request, place)) for place, one in enumerate(lengths)]
        scheduler.add(flow, wanted, tokens)
        load[node] += tokens
        if nodes[node].idle:
            run(node, now)
    while passes:
        ended, _, node, works = heapq.heappop(passes)
        end(ended, node, works)
    span_s = end_s - start_s
    return Outcome(latencies[first:], first, busy_s / (span_s * replicas), computed / span_s, refused)


def balancer(name: str, replicas: int, seed: int) -> Balance:
    """One of `BALANCERS`. All but the first two know each replica's tokens as they are this moment."""
    rng = np.random.default_rng(seed)
    # Drawn in blocks: a call of numpy for each request would cost more than the rest.
    drawn = iter(())

    def draw() -> int:
        nonlocal drawn
        found = next(drawn, None)
        if found is None:
            drawn = iter(rng.integers(replicas, size=1 << 14).tolist())
            found = next(drawn)
        return int(found)

    def two(load: NDArray[np.float64], request: int) -> int:
        one, other = draw(), draw()
        return one if load[one] <= load[other] else other

    table: dict[str, Balance] = {
        "random": lambda load, request: draw(),
        "round robin": lambda load, request: request % replicas,
        "two choices": two,
        "least queued": lambda load, request: int(load.argmin()),
    }
    return table[name]


BALANCERS = ("random", "round robin", "two choices", "least queued")
