"""`GET /metrics`, read back with Prometheus' own parsers, against requests whose numbers are known."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from lemni import __version__
from lemni.engine import Engine
from lemni.hub import ModelFiles
from lemni.server.app import create_app
from lemni.server.metrics import BOUNDS_S
from tests.engine.toy import Gate, ToyModel
from tests.server.conftest import client_of
from tests.server.live import listening, loaded, server_settings, wait_for

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    """Value of each sample by name and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples), "a sample is there twice"
    return found


def get(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def scrape(client: httpx.AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


def test_a_real_server_over_http(real_engine: Engine, minilm: ModelFiles) -> None:
    texts = ["one two three", "four five", "four five"]
    with listening(create_app(loaded(real_engine), server_settings())) as url, httpx.Client(base_url=url) as client:
        before = parsed(client.get("/metrics").text)
        answer = client.post("/v1/embeddings", json={"input": texts})
        assert client.post("/embeddings", json={"input": []}).status_code == 400
        assert client.get("/v1/models/unknown").status_code == 404
        assert client.get("/stray/1").status_code == client.get("/stray/2").status_code == 404
        after = parsed(client.get("/metrics").text)
    tokens = answer.json()["usage"]["total_tokens"]
    assert tokens == 5 + 4 + 4, "with [CLS] and [SEP]"
    labels = {"model": MINILM}
    grown = {
        name: get(after, name, **labels) - get(before, name, **labels)
        for name in ("lemni_items_total", "lemni_tokens_total", "lemni_computed_tokens_total",
                     "lemni_deduplicated_sequences_total", "lemni_truncated_items_total", "lemni_batch_tokens_sum")
    }  # fmt: skip
    assert grown == {
        "lemni_items_total": 3,
        "lemni_tokens_total": 13,
        "lemni_computed_tokens_total": 9,
        "lemni_deduplicated_sequences_total": 1,
        "lemni_truncated_items_total": 0,
        "lemni_batch_tokens_sum": 9,
    }
    assert get(after, "lemni_batch_tokens_count", **labels) - get(before, "lemni_batch_tokens_count", **labels) >= 1
    assert get(after, "lemni_requests_total", **labels, outcome="completed") == 1 + get(
        before, "lemni_requests_total", **labels, outcome="completed"
    )
    assert get(after, "lemni_replicas_alive", **labels) == get(after, "lemni_replicas", **labels) == 1
    assert get(after, "lemni_queued_tokens", **labels) == get(after, "lemni_running_sequences", **labels) == 0
    assert get(after, "lemni_queue_limit_tokens", **labels) == 2_000_000
    assert get(after, "lemni_replica_tokens_per_second", **labels) > 0
    assert get(after, "lemni_ready") == 1
    assert get(after, "lemni_build_info", version=__version__) == 1
    assert get(after, "process_resident_memory_bytes") > 2**20
    assert {
        (dict(key[1])["handler"], dict(key[1])["method"], dict(key[1])["status"]): value
        for key, value in after.items()
        if key[0] == "http_requests_total"
    } == {
        ("/metrics", "GET", "2xx"): 1,  # this answer itself is not there yet
        ("/v1/embeddings", "POST", "2xx"): 1,
        ("/embeddings", "POST", "4xx"): 1,
        ("/v1/models/{model_id:path}", "GET", "4xx"): 1,
        ("none", "GET", "4xx"): 2,
    }
    durations = {"handler": "/v1/embeddings", "method": "POST"}
    buckets = [get(after, "http_request_duration_seconds_bucket", **durations, le=str(le)) for le in BOUNDS_S]
    assert buckets == sorted(buckets)
    assert get(after, "http_request_duration_seconds_bucket", **durations, le="+Inf") == 1
    assert get(after, "http_request_duration_seconds_count", **durations) == 1
    seconds = get(after, "http_request_duration_seconds_sum", **durations)
    assert buckets == [float(seconds <= le) for le in BOUNDS_S]


async def test_the_queue_is_seen_while_a_pass_runs(
    toy: ToyModel, toy_engine: Engine, client: httpx.AsyncClient
) -> None:
    toy.gates[1] = gate = Gate()  # of the pass that the token 1 is in
    running = asyncio.create_task(client.post("/v1/embeddings", json={"input": "1 2 3"}))
    await asyncio.to_thread(gate.wait_entered)
    waiting = asyncio.create_task(client.post("/v1/embeddings", json={"input": ["4 5", "6 7 8 9"]}))
    await asyncio.to_thread(wait_for, lambda: toy_engine.status()["toy"].waiting_sequences == 2)
    seen = await scrape(client)
    assert get(seen, "lemni_running_sequences", model="toy") == 1
    assert get(seen, "lemni_queued_sequences", model="toy") == 2
    assert get(seen, "lemni_queued_tokens", model="toy") == 6
    assert get(seen, "lemni_open_requests", model="toy") == 2
    gate.open()
    assert (await running).status_code == (await waiting).status_code == 200
    seen = await scrape(client)
    assert get(seen, "lemni_queued_tokens", model="toy") == get(seen, "lemni_open_requests", model="toy") == 0
    assert get(seen, "lemni_computed_tokens_total", model="toy") == 9


async def test_states_and_errors(toy: ToyModel, toy_engine: Engine) -> None:
    app = create_app(None, server_settings())
    async with client_of(app) as client:
        seen = await scrape(client)
        assert (get(seen, "lemni_ready"), get(seen, "lemni_state", state="loading")) == (0, 1)
        assert not [name for name, labels in seen if dict(labels).get("model")]
        app.state.service.attach(toy_engine, loaded(toy_engine).models)
        toy.nans = {7}
        assert (await client.post("/v1/embeddings", json={"input": "7"})).status_code == 500
        seen = await scrape(client)
        assert (get(seen, "lemni_ready"), get(seen, "lemni_state", state="serving")) == (1, 1)
        assert get(seen, "lemni_requests_total", model="toy", outcome="failed") == 1
        assert sum(value for (name, _), value in seen.items() if name == "lemni_errors_total") == 1
        assert get(seen, "http_requests_total", handler="/v1/embeddings", method="POST", status="5xx") == 1
        app.state.service.stop()
        seen = await scrape(client)
        assert (get(seen, "lemni_ready"), get(seen, "lemni_state", state="stopping")) == (0, 1)
        assert get(seen, "lemni_state", state="serving") == 0


async def test_it_needs_no_key_and_counts_who_lacks_one(toy_engine: Engine) -> None:
    app = create_app(loaded(toy_engine), server_settings(api_key="secret", url_prefix="/api"))
    async with client_of(app) as client:
        assert (await client.post("/v1/embeddings", json={"input": "1"})).status_code == 401
        assert (await client.request("BREW", "/v1/embeddings")).status_code == 401
        text = (await client.get("/api/metrics")).text
        assert (await client.get("/openapi.json")).json()["paths"]["/metrics"]["get"]["security"] == []
    seen = parsed(text)
    assert get(seen, "http_requests_total", handler="/v1/embeddings", method="POST", status="4xx") == 1
    assert get(seen, "http_requests_total", handler="none", method="other", status="4xx") == 1
    assert "secret" not in text


async def test_openmetrics_for_who_accepts_it(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/embeddings", json={"input": "1 2"})).status_code == 200
    answer = await client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics.text_string_to_metric_families(answer.text)}
    assert families["lemni_computed_tokens"].type == "counter"
    assert families["lemni_batch_tokens"].type == "histogram"
    (tokens,) = families["lemni_computed_tokens"].samples
    assert (tokens.name, tokens.labels, tokens.value) == ("lemni_computed_tokens_total", {"model": "toy"}, 2.0)


@pytest.mark.parametrize("path", ["/metrics", "/v1/embeddings"])
async def test_strangers_make_no_labels(toy_engine: Engine, path: str) -> None:
    """Neither methods nor paths that nobody has become series."""
    app: FastAPI = create_app(loaded(toy_engine), server_settings())
    async with client_of(app) as client:
        for number in range(20):
            await client.request(f"M{number}", path)
            await client.get(f"{path}/{number}")
        seen = await scrape(client)
    known = {key[1] for key in seen if key[0] == "http_requests_total"}
    assert len(known) <= 3
