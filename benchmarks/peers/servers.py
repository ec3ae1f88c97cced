"""Embedding servers, lemni's and its peers', started one like the other: same model, this machine's CPU, a free port.

A server runs in a session of its own, so that its CPU time and memory are those of all its processes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import httpx

from benchmarks.peers.environments import OFFLINE, environment, missing
from benchmarks.peers.models import prepared

PATIENCE_S = 180.0
"""Longest wait for the first vector."""
MODEL = "model"
"""The name that every server gives its model."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Engine:
    """A server and how it is started."""

    name: str
    command: Callable[[Path, int], Sequence[str]]
    """From the model (a folder, or the file that `model` made of one) and a port."""
    path: str
    """Of its endpoint in OpenAI's dialect."""
    peer: str | None = None
    """The environment that it runs in; None for lemni's own."""
    model: Callable[[Path], Path] = field(default=lambda folder: folder)
    """Makes of the model's folder what this server can load."""
    inside: bool = False
    """Whether it runs in the folder of the model, and so finds it as "."."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


class Server:
    """A server that has been started; `first_vector` waits until it is of use.

    Attributes:
        url: of its endpoint.
        start_s: seconds from the start of the process to the first vector.
    """

    def __init__(self, engine: Engine, model: Path, log: Path) -> None:
        port = free_port()
        self.engine = engine
        self.url = f"http://127.0.0.1:{port}{engine.path}"
        self.start_s = 0.0
        self._log = log
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("LEMNI_", "INFINITY_"))}
        if engine.inside:
            # There infinity keeps what it has optimised, by the name of the model, which is the same for all.
            environ["HF_HUB_CACHE"] = str(model / "optimized")
        command = engine.command(model, port)
        self._started = time.perf_counter()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command,
                env=environ | OFFLINE,
                cwd=model if engine.inside else log.parent,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def first_vector(self) -> None:
        """Wait for it; RuntimeError if the server stops or takes too long."""
        with httpx.Client(timeout=PATIENCE_S) as client:
            while True:
                try:
                    answer = client.post(self.url, json={"input": ["hello"], "model": MODEL})
                    if answer.status_code == 200:
                        self.start_s = time.perf_counter() - self._started
                        return
                except httpx.TransportError:
                    pass
                waited = time.perf_counter() - self._started
                if self._process.poll() is not None or waited > PATIENCE_S:
                    end = self._log.read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"{self.engine.name} has not answered after {waited:.0f} s:\n{end}")
                time.sleep(0.01)

    def cpu_s(self) -> float:
        """CPU seconds so far of all its processes, those that have ended too."""
        return sum(sum(map(int, stat[11:15])) for stat in self._stats()) / _TICKS

    def memory_mb(self) -> float:
        """MB (10^6 bytes) resident now; what processes share counts once."""
        return sum(_memory_kb(stat[-1], "smaps_rollup", "Pss:") for stat in self._stats()) * 1024 / 1e6

    def peak_mb(self) -> float:
        """The most that has been resident, added up over the processes that run now."""
        return sum(_memory_kb(stat[-1], "status", "VmHWM:") for stat in self._stats()) * 1024 / 1e6

    def _stats(self) -> Iterator[list[str]]:
        """For each of its processes the fields of /proc/PID/stat from the state on, and the PID at the end."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                stat = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat[3]) == self._process.pid:
                yield [*stat, path.parent.name]

    def close(self) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _memory_kb(pid: str, file: str, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)


@contextmanager
def running(engine: Engine, model: Path) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(engine, model, Path(folder) / "log")
        try:
            server.first_vector()
            yield server
        finally:
            server.close()


def lemni(name: str, *options: str) -> Engine:
    program = str(Path(sys.executable).with_name("lemni"))

    def command(model: Path, port: int) -> list[str]:
        own = ["--served-name", MODEL, "--device", "cpu", "--port", str(port), "--log-level", "warning"]
        return [program, "serve", str(model), *own, *options]

    return Engine(name, command, "/v1/embeddings")


def peer_python(peer: str) -> str:
    folder = environment(peer)
    assert folder is not None, f"{peer} is not installed"
    return str(folder / "bin" / "python")


def infinity(name: str, engine: str, *options: str, model: Callable[[Path], Path] = lambda folder: folder) -> Engine:
    # Its optimum engine finds no ONNX file in a folder that is named otherwise.
    inside = engine == "optimum"
    peer = "infinity-optimum" if inside else "infinity"

    def command(model: Path, port: int) -> list[str]:
        own = [
            "--model-id",
            "." if inside else str(model),
            "--served-model-name",
            MODEL,
            "--engine",
            engine,
            "--device",
            "cpu",
        ]
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return [peer_python(peer), "-m", "infinity_emb.cli", "v2", *own, *where, *options]

    return Engine(name, command, "/embeddings", peer, model, inside)


def llama_cpp(name: str, files: Literal["gguf", "gguf_q8"]) -> Engine:
    def command(model: Path, port: int) -> list[str]:
        own = ["--model", str(model), "--model_alias", MODEL, "--embedding", "true", "--verbose", "false"]
        return [peer_python("llama-cpp"), "-m", "llama_cpp.server", *own, "--port", str(port)]

    return Engine(name, command, "/v1/embeddings", "llama-cpp", partial(prepared, files=files))


def vllm(name: str) -> Engine:
    def command(model: Path, port: int) -> list[str]:
        own = ["--served-model-name", MODEL, "--dtype", "float32", "--runner", "pooling"]
        where = ["--host", "127.0.0.1", "--port", str(port)]
        return [peer_python("vllm"), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *own, *where]

    return Engine(name, command, "/v1/embeddings", "vllm")


LEMNI, INFINITY = "lemni fp32", "infinity torch"
SERVERS = (
    lemni(LEMNI, "--dtype", "float32"),
    lemni("lemni int8", "--dtype", "int8"),
    # Its default, --compile, ends in an error with every torch since 2.5.
    infinity(INFINITY, "torch", "--no-compile"),
    infinity("infinity optimum", "optimum", model=partial(prepared, files="onnx_only")),
    infinity("infinity optimum int8", "optimum", model=partial(prepared, files="onnx_int8_only")),
    llama_cpp("llama-cpp f32", "gguf"),
    llama_cpp("llama-cpp q8_0", "gguf_q8"),
    vllm("vllm"),
)


def chosen(
    engines: Sequence[Engine], names: Sequence[str] | None, model: Path
) -> tuple[list[tuple[Engine, Path]], list[str]]:
    """Those of `engines` that are named (None: all) and can run, each with its form of `model`; a line for the others.

    ValueError for an unknown name.
    """
    known = [engine.name for engine in engines]
    if unknown := sorted(set(names or ()) - set(known)):
        raise ValueError(f"unknown engine {unknown[0]!r}; known: {', '.join(known)}")
    run, absent = [], []
    for engine in engines:
        if names is not None and engine.name not in names:
            continue
        try:
            if engine.peer and (reason := missing(engine.peer)):
                raise RuntimeError(reason)
            run.append((engine, engine.model(model)))
        except RuntimeError as error:
            absent.append(f"{engine.name} was not run: {error}")
    return run, absent
