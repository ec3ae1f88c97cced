"""`GET /metrics`: what Prometheus reads. Public, as with Infinity and TEI: names of models and counts, never texts.

The HTTP metrics have the names and labels of `prometheus_fastapi_instrumentator`, which Infinity's users have on their
dashboards; the engine's begin with `lemni_`. A request costs two look-ups and three additions. Everything else is done
when somebody asks: the engine's own snapshot (`lemni.engine.status`) and `/proc`.
"""

from __future__ import annotations

import asyncio
import functools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lemni import __version__
from lemni.engine import ModelStatus
from lemni.server.service import Service

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

router = APIRouter(tags=["Server"])

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of durations; 0.1, 0.5 and 1 are the instrumentator's own."""

NO_ROUTE = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
_STATES = ("loading", "serving", "stopping")

Value = Callable[[ModelStatus], float]

# Of each model, from its status.
_GAUGES: dict[str, tuple[str, Value]] = {
    "lemni_queued_tokens": ("Tokens that wait for a forward pass, estimated where not tokenised yet.",
                            lambda status: status.waiting_tokens),
    "lemni_queue_limit_tokens": ("Tokens that may wait before requests get 429 (max_queue_tokens).",
                                 lambda status: status.max_queue_tokens),
    "lemni_queued_sequences": ("Distinct sequences that are tokenised and wait for a forward pass.",
                               lambda status: status.waiting_sequences),
    "lemni_running_sequences": ("Distinct sequences in a forward pass.", lambda status: status.running_sequences),
    "lemni_open_requests": ("Requests that are admitted and not answered.", lambda status: status.open_requests),
    "lemni_replicas": ("Replicas that the model should have.", lambda status: status.replicas_total),
    "lemni_replicas_alive": ("Replicas that compute.", lambda status: status.replicas_alive),
    "lemni_replica_tokens_per_second": ("Recent speed of one replica while it computes; 0 before the first pass.",
                                        lambda status: status.tokens_per_s),
}  # fmt: skip
_COUNTERS: dict[str, tuple[str, Value]] = {
    "lemni_items": ("Texts, images, sounds and pairs of admitted requests.", lambda status: status.items),
    "lemni_tokens": ("Tokens of answered requests.", lambda status: status.tokens),
    "lemni_computed_tokens": ("Tokens that went through forward passes.", lambda status: status.batch_tokens),
    "lemni_truncated_items": ("Items that lost tokens because they were too long.", lambda status: status.truncated),
    "lemni_deduplicated_sequences": ("Sequences that shared the computation of an equal one in flight.",
                                     lambda status: status.deduplicated),
}  # fmt: skip


class HttpCounts:
    """What was answered, counted on the event loop alone, so without a lock.

    Attributes:
        answers: (route, method, class of status such as "2xx") -> number of answers.
        durations: (route, method) -> answers in each bucket of `BOUNDS_S` and above them; last, the sum in seconds.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str, str], int] = {}
        self.durations: dict[tuple[str, str], list[float]] = {}

    def add(self, route: str, method: str, status: int, seconds: float) -> None:
        """`route` as it is registered, not the path of the request: strangers must not make labels."""
        if method not in _METHODS:
            method = "other"
        key = (route, method, f"{status // 100}xx")
        self.answers[key] = self.answers.get(key, 0) + 1
        times = self.durations.get(key[:2])
        if times is None:
            times = self.durations[key[:2]] = [0.0] * (len(BOUNDS_S) + 2)
        times[bisect_left(BOUNDS_S, seconds)] += 1
        times[-1] += seconds


class Metrics:
    """The metrics of one application, collected when they are asked for."""

    def __init__(self, service: Service) -> None:
        self.http = HttpCounts()
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """prometheus_client's protocol of a collector."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily("lemni_build", "The version that runs.", {"version": __version__})
        yield GaugeMetricFamily(
            "lemni_ready", "1 if every model answers with all its replicas, as /ready tells.", int(self._service.ready)
        )
        state = GaugeMetricFamily("lemni_state", "1 for the state that the server is in.", labels=["state"])
        for name in _STATES:
            state.add_metric([name], int(name == self._service.state))
        yield state
        yield from _of_models(self._service.status())
        yield from _of_http(self.http)

    def describe(self) -> list[Metric]:
        """Nothing: registering must not collect."""
        return []

    @functools.cached_property
    def registry(self) -> CollectorRegistry:
        """These, and the process's own: memory, CPU time, open files. Made when first asked for, as a server starts
        sooner without the import."""
        from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

        registry = CollectorRegistry()
        registry.register(self)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        return registry


def _of_models(statuses: dict[str, ModelStatus]) -> Iterable[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    kinds: tuple[tuple[Any, dict[str, tuple[str, Value]]], ...] = (
        (GaugeMetricFamily, _GAUGES),
        (CounterMetricFamily, _COUNTERS),
    )
    for family, table in kinds:
        for name, (text, value) in table.items():
            metric = family(name, text, labels=["model"])
            for model, status in statuses.items():
                metric.add_metric([model], value(status))
            yield metric
    requests = CounterMetricFamily(
        "lemni_requests", "Requests to the engine that ended, by how they did.", labels=["model", "outcome"]
    )
    errors = CounterMetricFamily(
        "lemni_errors", "Failed and refused requests to the engine, by the error's code.", labels=["model", "code"]
    )
    batches = HistogramMetricFamily("lemni_batch_tokens", "Tokens of a forward pass.", labels=["model"])
    for model, status in statuses.items():
        for outcome in ("completed", "failed", "cancelled"):
            requests.add_metric([model, outcome], getattr(status, outcome))
        for code, number in sorted(status.errors.items()):
            errors.add_metric([model, code], number)
        batches.add_metric([model], _cumulated(_powers_of_two(status.batch_sizes)), status.batch_tokens)
    yield from (requests, errors, batches)


def _powers_of_two(sizes: dict[int, int]) -> Iterator[tuple[str, float]]:
    """The engine's buckets, those between them without a batch too; the ends are always the same or wider."""
    size, most = 1, max([4096, *sizes])
    while size <= most:
        yield f"{float(size)}", sizes.get(size, 0)
        size *= 2
    yield "+Inf", 0


def _of_http(counts: HttpCounts) -> Iterable[Metric]:
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    answers = CounterMetricFamily(
        "http_requests", "Answers by route, method and class of status.", labels=["handler", "method", "status"]
    )
    for key, number in list(counts.answers.items()):  # copies: the event loop goes on counting
        answers.add_metric(list(key), number)
    yield answers
    durations = HistogramMetricFamily(
        "http_request_duration_seconds", "From the request's head to the answer's last byte.",
        labels=["handler", "method"],
    )  # fmt: skip
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    for (route, method), running in list(counts.durations.items()):
        times = list(running)
        buckets = _cumulated(zip(bounds, times[:-1], strict=True))
        durations.add_metric([route, method], buckets, times[-1])
    yield durations


def _cumulated(buckets: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Prometheus' buckets hold those before them too."""
    total = 0.0
    return [(bound, total := total + number) for bound, number in buckets]


@router.get("/metrics", summary="Numbers for Prometheus", response_class=Response)
async def metrics(http: Request) -> Response:
    """Queues, replicas, tokens and answers, in Prometheus' text format, or as OpenMetrics to who accepts that."""
    from prometheus_client.exposition import choose_encoder

    found: Metrics = http.app.state.metrics
    encode, content_type = choose_encoder(http.headers.get("accept", ""))
    # In a thread: snapshots take each model's lock, and /proc is files.
    return Response(await asyncio.to_thread(encode, found.registry), media_type=content_type)
