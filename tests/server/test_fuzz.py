"""Random bodies never bring the server down, and never get a 5xx: real tokenizer, real model."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(max_size=40) | st.sampled_from(["", "query", "float", "base64", "left", "NONE", "bulk", "text"])
values = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner), max_leaves=8
)
token_ids = st.lists(st.integers(0, 30521) | st.integers(-5, 40000), max_size=12)
inputs = values | texts | token_ids | st.lists(texts, max_size=10) | st.lists(token_ids | texts, max_size=5)
FIELDS = [
    "model", "encoding_format", "encoding", "dimensions", "user", "truncate", "prompt", "prompt_name", "input_type",
    "normalize", "priority", "modality", "other",
]  # fmt: skip
bodies = st.builds(
    lambda given, options: {"input": given, **options},
    inputs,
    st.dictionaries(st.sampled_from(FIELDS), values | texts | st.integers(0, 400), max_size=4),
)


@pytest.fixture(scope="module")
def app(real_engine: Engine) -> Any:
    return create_app(loaded(real_engine), server_settings(max_items=8))


def _post(app: Any, content: bytes) -> None:
    async def post() -> None:
        async with client_of(app) as client:
            answer = await client.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
            assert answer.status_code in (200, 400, 404), answer.text
            body = answer.json()
            if answer.status_code != 200:
                assert body["error"].keys() == {"message", "type", "param", "code"}
                assert body["error"]["type"] == "invalid_request_error"
                assert 0 < len(body["error"]["message"]) < 1000

    asyncio.run(post())


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies)
def test_any_json(app: Any, body: Any) -> None:
    _post(app, orjson.dumps(body))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=bodies, cut=st.integers(0, 200), byte=st.integers(0, 255))
def test_any_bytes(app: Any, body: Any, cut: int, byte: int) -> None:
    content = orjson.dumps(body)
    at = cut % (len(content) + 1)
    _post(app, content[:at] + bytes([byte]) + content[at + 1 :])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=values)
def test_any_document(app: Any, body: Any) -> None:
    _post(app, orjson.dumps(body))
