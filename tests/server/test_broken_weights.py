"""A real model whose weights hold a NaN: a text that meets it fails by name, others do not, and the server goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.engine import Engine
from lemni.loading import load_model
from lemni.server.app import create_app
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

URL = "/v1/embeddings"


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Engine]:
    """The letter q is NaN."""
    from safetensors.torch import load_file, save_file
    from sentence_transformers.models import Pooling

    from tests.tasks.tiny import VOCABULARY, sentence_model

    sentence_model(tmp_path, [Pooling(32)])
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    (name,) = (name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name][VOCABULARY["q"]] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    settings = ModelSettings(model=str(tmp_path / "model"), device="cpu")
    model = load_model(settings, HubSettings(offline=True), EngineSettings())
    with Engine({model.card.name: model}, EngineSettings()) as engine:
        yield engine
    model.close()


async def test_nan_is_an_error_and_not_a_vector(broken: Engine) -> None:
    async with client_of(create_app(loaded(broken), server_settings())) as client:
        for _ in range(2):
            assert (await client.post(URL, json={"input": ["a", "b"]})).status_code == 200
            bad = await client.post(URL, json={"input": ["q"]})
            assert bad.status_code == 500
            error = bad.json()["error"]
            assert (error["type"], error["param"], error["code"]) == ("server_error", "input[0]", "invalid_output")
        assert (await client.get("/ready")).status_code == 200


async def test_nan_does_not_spread_to_its_batch(broken: Engine) -> None:
    async with client_of(create_app(loaded(broken), server_settings())) as client:
        bad = await client.post(URL, json={"input": ["a", "b", "q", "c"]})
    assert bad.json()["error"]["param"] == "input[2]"
