"""The OpenAPI document: every route is in it with examples, and what the server does is in it (by schemathesis)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as conformance

from lemni.config import DEFAULT_MODEL
from lemni.engine import Engine
from lemni.server.app import create_app
from lemni.server.dialects import load_dialects
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings


@pytest.fixture(scope="module")
def app(real_engine: Engine, cache: Path) -> FastAPI:
    return create_app(loaded(real_engine), server_settings(max_items=8, max_body_mib=1), cache_dir=cache)


@pytest.fixture(scope="module")
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def test_every_route_is_documented(document: dict[str, Any]) -> None:
    for dialect in load_dialects():
        for operation in dialect.operations:
            for path in operation.paths:
                described = document["paths"][path.replace(":path}", "}")][operation.method.lower()]
                assert described["summary"], path
                assert dialect.name in described["tags"], path
                assert "200" in described["responses"], path
    assert {"/health", "/ready"} <= set(document["paths"])


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [one["operationId"] for operations in document["paths"].values() for one in operations.values()]
    assert len(ids) == len(set(ids))


def posts(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for path, operations in document["paths"].items():
        if "post" in operations:
            examples = operations["post"]["requestBody"]["content"]["application/json"]["examples"]
            assert examples, f"{path} has no example"
            for name, example in examples.items():
                yield path.replace("{model_id}", DEFAULT_MODEL), name, example["value"]


async def test_every_example_is_answered(app: FastAPI, document: dict[str, Any]) -> None:
    """By the default model where it can do it, with a clear refusal where not."""
    async with client_of(app) as client:
        for path, name, value in posts(document):
            answer = await client.post(path, json=value)
            if answer.status_code == 200:
                continue
            refusal = answer.text
            assert answer.status_code in (400, 422, 424), (path, name, refusal[:300])
            expected = ("does not do", "takes no", "cannot be fetched", "needs", "gives no", "not served", "no prompt")
            assert any(words in refusal for words in expected), (path, name, refusal[:300])


OPERATIONS = [
    (operation.method, path)
    for dialect in load_dialects()
    for operation in dialect.operations
    for path in operation.paths[:1]
]

# A request without a body cannot be wrong.
CASES = [
    pytest.param(method, path, mode, id=f"{method} {path} {mode.value}")
    for method, path in sorted(set(OPERATIONS))
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if method == "POST" or mode == GenerationMode.POSITIVE
]


@pytest.fixture(scope="module")
def api(app: FastAPI) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(("method", "path", "mode"), CASES)
def test_no_surprises(api: Any, method: str, path: str, mode: GenerationMode) -> None:
    """Bodies by the schema and against it: no 5xx, and no status, type or answer that the document does not have."""
    operation = api[path.replace(":path}", "}")][method]

    @given(operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    check()


CHECKS = [
    # Also against 5xx: the document has only 503 and 504, and generated deadlines are often too short.
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
]
