"""Models on a real Ray Serve: the same answers as the library's, and none lost when a replica dies or is replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

import lemni
from lemni.cli.deploy import ray_app, scale_of
from lemni.cli.settings import load_settings
from lemni.errors import ConfigError
from lemni.hub import ModelFiles

from ..bulk.conftest import FAST, texts

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def url(minilm: ModelFiles) -> Iterator[str]:
    from lemni import distributed

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield distributed.deploy(settings(str(minilm.path), port), scale_of(replicas="2"))
        distributed.remove()
    finally:
        from ray import serve

        serve.shutdown()
        ray.shutdown()


def settings(model: str, port: int = 0, **more: Any) -> Any:
    models = [{"model": model, "served_name": "tested"}, {"model": FAST, "served_name": "static"}]
    loaded = load_settings({"port": port, "threads": 1, **more}, {}, None, None)
    return loaded.model_copy(update={"models": tuple(loaded.models[0].model_validate(one) for one in models)})


http = httpx.Client(timeout=60)


def ready(url: str) -> None:
    until = time.monotonic() + 60
    while http.get(f"{url}/ready").status_code != 200 and time.monotonic() < until:
        time.sleep(0.1)


def replicas(name: str) -> list[int]:
    """Process ids of a deployment's replicas, which Ray names after what they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(f"ray::ServeReplica:lemni:{name}".encode()):
                found.append(int(path.parent.name))
    return found


def test_every_dialect_answers_as_the_library(url: str, minilm: ModelFiles) -> None:
    ready(url)
    with lemni.load(str(minilm.path)) as model, lemni.load(FAST) as static:
        expected, quick = model.embed(["a cat", "a dog"]), static.embed(["a cat"])
    with lemni.Client(url, model="tested") as client:
        np.testing.assert_allclose(client.embed(["a cat", "a dog"]), expected, atol=1e-5)
    body = {"model": "static", "input": ["a cat"]}
    answer = http.post(f"{url}/v1/embeddings", json=body).json()
    np.testing.assert_allclose([answer["data"][0]["embedding"]], quick, atol=1e-5)
    infinity = http.post(f"{url}/embeddings", json={"model": "tested", "input": "a cat"}).json()
    np.testing.assert_allclose(infinity["data"][0]["embedding"], expected[0], atol=1e-5)
    tei = http.post(f"{url}/tokenize", json={"model": "tested", "inputs": "a cat"})
    assert tei.status_code == 200
    assert {one["id"] for one in http.get(f"{url}/v1/models").json()["data"]} == {"tested", "static"}
    assert http.get(f"{url}/health").json()["status"] == "healthy"
    state = http.get(f"{url}/ready").json()
    assert state["models"]["tested"]["replicas_alive"] == 2
    metrics = http.get(f"{url}/metrics").text
    assert 'lemni_replicas_alive{model="tested"} 2.0' in metrics
    wrong = http.post(f"{url}/v1/embeddings", json={"model": "tested", "input": ["x"], "dimensions": 4000})
    assert wrong.status_code == 400
    assert "4000" in wrong.json()["error"]["message"]
    unknown = http.post(f"{url}/v1/embeddings", json={"model": "nobody", "input": "x"})
    assert unknown.status_code == 404


class Load:
    """Requests one after the other in some threads, until it is ended; every answer is checked."""

    def __init__(self, url: str, expected: Any, threads: int = 4) -> None:
        self.answers, self.wrong = 0, []  # type: ignore[var-annotated]
        self._url, self._expected = url, expected
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._ended.is_set():
                answer = client.post(f"{self._url}/v1/embeddings", json={"model": "tested", "input": texts(8)})
                if answer.status_code != 200:
                    self.wrong.append(answer.text)
                    continue
                found = np.array([one["embedding"] for one in answer.json()["data"]])
                if not any(np.allclose(found, one, atol=1e-5) for one in self._expected):
                    self.wrong.append("other vectors")
                self.answers += 1

    def wait_for(self, more: int) -> None:
        until, goal = time.monotonic() + 60, self.answers + more
        while self.answers < goal and time.monotonic() < until:
            time.sleep(0.02)


def test_a_replica_dies_under_load_and_no_request_is_lost(url: str, minilm: ModelFiles) -> None:
    ready(url)
    with lemni.load(str(minilm.path)) as model:
        expected = model.embed(texts(8))
    before = replicas("model_tested")
    assert len(before) == 2
    with Load(url, [expected]) as load:
        load.wait_for(20)
        os.kill(before[0], signal.SIGKILL)
        load.wait_for(40)
        until = time.monotonic() + 90
        while (len(replicas("model_tested")) < 2 or before[0] in replicas("model_tested")) and time.monotonic() < until:
            time.sleep(0.5)
    assert load.wrong == []
    assert load.answers >= 60
    assert len(set(replicas("model_tested")) - set(before)) == 1


def test_a_model_is_changed_without_an_interruption(url: str, minilm: ModelFiles) -> None:
    from lemni import distributed

    ready(url)
    port = int(url.rpartition(":")[2])
    with lemni.load(str(minilm.path)) as model, lemni.load(str(minilm.path), pooling="cls") as other:
        old, new = model.embed(texts(8)), other.embed(texts(8))
    assert np.abs(old - new).max() > 0.01
    changed = settings(str(minilm.path), port)
    first, second = changed.models
    changed = changed.model_copy(update={"models": (first.model_copy(update={"pooling": "cls"}), second)})
    with Load(url, [old, new], threads=2) as load:
        load.wait_for(5)
        distributed.deploy(changed, scale_of(replicas="2"))
        load.wait_for(10)
    assert load.wrong == []
    with lemni.Client(url, model="tested") as client:
        np.testing.assert_allclose(client.embed(texts(8)), new, atol=1e-5)


class Context:
    """What Ray Serve tells a policy."""

    capacity_adjusted_min_replicas, capacity_adjusted_max_replicas = 1, 10

    def __init__(self, requests: float, replicas: int = 1, **queued: float) -> None:
        self.total_num_requests, self.current_num_replicas = requests, replicas
        self.aggregated_metrics = {"queued_tokens": queued}


def test_replicas_by_queued_tokens() -> None:
    from lemni.distributed.scaling import ByQueuedTokens

    policy = ByQueuedTokens(target=1000)
    assert policy(Context(0))[0] == 1
    assert policy(Context(50, a=999))[0] == 1
    assert policy(Context(50, a=1500, b=600))[0] == 3
    assert policy(Context(50, a=90_000, b=90_000))[0] == 10
    # Busy replicas with an empty queue are given up one by one; idle ones at once.
    assert [policy(Context(5, count))[0] for count in (8, 6, 2, 1)] == [6, 5, 1, 1]
    assert policy(Context(0, 8))[0] == 1


@pytest.mark.parametrize("replicas", ["x", "4:1", "0", "1:2:3"])
def test_replicas_that_make_no_sense(replicas: str) -> None:
    with pytest.raises(ConfigError, match="replicas"):
        scale_of(replicas=replicas)


def test_the_builder_for_serve_takes_settings_by_name(minilm: ModelFiles) -> None:
    made = ray_app({"model": str(minilm.path), "replicas": "1:3", "threads": "1", "target_queued_tokens": "5000"})
    assert made is not None
    with pytest.raises(ConfigError, match="no_such"):
        ray_app({"no_such": "1"})


def test_the_board_keeps_applications_apart() -> None:
    from lemni.distributed.replica import Board, place_on_board

    board, one, two = Board(), place_on_board("one", "model"), place_on_board("two", "model")
    for place, facts in ((one, "facts of one"), (two, "facts of two")):
        board.post(place, "replica", "status", facts)  # type: ignore[arg-type]
    assert (board.facts(one), board.facts(two)) == ("facts of one", "facts of two")
    board.forget("one")
    assert board.facts(one) is None
    assert board.statuses(one) == []
    assert board.facts(two) == "facts of two"


def test_who_hangs_up_cancels_and_what_fails_is_not_tried_again(minilm: ModelFiles) -> None:
    import asyncio

    from ray.exceptions import ActorDiedError, RayTaskError

    from lemni.config import EngineSettings
    from lemni.distributed.front import RemoteEngine, RemoteModel
    from lemni.distributed.replica import Facts
    from lemni.errors import InternalError
    from lemni.types import Request

    calls: list[str] = []
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class Handle:
        """A replica's handle, as far as it is asked."""

        run = property(lambda self: self)

        async def remote(self, request: Request) -> object:
            calls.append("asked")
            if request.items == ["fail"]:
                raise RayTaskError("run", "traceback", ValueError("broken"))
            if request.items == ["die"] and len(calls) == 1:
                raise ActorDiedError
            if request.items == ["wait"]:
                begun.set()
                try:
                    await asyncio.sleep(60)
                finally:
                    cancelled.set()
            return "result"

    async def main() -> None:
        with lemni.load(str(minilm.path)) as loaded:
            card = loaded.card
        models = {"model": RemoteModel(Facts(card, None, 1))}
        engine = RemoteEngine({"model": Handle()}, models, EngineSettings.model_validate({}))
        assert await engine.embed(card.name, Request(["die"])) == "result"
        assert calls == ["asked", "asked"]
        calls.clear()
        with pytest.raises(InternalError, match="broken"):
            await engine.embed(card.name, Request(["fail"]))
        assert calls == ["asked"]
        waiting = asyncio.create_task(engine.embed(card.name, Request(["wait"])))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(cancelled.wait(), 30)

    asyncio.run(main())
