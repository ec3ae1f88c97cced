"""Live servers and clients that several test files of the client use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lemni import hub
from tests.client.asking import FAST, Asking
from tests.client.late_interaction_server import Live, late_interaction_server
from tests.client.misbehaving import Server
from tests.client.provider_server import Watched, named_models
from tests.client.zoo import Zoo, open_zoo


@pytest.fixture(scope="session")
def late_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with late_interaction_server(tmp_path_factory.mktemp("late")) as live:
        yield live


@pytest.fixture
def late(late_models: Live) -> Live:
    """A live Lemni with tiny ColQwen2, ColPali and ColBERT models, that has been asked nothing yet."""
    late_models.asked.clear()
    return late_models


@pytest.fixture(scope="session")
def named_minilm(minilm: hub.ModelFiles) -> Iterator[Watched]:
    with named_models(minilm) as watched:
        yield watched


@pytest.fixture
def server(named_minilm: Watched) -> Watched:
    """A live Lemni with the real default model under two names, that has been asked nothing yet."""
    named_minilm.asked.clear()
    return named_minilm


VARIABLES = ("EMBEDDING_", "INFINITY_", "OLLAMA_", "OPENAI_", "REDIS_", "CACHE_BACKEND", "API_KEY", "BASE_URL")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty, and no variable that a provider of embeddings reads."""
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def zoo(minilm: hub.ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    with open_zoo(minilm.path, tmp_path_factory.mktemp("zoo")) as found:
        yield found


@pytest.fixture(params=[True, False], ids=["sync", "async"])
def sync(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def ask(sync: bool) -> Iterator[Callable[..., Asking]]:
    """Makes clients that are closed with the test."""
    made: list[Asking] = []

    def make(*servers: Server, **settings: Any) -> Asking:
        made.append(Asking(sync, [server.url for server in servers], **{"retries": FAST, "model": "toy", **settings}))
        return made[-1]

    yield make
    for client in made:
        client.end()


@pytest.fixture
def ask_zoo(sync: bool, zoo: Zoo) -> Iterator[Callable[..., Asking]]:
    """Makes clients of the server that has all models, or of another; they are closed with the test."""
    made: list[Asking] = []

    def make(url: str | None = None, **settings: Any) -> Asking:
        made.append(Asking(sync, url or zoo.url, **{"retries": 0, **settings}))
        return made[-1]

    yield make
    for client in made:
        client.end()
