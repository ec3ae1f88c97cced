"""Failures that are not the caller's fault: overload, loading, bugs. Each has its status, and hides what is ours."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from lemni.engine import Engine
from lemni.server import service
from lemni.server.app import create_app
from tests.engine.toy import Gate, ToyModel, engine_of, expected, request
from tests.server.conftest import client_of
from tests.server.live import PATIENCE_S, loaded, server_settings

URL = "/v1/embeddings"


async def test_overload_says_when_to_come_back(toy: ToyModel) -> None:
    toy.gates[9] = gate = Gate()
    with engine_of(toy, max_queue_tokens=20) as engine:
        held = engine.submit("toy", request("9"))
        gate.wait_entered()
        waiting = engine.submit("toy", request("1 " * 18))
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            answer = await client.post(URL, json={"input": "5 5 5"})
            gate.open()
            held.result(PATIENCE_S)
            waiting.result(PATIENCE_S)
            assert (await client.post(URL, json={"input": "5 5 5"})).status_code == 200
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert answer.json()["error"]["code"] == "overloaded"
    assert int(answer.headers["retry-after"]) >= 1
    assert 0 < int(answer.headers["retry-after-ms"]) <= 1000 * int(answer.headers["retry-after"])


@pytest.mark.parametrize(("asked", "longest"), [(0.05, 600), (600, 0.05)])
async def test_a_deadline_is_the_requests_or_the_servers_if_shorter(
    toy: ToyModel, asked: float, longest: float
) -> None:
    toy.gates[9] = gate = Gate()
    with engine_of(toy) as engine:
        held = engine.submit("toy", request("9"))
        gate.wait_entered()
        async with client_of(create_app(loaded(engine), server_settings(), longest)) as client:
            answer = await client.post(URL, json={"input": "5", "deadline_s": asked})
            gate.open()
            held.result(PATIENCE_S)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert "0.05 s" in answer.json()["error"]["message"]


async def test_a_computation_that_fails_names_the_item_and_hides_its_text(
    client: httpx.AsyncClient, toy: ToyModel
) -> None:
    toy.raises = {13}
    answer = await client.post(URL, json={"input": ["1", "13"]})
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["type"] == "server_error"
    assert error["param"] == "input[1]"
    assert "cannot compute" not in answer.text
    assert (await client.post(URL, json={"input": "1"})).status_code == 200


async def test_nan_names_the_item(client: httpx.AsyncClient, toy: ToyModel) -> None:
    toy.nans = {13}
    answer = await client.post(URL, json={"input": ["1", "2", "13"]})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "invalid_output"
    assert answer.json()["error"]["param"] == "input[2]"


async def test_a_bug_of_ours_gets_an_id_and_a_log_line(
    client: httpx.AsyncClient, toy_engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(toy_engine, "submit", lambda *args: 1 / 0)
    answer = await client.post(URL, json={"input": "1"}, headers={"x-request-id": "trace-7"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "trace-7" in answer.json()["error"]["message"]
    assert "division" not in answer.text
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in logged] == ["request trace-7 failed"]
    assert "ZeroDivisionError" in (logged[0].exc_text or str(logged[0].exc_info))


async def test_early_requests_wait_for_the_models(toy_engine: Engine) -> None:
    app = create_app(None, server_settings())
    async with client_of(app) as client:
        asking = asyncio.create_task(client.post(URL, json={"input": "3"}))
        listing = asyncio.create_task(client.get("/v1/models"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert (await client.get("/health")).status_code == 200
        assert not asking.done()
        app.state.service.attach(toy_engine, loaded(toy_engine).models)
        assert (await asking).json()["data"][0]["embedding"] == expected("3")
        assert [model["id"] for model in (await listing).json()["data"]] == ["toy"]


async def test_early_requests_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOADING_PATIENCE_S", 0.01)
    async with client_of(create_app(None, server_settings())) as client:
        answer = await client.post(URL, json={"input": "3"})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unavailable"
    assert int(answer.headers["retry-after"]) >= 1


async def test_requests_that_wait_learn_that_the_server_stops() -> None:
    app = create_app(None, server_settings())
    async with client_of(app) as client:
        asking = asyncio.create_task(client.post(URL, json={"input": "3"}))
        await asyncio.sleep(0)
        app.state.service.stop()
        assert (await asking).status_code == 503


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "route_not_found"),
        ("POST", "/v1/nothing", 404, "route_not_found"),
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/toy", 405, "method_not_allowed"),
        ("GET", "/" + "x" * 5000, 404, "route_not_found"),
    ],
)
async def test_unknown_routes(client: httpx.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert len(answer.json()["error"]["message"]) < 300
    assert (status == 405) == ("allow" in answer.headers)


async def test_every_answer_has_a_request_id(client: httpx.AsyncClient) -> None:
    for path in ("/health", "/nothing", "/v1/models"):
        own = await client.get(path, headers={"x-request-id": "abc-1:2"})
        assert own.headers.get_list("x-request-id") == ["abc-1:2"]
        first = (await client.get(path, headers={"x-request-id": "two words"})).headers["x-request-id"]
        second = (await client.get(path, headers={"x-request-id": "x" * 129})).headers["x-request-id"]
        assert first != second
        assert first.startswith("req_")
