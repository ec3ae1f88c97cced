"""The deployment scripts: each becomes a server that the Go client's requests go to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.examples.comparison import EXAMPLES, Printed
from tests.server.live import PATIENCE_S, free_port, wait_for


@pytest.mark.parametrize("script", ["deploy_infinity.py", "deploy_reranker.py"])
def test_deploy(script: str, cross_encoder: Path, expected: dict[str, Printed]) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["--model", str(cross_encoder), "--port", str(port), "--device", "cpu", "--api-key", "secret"]
    command = [sys.executable, str(EXAMPLES / script), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            printed = process.stdout.readline()
            wait_for(lambda: process.poll() is not None or _healthy(url))
            case = next(iter(expected.values()))
            documents = list(case.relevance)
            body = {"model": cross_encoder.name, "query": case.query, "documents": documents, "top_n": -1}
            refused = httpx.post(f"{url}/rerank", json=body)
            answer = httpx.post(f"{url}/rerank", json=body, headers={"Authorization": "Bearer secret"}).json()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    where = f"--port {port} --host 0.0.0.0 --device cpu --api-key secret"
    assert printed == f"lemni serve {cross_encoder} {where}\n"
    assert refused.status_code == 401
    scores = {documents[found["index"]]: found["relevance_score"] for found in answer["results"]}
    assert scores == pytest.approx(case.relevance, abs=2e-6)


def test_defaults(tmp_path: Path) -> None:
    """The model is not there, or the port is taken: either way the server ends at once."""
    command = [sys.executable, str(EXAMPLES / "deploy_infinity.py"), "--offline"]
    environment = os.environ | {"HF_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout == "lemni serve BAAI/bge-reranker-v2-m3 --port 7997 --host 0.0.0.0 --device auto --offline\n"
    assert done.returncode == 2
    warning, error, _ = done.stderr.split("\n", 2)
    assert warning == "listening on every interface without --api-key: everybody may ask"
    assert error.startswith("lemni: error: ")


def test_help_shows_the_defaults() -> None:
    command = [sys.executable, str(EXAMPLES / "deploy_reranker.py"), "--help"]
    text = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    for default in ("BAAI/bge-reranker-v2-m3", "7997", "0.0.0.0", "auto"):
        assert f"default: {default};" in text


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False
