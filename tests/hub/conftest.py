"""Local servers, and settings that reach nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lemni.config import HubSettings
from tests.hub.fake_hub import FakeHub, HubHandler
from tests.hub.fake_index import FakeIndex, IndexHandler

Serve = Callable[[type[BaseHTTPRequestHandler]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server for a handler class on a free port; stopped after the test."""
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> int:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return int(server.server_address[1])

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def index(serve: Serve) -> FakeIndex:
    fake = FakeIndex()
    fake.port = serve(type("Handler", (IndexHandler,), {"index": fake}))
    return fake


@pytest.fixture
def settings(tmp_path: Path, index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> HubSettings:
    """An empty cache and the fake index; the Hugging Face cache is empty too and its hub is out of reach."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return HubSettings.model_validate({"cache_dir": tmp_path / "cache", "index_url": index.url})


@pytest.fixture
def hub_server(settings: HubSettings, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The fake Hugging Face hub, in reach."""
    from huggingface_hub import constants

    fake = FakeHub()
    url = f"http://127.0.0.1:{serve(type('Handler', (HubHandler,), {'hub': fake}))}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    return fake
