"""The README's examples, run as they stand: Python against the library and a live server, and the curl call."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.engine import Engine
from lemni.hub import ModelFiles
from lemni.loading import load_model
from lemni.server.app import create_app
from tests.server.live import listening, loaded, server_settings

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.S)


@pytest.fixture(scope="module")
def server(minilm: ModelFiles) -> Iterator[str]:
    model = load_model(ModelSettings(device="cpu"), HubSettings(), EngineSettings())
    with (
        Engine({model.card.name: model}, EngineSettings()) as engine,
        listening(create_app(loaded(engine), server_settings())) as url,
    ):
        yield url
    model.close()


def test_there_are_four_python_examples() -> None:
    assert ["openai" in example for example in PYTHON] == [True, False, False, False]


@pytest.mark.parametrize("example", PYTHON, ids=["openai", "library", "client", "rerank"])
def test_python(example: str, server: str) -> None:
    promised = [line[2:] for line in example.splitlines() if re.match(r"# \d", line)]
    program = example.replace("http://localhost:7997", server)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    printed = done.stdout.strip()
    (expected,) = promised
    # "0.574..." stands for any digits after it.
    assert re.fullmatch(re.escape(expected).replace(r"\.\.\.", r"\d*"), printed), (expected, printed)


def test_curl(server: str) -> None:
    body, answer = re.search(r"-d '(\{.*?\})'\n(\{.*\})\n", README).groups()  # type: ignore[union-attr]
    promised, real = json.loads(answer), httpx.post(f"{server}/v1/embeddings", json=json.loads(body)).json()
    numbers = real["data"][0].pop("embedding")
    assert numbers == pytest.approx(promised["data"][0].pop("embedding"), abs=1e-5)
    assert real == promised


def test_the_librarys_example(minilm: ModelFiles) -> None:
    page = (Path(__file__).parents[1] / "docs" / "library.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True, timeout=120)
    assert f"# {done.stdout}" == example.splitlines(keepends=True)[-1]


CLIENT = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs" / "client.md").read_text("utf-8"), flags=re.S
)


@pytest.mark.parametrize(
    "example", [example for example in CLIENT if "\n# " in example], ids=["methods", "async", "long list", "cache"]
)
def test_the_clients_examples(example: str, server: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "LEMNI_URL": server},
    )
    assert f"# {done.stdout}" == example.splitlines(keepends=True)[-1]
