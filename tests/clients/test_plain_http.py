"""No client library at all: curl if it is there, and Python's own http.client."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from tests.clients.conftest import KEY, MODEL, TEXTS

Check = Callable[[object], None]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(server: str, same: Check) -> None:
    body = json.dumps({"model": MODEL, "input": TEXTS})
    command = ["curl", "-sS", f"{server}/v1/embeddings", "-H", f"Authorization: Bearer {KEY}", "-d", body]
    done = subprocess.run([*command, "-H", "Content-Type: application/json"], capture_output=True, check=True)
    same([entry["embedding"] for entry in json.loads(done.stdout)["data"]])
    # What curl sends when the header is forgotten.
    forgotten = subprocess.run([*command, "-w", "%{http_code}"], capture_output=True, check=True).stdout.decode()
    assert forgotten.endswith("415")
    assert "Content-Type: application/json" in forgotten


def test_http_client(server: str, same: Check) -> None:
    """Also a body in chunks, and several requests on one connection."""
    connection = http.client.HTTPConnection(server.removeprefix("http://"))
    body = json.dumps({"input": TEXTS, "encoding_format": "base64"}).encode()
    headers = {"Authorization": f"Bearer {KEY}"}
    for chunked in (False, True):
        content = iter([body[:50], body[50:]]) if chunked else body
        connection.request("POST", "/v1/embeddings", content, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        assert answer.status == 200
        data = json.loads(answer.read())["data"]
        same([np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in data])
    connection.request("HEAD", "/health")
    assert connection.getresponse().read() == b""
    connection.close()
