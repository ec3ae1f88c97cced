"""Runs an application on a real port, in a thread or as the whole server process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from lemni.config import ServerSettings
from lemni.engine import Engine
from lemni.server.models import Loaded
from lemni.server.run import bind

PATIENCE_S = 60.0
"""Longest wait for what must happen; only a failing test waits that long."""


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def server_settings(**changes: Any) -> ServerSettings:
    return ServerSettings.model_validate({"port": 0, **changes})


def loaded(engine: Engine) -> Loaded:
    """A started engine with its models, toy or real, as an application takes them."""
    models: Any = tuple(stages.served.model for stages in engine._models.values())
    return Loaded(engine, models)


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The base URL of the application, served by uvicorn in a thread."""
    listener = bind(server_settings())
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


_PROGRAM = """
import json, logging, sys
from lemni.config import Settings
from lemni.errors import SetupError
from lemni.server import serve
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
try:
    serve(Settings.model_validate(json.loads(sys.argv[1])))
except SetupError as error:
    sys.exit(f"{type(error).__name__}: {error.message}")
"""


class ServerProcess:
    """`lemni.server.serve` in a process of its own; `stdout` and `stderr` are whole once it has ended."""

    def __init__(self, settings: str, folder: Path) -> None:
        self._err = folder / "stderr"
        with self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, settings],
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        assert self._process.stdout is not None
        self._out = self._process.stdout

    def announcement(self) -> str:
        """The first line on stdout."""
        return self._out.readline()

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[int, str]:
        """Exit code and stderr."""
        code = self._process.wait(PATIENCE_S)
        return code, self._err.read_text()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._out.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
