"""Models, probes, the key, the root page, and the documentation, which must not lie."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from lemni.engine import Engine
from lemni.errors import InvalidRequest, TaskNotSupported, UnknownModel
from lemni.hub import ModelFiles, ModelSpec
from lemni.server.app import create_app
from lemni.server.dialects import load_dialects
from lemni.server.dialects.openai_schemas import ModelList
from lemni.server.inputs import side_of
from lemni.server.names import Names
from lemni.server.routes import Dialects
from lemni.tasks.base import Parts
from lemni.tasks.texts import Texts
from lemni.types import ModelCard, Options
from tests.engine.toy import ToyModel, settings
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

CARD = ToyModel().card


def card(name: str, **changes: Any) -> ModelCard:
    return dataclasses.replace(CARD, **{"name": name, "model_id": name, **changes})


async def test_models(real: httpx.AsyncClient) -> None:
    answer = await real.get("/v1/models")
    assert answer.status_code == 200
    ModelList.model_validate(answer.json(), strict=True, extra="forbid")
    (model,) = answer.json()["data"]
    assert model["id"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (model["object"], model["owned_by"]) == ("model", "lemni")
    assert 0 <= time.time() - model["created"] < 3600
    assert (model["dimensions"], model["max_length"], model["similarity"]) == (384, 256, "cosine")
    assert (model["runtime"], model["device"], model["dtype"]) == ("openvino", "cpu", "float32")
    assert model["matryoshka_dimensions"] == []
    assert "384 dimensions" in model["warnings"][0]
    for name in (
        model["id"],
        "SENTENCE-transformers/all-minilm-l6-v2",
        "all-MiniLM-L6-v2",
        "sentence-transformers%2Fall-MiniLM-L6-v2",
    ):
        for prefix in ("", "/v1"):
            assert (await real.get(f"{prefix}/models/{name}")).json() == model
    for name in ("other/model", "%7Bmodel_id:path%7D"):  # the second is the route's own spelling
        assert (await real.get(f"/v1/models/{name}")).status_code == 404


async def test_a_model_that_was_trained_for_fewer_dimensions_has_no_warning() -> None:
    toy = ToyModel()
    toy.card = card("toy", matryoshka_dimensions=(2, 4), source="folder", model_id="/home/somebody/secret")
    with Engine({"toy": toy}, settings()) as engine:
        async with client_of(create_app(loaded(engine), server_settings())) as client:
            answer = await client.get("/v1/models/toy")
            root = await client.get("/")
    assert answer.json()["warnings"] == []
    assert answer.json()["matryoshka_dimensions"] == [2, 4]
    assert "secret" not in answer.text + root.text


def named(*cards: str | ModelCard, any_name: bool = False) -> Names:
    return Names([one if isinstance(one, ModelCard) else card(one) for one in cards], any_name=any_name)


def test_names() -> None:
    names = named("Org/Alpha", card("beta", model_id="org/long-name"), "other/Alpha")
    assert names.find("Org/Alpha").name == "Org/Alpha"
    assert names.find("org/ALPHA").name == "Org/Alpha"
    assert names.find("BETA").name == "beta"
    assert names.find("org/Long-Name").name == "beta"
    assert names.find("long-name").name == "beta"
    with pytest.raises(UnknownModel, match="can mean Org/Alpha or other/Alpha"):
        names.find("alpha")
    with pytest.raises(UnknownModel, match=r"served: Org/Alpha, beta, other/Alpha"):
        names.find("gamma")
    with pytest.raises(InvalidRequest, match="model is missing; served here: Org/Alpha"):
        names.find(None)
    exact = named("a", "x/a")
    assert exact.find("a").name == "a"
    assert exact.find("A").name == "a"
    assert exact.find("X/A").name == "x/a"
    assert named("only").find("").name == "only"
    assert named("only").find("default/not-specified").name == "only"
    with pytest.raises(UnknownModel, match="'other' is not served here; served: only"):
        named("only").find("other")
    with pytest.raises(UnknownModel, match="served: "):
        named().find(None)


def test_without_a_name_the_model_made_for_the_task_answers() -> None:
    dense = card("dense", tasks=("embed", "score", "tokens"))
    other = card("other", tasks=("embed", "score"))
    cross = card("cross", tasks=("score",))
    labels = card("labels", tasks=("classify",))
    names = named(dense, cross, labels)
    for task, found in (("embed", "dense"), ("score", "cross"), ("classify", "labels"), ("tokens", "dense")):
        assert names.find(None, task).name == names.find("", task).name == found  # type: ignore[arg-type]
        assert names.find("labels", task).name == "labels"  # type: ignore[arg-type]  # a name is a name
    with pytest.raises(
        TaskNotSupported, match="no model here does sparse embeddings; served here: dense, cross, labels"
    ):
        names.find(None, "sparse")
    with pytest.raises(TaskNotSupported, match="embeddings of image inputs"):
        names.find(None, "embed", modality="image")
    seeing = card("seeing", tasks=("embed", "score"), modalities=("text", "image"))
    assert named(dense, seeing, labels).find(None, "embed", modality="image").name == "seeing"
    assert named(dense, labels).find(None, "score").name == "dense"  # nobody is made for it, but one can
    with pytest.raises(InvalidRequest, match="model is missing"):
        named(dense, other, labels).find(None, "embed")
    assert named(labels).find(None, "embed").name == "labels"  # the only one: it says itself what it cannot do


def test_the_only_model_may_answer_to_any_name() -> None:
    only = named("only", any_name=True)
    for name in ("text-embedding-3-small", "only", "", None, "default/not-specified"):
        assert only.find(name).name == "only"
    several = named("a", "b", any_name=True)
    assert several.find("B").name == "b"
    with pytest.raises(UnknownModel, match="served: a, b"):
        several.find("c")


@pytest.mark.parametrize(
    ("asked", "prompts", "expected"),
    [
        ({"input_type": "query"}, ["query", "document"], "query"),
        ({"input_type": "search_query"}, ["query"], "query"),
        ({"input_type": "QUERY"}, ["Query"], "Query"),
        ({"input_type": "passage"}, ["query", "document"], "document"),
        ({"input_type": "search_document"}, ["passage"], "passage"),
        ({"input_type": "document"}, ["corpus"], "corpus"),
        ({"input_type": "passage"}, ["document", "passage"], "passage"),
        ({"input_type": "document"}, ["query"], None),
        ({"input_type": "query"}, [], None),
        ({"input_type": "clustering"}, ["Clustering"], "Clustering"),
        ({"input_type": "query", "prompt_name": "s2s"}, ["query", "s2s"], "s2s"),
        ({"input_type": "query", "prompt": "x"}, ["query"], None),
        ({}, ["query"], None),
    ],
)
def test_input_type_finds_the_prompt(asked: dict[str, str], prompts: list[str], expected: str | None) -> None:
    texts = {name: f"{name}: " for name in prompts}
    spec = ModelSpec(ModelFiles("m", Path(), None, "folder"), {}, "bert", (), Path(), (), prompts=texts)
    model = Texts(Parts("m", spec, None, 8), None)  # type: ignore[arg-type]  # neither computes nor tokenises
    name, side = side_of(asked.get("input_type"), card("m", prompts=texts))
    options = Options(prompt=asked.get("prompt"), prompt_name=asked.get("prompt_name") or name, input_type=side)
    assert model.prompt(options) == asked.get("prompt", f"{expected}: " if expected else "")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Query", ("query", "query")),
        ("search_query", (None, "query")),
        ("passage", ("passage", "document")),
        ("clustering", ("clustering", None)),
    ],
)
def test_a_prompt_with_the_name_of_a_side_does_not_hide_the_side(word: str, expected: tuple[str | None, ...]) -> None:
    prompts = {name: f"{name}: " for name in ("query", "passage", "clustering")}
    assert side_of(word, card("m", prompts=prompts)) == expected


async def test_prompt_goes_before_the_text(real: httpx.AsyncClient) -> None:
    prompted = await real.post("/v1/embeddings", json={"input": "a cat", "prompt": "find: "})
    whole = await real.post("/v1/embeddings", json={"input": "find: a cat"})
    assert prompted.json() == whole.json()


async def test_probes(toy_engine: Engine) -> None:
    app = create_app(None, server_settings())
    async with client_of(app) as client:
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "healthy")
        assert abs(health.json()["unix"] - time.time()) < 60
        early = await client.get("/ready")
        assert (early.status_code, early.json()) == (503, {"status": "loading", "models": {}})
        assert early.headers["retry-after"] == "1"
        app.state.service.attach(toy_engine, loaded(toy_engine).models)
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert ready.json()["models"]["toy"]["replicas_alive"] == 1
        for path in ("/health", "/ready", "/"):
            assert (await client.head(path)).status_code == 200
        app.state.service.stop()
        late = await client.get("/ready")
        assert (late.status_code, late.json()["status"]) == (503, "stopping")
        assert (await client.get("/health")).status_code == 200


async def test_ready_sees_a_broken_engine(client: httpx.AsyncClient, toy_engine: Engine) -> None:
    assert (await client.get("/ready")).status_code == 200
    toy_engine.close()
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


async def test_root_says_what_this_is(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).json()["models"] == ["toy"]
    page = await client.get("/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<code>toy</code>" in page.text


async def test_the_key(toy_engine: Engine) -> None:
    async with client_of(create_app(loaded(toy_engine), server_settings(api_key="se-crét"))) as client:
        right = "Bearer se-crét".encode()
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "se-cret"},
            {"authorization": "Basic x"},
            {"authorization": "Bearer"},
            {"api-key": "wrong"},
            {"x-api-key": ""},
            {"api-key": "Bearer se-crét".encode()},
        ):
            for method, path in (("GET", "/v1/models"), ("POST", "/v1/embeddings"), ("GET", "/nothing")):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["type"] == "authentication_error"
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["x-request-id"]
        for name, value in (
            (b"authorization", right),
            (b"authorization", right.replace(b"Bearer", b"bearer")),
            (b"authorization", right.removeprefix(b"Bearer ")),  # llama-index's client of TEI
            (b"api-key", right.removeprefix(b"Bearer ")),
            (b"X-API-Key", right.removeprefix(b"Bearer ")),
        ):
            answer = await client.post("/v1/embeddings", json={"input": "3"}, headers={name: value})
            assert answer.status_code == 200, name
        both = {b"authorization": b"Bearer unused", b"api-key": right.removeprefix(b"Bearer ")}
        assert (await client.get("/v1/models", headers=both)).status_code == 200
        for path in ("/health", "/ready", "/", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert "toy" not in (await client.get("/")).text
        schema = (await client.get("/openapi.json")).json()
    assert schema["paths"]["/v1/embeddings"]["post"]["security"] == [{"key": []}]
    assert schema["paths"]["/health"]["get"]["security"] == []


async def test_documentation_covers_every_route_and_its_examples_work(real: httpx.AsyncClient) -> None:
    schema = (await real.get("/openapi.json")).json()
    app = real._transport.app  # type: ignore[attr-defined]
    shown = {path.replace(":path", "") for path in _paths(app)}
    assert shown == set(schema["paths"])
    assert "HTTPValidationError" not in json.dumps(schema)
    for path in ("/v1/embeddings", "/embeddings"):
        body = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        fields = [schema["properties"].keys() for schema in body["schema"].get("anyOf", [body["schema"]])]
        assert any({"input", "model", "dimensions", "encoding_format", "truncate"} <= names for names in fields)
        errors = schema["paths"][path]["post"]["responses"]["400"]["content"]["application/json"]["schema"]
        shapes = [one.get("properties", {}).get("error", {}) for one in errors.get("anyOf", [errors])]
        assert any({"message", "type", "param", "code"} <= one.get("properties", {}).keys() for one in shapes)
        examples = [one for name, one in body["examples"].items() if name.startswith("OpenAI: ")]
        assert len(examples) >= 3
        for example in examples:
            assert (await real.post(path, json=example["value"])).status_code == 200
    assert (await real.get("/docs")).status_code == 200


def _paths(app: Any) -> set[str]:
    from lemni.server import metrics, probes

    routers = (app.state.dialects.router(), probes.router, metrics.router)
    routes = [route for router in routers for route in router.routes]
    return {route.path for route in routes if isinstance(route, APIRoute) and route.include_in_schema}


def test_errors_are_written_by_the_dialect_of_the_path() -> None:
    dialects = Dialects(load_dialects())
    openai = dialects.all[0]
    for path in ("/v1/embeddings", "/v1/models", "/v1/models/a/b", "/nothing", "/health", ""):
        assert dialects.of(path) is openai
