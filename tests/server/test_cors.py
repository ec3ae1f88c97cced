"""Pages of other origins: allowed where the operator says so, and only then."""

from __future__ import annotations

import httpx
import pytest
from pydantic import ValidationError

from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

ASKED = {
    "origin": "https://example.org",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def answers(engine: Engine, **settings: object) -> tuple[httpx.Response, httpx.Response]:
    app = create_app(loaded(engine), server_settings(api_key="secret", **settings))
    async with client_of(app) as client:
        return (
            await client.options("/v1/embeddings", headers=ASKED),
            await client.post("/v1/embeddings", json={"input": "a"}, headers={"origin": "https://example.org"}),
        )


@pytest.mark.parametrize("origins", ["*", "https://example.org", ["https://other.org", "https://example.org"]])
async def test_allowed(toy_engine: Engine, origins: object) -> None:
    before, refused = await answers(toy_engine, cors_origins=origins)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] in ("*", "https://example.org")
    assert "authorization" in before.headers["access-control-allow-headers"].lower()
    # The page can read the refusal too.
    assert refused.status_code == 401
    assert "access-control-allow-origin" in refused.headers


@pytest.mark.parametrize("origins", [None, "https://other.org"])
async def test_not_allowed(toy_engine: Engine, origins: str | None) -> None:
    for answer in await answers(toy_engine, cors_origins=origins):
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("origins", ["example.org", "https://example.org/path", 7])
def test_no_origin(origins: object) -> None:
    with pytest.raises(ValidationError):
        server_settings(cors_origins=origins)
