"""The engines of the offline benchmark: in which environment each runs, from which files, and how precisely."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.peers import models
from benchmarks.peers.environments import OFFLINE, environment, missing
from benchmarks.peers.process import Process

PROGRAM = Path(__file__).with_name("worker.py")
Task = Literal["embed", "rerank"]
Precision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class Engine:
    """`function`: of the worker program. `options`: what it is given besides the model."""

    name: str
    function: str
    peer: str | None
    precision: Precision
    files: models.Files = "folder"
    options: Mapping[str, Any] = field(default_factory=dict)
    task: Task = "embed"


def _infinity(name: str, engine: str, precision: Precision, files: models.Files = "folder", batch: int = 32) -> Engine:
    """32 texts are its own default batch."""
    peer = "infinity-optimum" if engine == "optimum" else "infinity"
    return Engine(f"infinity {name}", "infinity", peer, precision, files, {"engine": engine, "batch": batch})


def _sentence_transformers(name: str, files: models.Files, precision: Precision, **how: Any) -> Engine:
    peer = "sentence-transformers"
    return Engine(f"sentence-transformers {name}", "sentence_transformers", peer, precision, files, how)


OWN = (
    Engine("lemni fp32", "lemni", None, "fp32", options={"dtype": "float32"}),
    Engine("lemni bf16", "lemni", None, "bf16", options={"dtype": "bfloat16"}),
    Engine("lemni int8", "lemni", None, "int8", options={"dtype": "int8"}),
)
REFERENCE = _sentence_transformers("torch", "folder", "fp32", backend="torch")
_IR = {"backend": "openvino", "file_name": "openvino/openvino_model.xml"}
OPENVINO = _sentence_transformers("openvino", "openvino", "fp32", hint="f32", **_IR)
# What OpenVINO does by itself on a CPU that multiplies bfloat16 faster.
OPENVINO_BF16 = _sentence_transformers("openvino bf16", "openvino", "bf16", hint="bf16", **_IR)
INFINITY = _infinity("torch", "torch", "fp32")
EMBED = (
    *OWN,
    INFINITY,
    _infinity("torch, batch 8", "torch", "fp32", batch=8),
    _infinity("optimum", "optimum", "fp32", "onnx_only"),
    _infinity("optimum int8", "optimum", "int8", "onnx_int8_only"),
    REFERENCE,
    _sentence_transformers("onnx", "onnx", "fp32", backend="onnx", file_name=models.ONNX),
    _sentence_transformers("onnx int8", "onnx_int8", "int8", backend="onnx", file_name=models.ONNX_INT8),
    OPENVINO,
    OPENVINO_BF16,
    _sentence_transformers(
        "openvino int8", "openvino_int8", "int8", backend="openvino", file_name=models.OPENVINO_INT8
    ),
    Engine("fastembed", "fastembed", "fastembed", "fp32", "onnx", {"file": models.ONNX}),
    Engine("fastembed int8", "fastembed", "fastembed", "int8", "onnx_int8", {"file": models.ONNX_INT8}),
    Engine("llama.cpp f32", "llama_cpp", "llama-cpp", "fp32", "gguf"),
    Engine("llama.cpp q8_0", "llama_cpp", "llama-cpp", "int8", "gguf_q8"),
    Engine("vllm cpu", "vllm", "vllm", "fp32"),
)
SHAPES = (*OWN, REFERENCE, OPENVINO, OPENVINO_BF16, INFINITY)
RERANK = (
    *(Engine(one.name, "lemni", None, one.precision, options=one.options, task="rerank") for one in OWN),
    Engine("infinity torch", "infinity", "infinity", "fp32", options=INFINITY.options, task="rerank"),
    Engine("sentence-transformers torch", "cross_encoder", "sentence-transformers", "fp32", task="rerank"),
)


def start(engine: Engine, model: Path, threads: int, *, stopped: bool = True) -> Process:
    """RuntimeError if it is not installed, cannot make its files from the model, or fails to load them."""
    if engine.peer and (reason := missing(engine.peer)):
        raise RuntimeError(reason)
    folder = environment(engine.peer) if engine.peer else Path(sys.prefix)
    assert folder is not None
    options = {
        **engine.options,
        "task": engine.task,
        "model": str(models.prepared(model, engine.files)),
        "threads": threads,
    }
    # Those that set no number of threads themselves.
    variables = OFFLINE | {"OMP_NUM_THREADS": str(threads)}
    python = folder / "bin" / "python"
    return Process(python, PROGRAM, engine.function, json.dumps(options), variables=variables, stopped=stopped)


@contextmanager
def started(
    engines: Sequence[Engine], model: Path, threads: int
) -> Iterator[tuple[dict[str, Process], dict[str, str]]]:
    """Those that run, by name, and of the others the reason."""
    running: dict[str, Process] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        for engine in engines:
            try:
                running[engine.name] = start(engine, model, threads)
            except RuntimeError as error:
                failed[engine.name] = str(error)
            else:
                stack.callback(running[engine.name].close)
        yield running, failed


def named(engines: Sequence[Engine], names: Sequence[str] | None) -> list[Engine]:
    """Those whose name begins with one of `names`: "infinity" is all of its engines."""
    return [engine for engine in engines if names is None or engine.name.startswith(tuple(names))]


def own(engine: Engine) -> Engine:
    """The same in lemni's environment, which has the packages of the tests."""
    return replace(engine, peer=None)


def default_model() -> Path:
    """The folder of the default model, from where Lemni keeps it."""
    from lemni import hub
    from lemni.config import DEFAULT_MODEL, HubSettings

    return hub.resolve(DEFAULT_MODEL, HubSettings.model_validate({}), progress=False).path


def default_threads() -> int:
    """All cores that this process may use."""
    return len(os.sched_getaffinity(0))
