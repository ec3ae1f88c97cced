"""What each peer needs of a model: the folder itself, or files made from it once, beside the environments."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from filelock import FileLock

from benchmarks.peers.environments import FOLDER, environment, missing
from benchmarks.peers.process import last_error
from benchmarks.texts import mixed

Files = Literal[
    "folder", "onnx", "onnx_int8", "onnx_only", "onnx_int8_only", "openvino", "openvino_int8", "gguf", "gguf_q8"
]
ONNX = "onnx/model.onnx"
ONNX_INT8 = "onnx/model_qint8_avx512_vnni.onnx"
OPENVINO_INT8 = "openvino/openvino_model_qint8_quantized.xml"
PROGRAM = Path(__file__).with_name("export.py")
CALIBRATION = 300


def prepared(model: Path, files: Files) -> Path:
    """The folder or file that an engine loads; made on first use. RuntimeError, with the reason, if it cannot be."""
    if files == "folder":
        return model
    folder = FOLDER / "models" / _fingerprint(model)
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f".{files}"
    with FileLock(folder / ".lock"):
        if not done.exists():
            _copy(model, folder / "model")
            _MAKE[files](folder)
            done.touch()
    return folder / _WHERE.get(files, "model")


def _fingerprint(model: Path) -> str:
    weights = model / "model.safetensors"
    about = f"{weights.stat().st_size} {weights.stat().st_mtime_ns} {(model / 'config.json').read_text()}"
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def _copy(model: Path, to: Path) -> None:
    # Some engines write into the folder that they load.
    shutil.copytree(model, to, dirs_exist_ok=True)


def _export(what: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        texts = folder / "calibration"
        if what == "openvino_int8" and not texts.exists():
            texts.mkdir()
            (texts / "texts.txt").write_text("\n".join(mixed(CALIBRATION, seed=9)), "utf-8")
        _run("sentence-transformers", str(PROGRAM), what, str(folder / "model"), str(texts))

    return make


def _alone(source: str, target: str) -> Callable[[Path], None]:
    """A folder with one ONNX file, at its top: infinity takes the one it likes best, optimum wants its name."""

    def make(folder: Path) -> None:
        kind: Files = "onnx" if source == ONNX else "onnx_int8"
        if not (folder / "model" / source).exists():
            _MAKE[kind](folder)
        to = folder / _WHERE["onnx_only" if source == ONNX else "onnx_int8_only"]
        shutil.copytree(folder / "model", to, dirs_exist_ok=True, ignore=shutil.ignore_patterns("onnx", "openvino"))
        shutil.copyfile(folder / "model" / source, to / target)

    return make


def _gguf(kind: str, name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        if reason := missing("llama-cpp"):
            raise RuntimeError(reason)
        source = (environment("llama-cpp") or Path()) / "src" / "vendor" / "llama.cpp"
        options = ["--outtype", kind, "--outfile", str(folder / name)]
        # The converter wants torch and transformers, which llama.cpp itself does not.
        program = str(source / "convert_hf_to_gguf.py")
        _run(None, program, str(folder / "model"), *options, path=source / "gguf-py")

    return make


_MAKE: dict[str, Callable[[Path], None]] = {
    "onnx": _export("onnx"),
    "onnx_int8": _export("onnx_int8"),
    "onnx_only": _alone(ONNX, "model.onnx"),
    "onnx_int8_only": _alone(ONNX_INT8, "model_quantized.onnx"),
    "openvino": _export("openvino"),
    "openvino_int8": _export("openvino_int8"),
    "gguf": _gguf("f32", "model.f32.gguf"),
    "gguf_q8": _gguf("q8_0", "model.q8_0.gguf"),
}
_WHERE: dict[str, str] = {
    "onnx_only": "onnx_only",
    "onnx_int8_only": "onnx_int8_only",
    "gguf": "model.f32.gguf",
    "gguf_q8": "model.q8_0.gguf",
}


def _run(peer: str | None, *arguments: str, path: Path | None = None) -> None:
    """Run a program in a peer's environment, or in lemni's own."""
    if peer and (reason := missing(peer)):
        raise RuntimeError(reason)
    folder = environment(peer) if peer else Path(sys.prefix)
    assert folder is not None
    environ = {**os.environ, "PYTHONPATH": str(path or ""), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [str(folder / "bin" / "python"), *arguments], capture_output=True, text=True, env=environ, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise RuntimeError(f"{Path(arguments[0]).name}: {last_error(lines)}")
