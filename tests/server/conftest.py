"""Clients of in-process applications: over the engine's toy model, and over the real default model."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from lemni import hub
from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.engine import Engine
from lemni.loading import load_model
from lemni.server.app import create_app
from tests.engine.toy import ToyModel, engine_of
from tests.server.live import loaded, server_settings


@contextlib.asynccontextmanager
async def client_of(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", **options) as client:
        yield client


@pytest.fixture
def toy() -> ToyModel:
    return ToyModel()


@pytest.fixture
def toy_engine(toy: ToyModel) -> Iterator[Engine]:
    with engine_of(toy) as engine:
        yield engine


@pytest.fixture
async def client(toy_engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server over the toy model."""
    async with client_of(create_app(loaded(toy_engine), server_settings())) as client:
        yield client


@pytest.fixture(scope="session")
def real_engine(minilm: hub.ModelFiles) -> Iterator[Engine]:
    """The real default model."""
    model = load_model(ModelSettings(device="cpu"), HubSettings(), EngineSettings())
    with Engine({model.card.name: model}, EngineSettings()) as engine:
        yield engine
    model.close()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where servers of tests keep int8 ranges."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
async def real(real_engine: Engine, cache: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server over the real default model, with small limits."""
    app = create_app(loaded(real_engine), server_settings(max_items=8, max_body_mib=1), cache_dir=cache)
    async with client_of(app) as client:
        yield client
