"""The Go client and its example, built by the Go at hand and run against a live server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.comparison import EXAMPLES, PYTHON, Printed, check, read, run
from tests.examples.conftest import KEY

GO = shutil.which("go")
FOLDER = EXAMPLES / "go"

pytestmark = pytest.mark.skipif(GO is None, reason="go is not installed")


def go(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The example needs no module but itself: none may be downloaded."""
    own = {"GOPROXY": "off", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", **environment}
    command = [str(GO), *arguments]
    return subprocess.run(command, cwd=FOLDER, env=os.environ | own, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[str]:
    path = tmp_path_factory.mktemp("go") / "rerank"
    done = go("build", "-o", str(path), ".")
    assert done.returncode == 0, done.stderr
    return (str(path),)


def test_form_and_vet() -> None:
    formatter = Path(str(GO)).resolve().with_name("gofmt")
    done = subprocess.run([str(formatter), "-l", "."], cwd=FOLDER, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    vetted = go("vet", "./...")
    assert vetted.returncode == 0, vetted.stderr


def test_the_clients_own_tests_with_a_live_server(server: str) -> None:
    """What is sent and read, error texts; live: top_n, an empty document, wrong keys."""
    done = go("test", "-count=1", "-v", "./...", INFINITY_URL=f"{server}/rerank", INFINITY_TOKEN=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--- PASS: TestLive" in done.stdout


@pytest.mark.parametrize("path", ["", "/rerank", "/v1/rerank"])
def test_scores(server: str, program: tuple[str], expected: dict[str, Printed], path: str) -> None:
    endpoint, embedding_model, cases = read(run(program, "-endpoint", server + path, "-api-key", KEY))
    assert (endpoint, embedding_model) == (server + (path or "/rerank"), "minilm")
    check(cases, expected)


def test_models_by_name_and_embeddings_from_elsewhere(
    server: str, program: tuple[str], expected: dict[str, Printed]
) -> None:
    arguments = ["-model", "ranker", "-embedding-model", "minilm", "-api-key", KEY]
    environment = {"INFINITY_URL": server, "OPENAI_BASE_URL": f"{server}/v1", "OPENAI_API_KEY": KEY}
    check(read(run(program, *arguments, **environment))[2], expected)


def test_it_prints_what_the_python_program_prints(server: str, program: tuple[str]) -> None:
    ours, theirs = (read(run(one, "-endpoint", server, "-api-key", KEY)) for one in (program, PYTHON))
    assert ours[:2] == theirs[:2]
    check(ours[2], theirs[2])


def test_errors(server: str, program: tuple[str]) -> None:
    environment = {"OPENAI_BASE_URL": f"{server}/v1", "OPENAI_API_KEY": KEY}
    wrong = run(program, "-endpoint", server, "-api-key", "no", "-embedding-model", "minilm", **environment)
    assert wrong.returncode == 1
    assert re.fullmatch(r"rerank: status 401: [^{]+\n", wrong.stderr)
    unknown = run(program, "-endpoint", server, "-api-key", KEY, **environment)
    assert re.match(r"rerank: embeddings: status 404: [^{]+text-embedding-3-small[^{]+\n", unknown.stderr)
    other = run(program, "-endpoint", server, "-api-key", KEY, "-model", "no-such")
    assert re.match(r"rerank: status 404: [^{]+no-such[^{]+\n", other.stderr)
    assert [error.stdout for error in (wrong, unknown, other)] == [""] * 3


@pytest.mark.parametrize("endpoint", ["localhost:7997", "127.0.0.1:7997/rerank", "ftp://host/rerank", "http://"])
def test_no_url(program: tuple[str], endpoint: str) -> None:
    done = run(program, "-endpoint", endpoint)
    says = f'rerank: the endpoint "{endpoint}" is no URL: it begins with http:// or https://\n'
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_an_embedding_model_is_called_none_other(server: str, program: tuple[str], path: str) -> None:
    done = run(program, "-endpoint", server + path, "-api-key", KEY, "-model", "minilm")
    assert done.stderr.startswith(f"The model at {server}{path} is no cross-encoder. Serve one: lemni serve ")
    read(done, "Embedding Model: cosine")
