"""The dialect that docs/dialects.md writes as an example, served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lemni.engine import Engine
from lemni.server import app as application
from lemni.server.dialects import load_dialects
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"


async def test_the_example(real_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec", dont_inherit=True), names)
    monkeypatch.setattr(application, "load_dialects", lambda: [*load_dialects(), names["DIALECT"]])
    app = application.create_app(loaded(real_engine), server_settings(api_key="secret"))
    async with client_of(app, headers={"authorization": "Bearer secret"}) as client:
        ours = (await client.post("/encode", json={"sentences": ["a", "b"]})).json()
        theirs = (await client.post("/v1/embeddings", json={"input": ["a", "b"]})).json()
        assert ours["vectors"] == [one["embedding"] for one in theirs["data"]]
        wrong = await client.post("/encode", json={"sentences": ["a", 1]})
        assert wrong.status_code == 400
        assert "sentences[1]" in wrong.json()["problem"]
        assert (await client.post("/encode", json={}, headers={"authorization": "no"})).json()["problem"]
        document = (await client.get("/openapi.json")).json()
        assert "texts" in document["paths"]["/encode"]["post"]["requestBody"]["content"]["application/json"]["examples"]
