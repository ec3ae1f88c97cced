"""`lemni serve` as a process: it answers, says where it listens, stops when told to, and refuses in one line."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.hub import ModelFiles

from .command import COMMAND, environment, error_line, lemni


@contextlib.contextmanager
def serving(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server on a free port, and its URL."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *arguments],
        cwd=cwd,
        env=environment(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found, (line, process.stderr and process.stderr.read())
            yield process, found[0]
        finally:
            process.kill()


def ask(url: str, body: dict[str, Any] | None = None, key: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_it_answers_with_the_vectors_of_embed(minilm: ModelFiles, tmp_path: Path) -> None:
    with serving("--served-name", "mini", str(minilm.path), cwd=tmp_path) as (_, url):
        answer = ask(f"{url}/v1/embeddings", {"model": "mini", "input": ["hello"], "encoding_format": "float"})
    here = lemni("embed", "hello", "-m", str(minilm.path), cwd=tmp_path).stdout
    np.testing.assert_allclose(answer["data"][0]["embedding"], json.loads(here)["embedding"], atol=1e-6)


def test_a_file_with_several_models(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "lemni.yaml").write_text(
        f"""
        models:
          - model: {minilm.path}
            served_name: one
          - model: {minilm.path}
            served_name: two
            pooling: cls
        max_items: 3
        """
    )
    (tmp_path / ".env").write_text("LEMNI_API_KEY=secret\n")
    with serving("--config", "lemni.yaml", cwd=tmp_path, env={"LEMNI_MAX_ITEMS": "2"}) as (_, url):
        listed = ask(f"{url}/v1/models", key="secret")
        one, two = (
            ask(f"{url}/v1/embeddings", {"model": name, "input": "x"}, "secret")["data"][0]["embedding"]
            for name in ("one", "two")
        )
        with pytest.raises(urllib.error.HTTPError) as no_key:
            ask(f"{url}/v1/models")
        with pytest.raises(urllib.error.HTTPError) as too_many:
            ask(f"{url}/v1/embeddings", {"model": "one", "input": ["a", "b", "c"]}, "secret")
    assert [model["id"] for model in listed["data"]] == ["one", "two"]
    assert one != two
    with no_key.value, too_many.value:
        assert (no_key.value.code, too_many.value.code) == (401, 400)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told_to(sign: signal.Signals, minilm: ModelFiles, tmp_path: Path) -> None:
    with serving(str(minilm.path), cwd=tmp_path) as (process, url):
        assert ask(f"{url}/health")
        process.send_signal(sign)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_a_busy_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        line = error_line(lemni("serve", "--port", str(port), cwd=tmp_path))
    assert line.startswith(f"port {port} on 127.0.0.1 is in use")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["--host", "no.such.host.invalid"], "host 'no.such.host.invalid' is unknown"),
        (["--port", "70000"], "--port: '70000' is not allowed: must be less than or equal to 65535"),
        (["--port", "0", "./nowhere"], "there is no folder './nowhere'"),
        (["--port", "0", "--offline", "no/such"], "model 'no/such' was not found. Tried: "),
        (["a", "a"], "two models are served as 'a'; give one of them another served_name"),
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert error_line(lemni("serve", *arguments, cwd=tmp_path)).startswith(message)
