"""The images' recipes: linted, composed, and what they start run as a plain process; no Docker engine is needed."""

from __future__ import annotations

import fnmatch
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

import lemni
from lemni.hub import ModelFiles
from tests.cli.command import environment
from tests.server.live import PATIENCE_S, free_port, wait_for

from .dockerfile import Stage
from .manifests import DEPLOY

ROOT = DEPLOY.parent
BIN = Path(sys.executable).parent
DOCKERFILES = ["Dockerfile", "Dockerfile.gpu"]
COMPOSED = ["docker-compose.yml", "docker-compose.gpu.yml"]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint(name: str, tmp_path: Path) -> None:
    command = [BIN / "hadolint", "--no-color", "--failure-threshold", "style"]
    done = subprocess.run([*command, DEPLOY / name], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done
    worse = tmp_path / "Dockerfile"
    worse.write_text((DEPLOY / name).read_text("utf-8").replace("# hadolint ignore", "# formerly ignored"), "utf-8")
    assert subprocess.run([*command, worse], capture_output=True).returncode == 1, "it does look"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_nobody_special(name: str) -> None:
    stage = Stage(DEPLOY / name, {})
    assert stage.user == "10001:10001"
    assert stage.entrypoint == ["lemni", "serve"]
    assert stage.stop_signal == "SIGTERM"
    assert re.fullmatch(r"[\w/]+:[\w.-]*\d[\w.-]*", stage.base), "a version, not latest"
    assert stage.env["LEMNI_HOST"] == "0.0.0.0"
    assert all(stage.env[variable].startswith("/cache/") for variable in ("LEMNI_CACHE_DIR", "HF_HOME"))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_sent_to_the_builder(name: str) -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("", "#")]
    sent = [
        path.name
        for path in ROOT.iterdir()
        if not [p for p in patterns if not p.startswith("!") and fnmatch.fnmatch(path.name, p)]
        or [p for p in patterns if p == f"!{path.name}"]
    ]
    assert sorted(sent) == ["LICENSE", "README.md", "pyproject.toml", "src"]
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / name).read_text("utf-8"), re.MULTILINE)
    assert sorted(word for line in copied for word in line.split()) == sorted(sent)


def test_the_entry_point_serves_and_drains(minilm: ModelFiles, tmp_path: Path) -> None:
    """As Docker would start it, but on a free port, and with the model's folder instead of a download."""
    stage = Stage(DEPLOY / "Dockerfile", {"PATH": "/usr/bin:/bin"})
    assert stage.env["PATH"] == "/opt/lemni/bin:/usr/bin:/bin"
    env = {name: value.replace("/cache", str(tmp_path / "cache")) for name, value in stage.env.items()}
    env |= {"PATH": f"{BIN}:/usr/bin:/bin", "LEMNI_HOST": "127.0.0.1", "LEMNI_PORT": str(free_port())}
    env |= {"HOME": str(tmp_path), "LEMNI_OFFLINE": "true"}
    inherited = {name: value for name, value in environment().items() if name in ("LD_LIBRARY_PATH", "SYSTEMROOT")}
    command = [*stage.entrypoint, *stage.cmd, str(minilm.path), "--served-name", "mini"]
    url = f"http://127.0.0.1:{env['LEMNI_PORT']}"
    # The program is looked for in the child's PATH.
    with subprocess.Popen(
        ["/usr/bin/env", *command], cwd=tmp_path, env=inherited | env, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for(lambda: process.poll() is not None or _status(f"{url}/ready") == 200)
            assert _status(f"{url}/health") == 200
            text = "A cat sits on the mat."
            answer = httpx.post(f"{url}/v1/embeddings", json={"input": text, "encoding_format": "float"}).json()
            healthy = ["/usr/bin/env", *stage.healthcheck]
            assert subprocess.run(healthy, env=inherited | env, timeout=PATIENCE_S).returncode == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
            stopped = subprocess.run(healthy, env=inherited | env, capture_output=True, timeout=PATIENCE_S)
            assert stopped.returncode == 1
        finally:
            process.kill()
    with lemni.load(str(minilm.path), device="cpu") as model:
        np.testing.assert_allclose(answer["data"][0]["embedding"], model.embed(text), atol=1e-6)


def _status(url: str) -> int:
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0


def compose(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    return found


@pytest.mark.parametrize("name", COMPOSED)
def test_compose(name: str) -> None:
    """The essentials of the Compose specification, and what the embedding service that it replaces promises."""
    file = compose(name)
    assert set(file) <= {"name", "services", "volumes", "networks", "configs", "secrets"}
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", file["name"])
    known = {
        "image", "build", "user", "entrypoint", "volumes", "network_mode", "depends_on", "ports", "environment",
        "restart", "stop_grace_period", "read_only", "tmpfs", "cap_drop", "security_opt", "deploy", "shm_size",
    }  # fmt: skip
    for one in file["services"].values():
        assert set(one) <= known
        assert (DEPLOY / one["build"]["context"]).resolve() == ROOT
        assert (ROOT / one["build"]["dockerfile"]).is_file()
        assert one["volumes"] == ["./model_cache:/cache"]
    service = file["services"]["embedding-service"]
    assert all(other in file["services"] for other in service["depends_on"])
    stage = Stage(ROOT / service["build"]["dockerfile"], {})
    env = dict(one.split("=", 1) for one in service["environment"])
    host, inside = service["ports"][0].split(":")
    assert host == inside == env["LEMNI_PORT"] == "8000"
    assert env["LEMNI_MODELS"] == "BAAI/bge-large-en-v1.5"
    assert re.fullmatch(r"\$\{QUANTIZATION:-(fp32|fp16)\}", env["QUANTIZATION"])
    assert service["restart"] == "always"
    limits = service["deploy"]["resources"]["limits"]
    assert re.fullmatch(r"\d+G", limits["memory"])
    if name == "docker-compose.yml":
        assert limits["memory"] == "4G"
        assert env["LEMNI_THREADS"] == limits["cpus"]
        assert service["read_only"]
        assert service["tmpfs"] == ["/tmp"]
    else:
        (gpu,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert gpu == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    owner = file["services"]["model-cache"]
    assert owner["entrypoint"] == ["chown", stage.user, "/cache"]
    drain_s = lemni.config.ServerSettings.model_validate({}).drain_timeout_s
    assert int(service["stop_grace_period"].removesuffix("s")) > drain_s + 5


def test_quantization_counts_in_the_image(tmp_path: Path) -> None:
    """No variable of the image hides the plain ones that the services it replaces are configured with."""
    from lemni.cli.settings import load_settings

    stage = Stage(DEPLOY / "Dockerfile", {})
    plain = {"QUANTIZATION": "int8", "PORT": "8001", "EMBEDDING_MODEL": "all-mpnet-base-v2", "MAX_SEQ_LENGTH": "128"}
    settings = load_settings({}, {**stage.env, **plain}, plain=True)
    (model,) = settings.models
    assert (model.dtype, model.model, model.max_length) == ("int8", "sentence-transformers/all-mpnet-base-v2", 128)
    assert (settings.server.port, settings.server.host) == (8001, "0.0.0.0")
    assert os.fspath(settings.hub.cache_dir or "") == "/cache/lemni"
