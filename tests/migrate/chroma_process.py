"""A Chroma server that is killed and started again at the same port, on the same folder."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx


class ChromaProcess:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        program = shutil.which("chroma", path=str(Path(sys.executable).parent))
        assert program is not None
        command = [program, "run", "--path", str(self._folder / "data"), "--host", "127.0.0.1"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)], stdout=log, stderr=log, cwd=self._folder
            )
        end = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < end, (self._folder / "log").read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/api/v2/heartbeat", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)

    def kill(self) -> None:
        """kill -9. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None
