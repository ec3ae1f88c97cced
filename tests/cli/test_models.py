"""`lemni models` and `lemni pull` over a cache made here, and over the real default model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lemni.cli.models import size
from lemni.config import DEFAULT_MODEL
from lemni.hub import ModelFiles

from .command import error_line, lemni


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A cache of our own, with two small models; no network."""
    for name in ("one", "two"):
        home = tmp_path / "cache" / "models" / f"org--{name}" / "1.0"
        home.mkdir(parents=True)
        (home / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
        (home / "model.safetensors").write_bytes(b"x" * 1500)
        files = [
            {"path": file.name, "size": file.stat().st_size, "sha256": "?"}
            for file in (home / "config.json", home / "model.safetensors")
        ]
        manifest = {"id": f"org/{name}", "revision": "1.0", "origin": "here", "time_s": 0, "files": files}
        (home / "lemni-manifest.json").write_text(json.dumps(manifest))
    return {"LEMNI_CACHE_DIR": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf"), "LEMNI_OFFLINE": "1"}


def test_list(env: dict[str, str], tmp_path: Path) -> None:
    for arguments in (["models"], ["models", "list"]):
        head, one, two = lemni(*arguments, cwd=tmp_path, env=env).stdout.splitlines()
        assert head.split() == ["MODEL", "REVISION", "SIZE", "CACHE", "STORED"]
        assert one.split()[:5] == ["org/one", "1.0", "1.6", "kB", "lemni"]
        assert two.split()[0] == "org/two"
    for arguments in (["models", "--json"], ["models", "list", "--json"]):
        rows = json.loads(lemni(*arguments, cwd=tmp_path, env=env).stdout)
        assert [(row["id"], row["size_bytes"], row["files"][1]["size"]) for row in rows] == [
            ("org/one", 1554, 1500),
            ("org/two", 1554, 1500),
        ]


def test_list_of_nothing(tmp_path: Path) -> None:
    env = {"LEMNI_CACHE_DIR": str(tmp_path / "none"), "HF_HOME": str(tmp_path / "hf")}
    done = lemni("models", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (0, "")
    assert "No model is cached yet" in done.stderr
    assert json.loads(lemni("models", "--json", cwd=tmp_path, env=env).stdout) == []


def test_remove(env: dict[str, str], tmp_path: Path) -> None:
    done = lemni("models", "rm", "org/one", cwd=tmp_path, env=env)
    assert done.stdout.startswith("removed org/one 1.0 (1.6 kB) from ")
    assert not (tmp_path / "cache" / "models" / "org--one").exists()
    assert error_line(lemni("models", "rm", "org/one", cwd=tmp_path, env=env)).startswith(
        "model 'org/one' is in no cache"
    )
    (removed,) = json.loads(lemni("models", "rm", "org/two", "--json", cwd=tmp_path, env=env).stdout)
    assert removed["id"] == "org/two"


def test_show(minilm: ModelFiles, tmp_path: Path) -> None:
    facts = json.loads(lemni("models", "show", str(minilm.path), "--json", cwd=tmp_path).stdout)
    assert facts["architecture"] == ["BertModel"]
    assert (facts["max_length"], facts["pooling"], facts["normalize"]) == (256, ["mean"], True)
    assert facts["weights"] == {"model.safetensors": 90868376}
    lines = lemni("models", "show", str(minilm.path), cwd=tmp_path).stdout.splitlines()
    shown = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}
    assert shown["pooling"] == "mean"
    assert shown["normalize"] == "yes"
    assert shown["weights"] == "model.safetensors (90.9 MB)"


def test_show_downloads_nothing(tmp_path: Path) -> None:
    env = {"LEMNI_CACHE_DIR": str(tmp_path / "none"), "HF_HOME": str(tmp_path / "hf")}
    line = error_line(lemni("models", "show", DEFAULT_MODEL, cwd=tmp_path, env=env))
    assert f"Only this machine was searched: `lemni pull {DEFAULT_MODEL}` downloads it" in line
    assert "offline" not in line
    assert not (tmp_path / "none").exists()


def test_pull_of_what_is_there(minilm: ModelFiles, tmp_path: Path) -> None:
    if minilm.source not in ("cache", "index"):
        pytest.skip(f"the default model came from: {minilm.source}")
    home = tmp_path / "cache" / "models" / minilm.path.parent.name
    home.mkdir(parents=True)
    shutil.copytree(minilm.path, home / minilm.path.name, copy_function=lambda src, dst: Path(dst).symlink_to(src))
    env = {"LEMNI_CACHE_DIR": str(tmp_path / "cache"), "LEMNI_OFFLINE": "1"}
    done = lemni("pull", "all-MiniLM-L6-v2", cwd=tmp_path, env=env)
    assert done.stdout == f"all-MiniLM-L6-v2 0.1.0 is in {home / '0.1.0'}\n"
    files = json.loads(lemni("pull", DEFAULT_MODEL, "--json", cwd=tmp_path, env=env).stdout)
    assert files == {"id": DEFAULT_MODEL, "path": str(home / "0.1.0"), "revision": "0.1.0", "source": "cache"}


@pytest.mark.parametrize("reference", ["pypi:", "pypi:a b==1", "org/none"])
def test_pull_of_what_is_not_there(reference: str, env: dict[str, str], tmp_path: Path) -> None:
    assert repr(reference) in error_line(lemni("pull", reference, cwd=tmp_path, env=env))


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 90_868_376, 4e9, 5e12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "90.9 MB",
        "4.0 GB",
        "5000.0 GB",
    ]
