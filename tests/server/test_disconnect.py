"""A client that hangs up frees its place in the queue, seen from a real socket."""

from __future__ import annotations

import dataclasses
import json
import socket

import httpx
import pytest

from lemni.config import MediaSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.engine.toy import Gate, ToyModel
from tests.server.live import PATIENCE_S, listening, loaded, server_settings, wait_for

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"


def _send(url: str, body: dict[str, object], cut_at: int | None = None) -> socket.socket:
    """A request on a bare socket, which is left open."""
    content = json.dumps(body).encode()
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.sendall(HEAD % (len(content), b"") + content[:cut_at])
    return connection


def test_hanging_up_cancels_queued_and_running_work(toy: ToyModel, toy_engine: Engine) -> None:
    toy.gates[9] = gate = Gate()
    with listening(create_app(loaded(toy_engine), server_settings())) as url:
        running = _send(url, {"input": "9"})
        gate.wait_entered()
        queued = _send(url, {"input": "5 5 5"})
        wait_for(lambda: toy_engine.status()["toy"].waiting_sequences == 1)
        queued.close()
        wait_for(lambda: toy_engine.status()["toy"].cancelled == 1)
        assert toy_engine.status()["toy"].waiting_tokens == 0
        running.close()
        wait_for(lambda: toy_engine.status()["toy"].cancelled == 2)
        gate.open()
        answer = httpx.post(f"{url}/v1/embeddings", json={"input": "1"})
        assert answer.status_code == 200
    assert (5, 5, 5) not in toy.computed
    status = toy_engine.status()["toy"]
    assert (status.requests, status.completed, status.open_requests) == (3, 1, 0)


def test_hanging_up_while_sending_is_nobodys_error(toy_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with listening(create_app(loaded(toy_engine), server_settings())) as url:
        _send(url, {"input": ["1"] * 1000}, cut_at=500).close()
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "1"}).status_code == 200
    assert toy_engine.status()["toy"].requests == 1
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]


def test_a_path_that_begins_with_two_slashes(toy_engine: Engine) -> None:
    """What a client makes of a base URL with a slash at its end."""
    with listening(create_app(loaded(toy_engine), server_settings())) as url:
        assert httpx.post(f"{url}//embeddings", json={"input": "1"}).status_code == 200


def test_a_large_body_is_refused_before_it_is_sent(toy_engine: Engine) -> None:
    """The announced length is enough; a client that waits for 100-continue need not send."""
    with listening(create_app(loaded(toy_engine), server_settings(max_body_mib=1))) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.settimeout(PATIENCE_S)
            connection.sendall(HEAD % (99_999_999, b"Expect: 100-continue\r\n"))
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_hanging_up_ends_the_downloads(toy: ToyModel, toy_engine: Engine) -> None:
    toy.card = dataclasses.replace(toy.card, modalities=("text", "image"))
    media = MediaSettings.model_validate({"media_allow_hosts": ["127.0.0.1"], "media_timeout_s": 10 * PATIENCE_S})
    app = create_app(loaded(toy_engine), server_settings(), media=media)
    with socket.create_server(("127.0.0.1", 0)) as site, listening(app) as url:
        site.settimeout(PATIENCE_S)
        picture = f"http://127.0.0.1:{site.getsockname()[1]}/cat.png"
        client = _send(url, {"input": picture, "modality": "image"})
        download, _ = site.accept()
        with download:
            download.settimeout(PATIENCE_S)
            client.close()
            while download.recv(4096):  # the request for the picture, then the end
                pass
        assert httpx.post(f"{url}/v1/embeddings", json={"input": "1"}).status_code == 200
