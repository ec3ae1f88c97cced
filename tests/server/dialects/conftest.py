"""Tiny random models behind one server: "prompted" embeds with prompts, "clip" images too, two others classify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings
from tests.tasks import classifiers, tiny
from tests.tiny_multimodal import save_clip

PROMPTS = {"query": "ask ", "document": "tell ", "classification": "sort "}


@pytest.fixture(scope="session")
def zoo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="session")
def zoo_engine(zoo_folder: Path) -> Iterator[Engine]:
    from sentence_transformers.models import Pooling

    tiny.sentence_model(zoo_folder / "prompted", [Pooling(32, "mean")], prompts=PROMPTS)
    save_clip(zoo_folder / "clip")
    classifiers.save_classifier(zoo_folder / "labels", "bert", 3)
    classifiers.save_classifier(zoo_folder / "tags", "bert", 3, problem_type="multi_label_classification")
    models = {"prompted": tiny.load(zoo_folder / "prompted", served_name="prompted")}
    for name in ("clip", "labels", "tags"):
        models[name] = classifiers.load(zoo_folder / name, served_name=name)
    with Engine(models, EngineSettings()) as engine:
        yield engine
    for model in models.values():
        model.close()


@pytest.fixture
async def zoo(zoo_engine: Engine, cache: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(loaded(zoo_engine), server_settings(), cache_dir=cache)) as client:
        yield client
