"""A genuine Infinity 0.0.78 for clients to talk to, in an environment of its own (environments.py).

Its `debugengine` needs no model and no torch: a text's vector is 13 times its length in characters, without white space
at both ends, not normalised. It does nothing but embed; what its other engines answer is in tests/client/recordings.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.environments import FOLDER, QUIET, site_packages

DIMENSIONS = 13
PATIENCE_S = 60.0
"""Longest wait for the server to listen; it takes two seconds."""
_LISTENING = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")


@contextlib.contextmanager
def infinity(folder: Path, *arguments: str) -> Iterator[str]:
    """The base URL of a server with the debugengine and further `arguments` of `infinity_emb v2`, such as "--api-key".

    `folder` takes what it writes. Fails the test with the end of its log if it does not listen, and skips where the
    server has no release.
    """
    if sys.version_info >= (3, 13):
        pytest.skip("Infinity 0.0.78 wants numpy before 2, which has no release for this Python")
    site_packages("infinity")
    command = [str(FOLDER / "infinity" / "bin" / "python"), "-m", "infinity_emb.cli", "v2", "--engine", "debugengine"]
    command += ["--host", "127.0.0.1", "--port", "0", *arguments]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("INFINITY_", "PYTHONPATH"))}
    environ |= QUIET | {"HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "INFINITY_HOME": str(folder)}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield _listening(process, log)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listening(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + PATIENCE_S
    while not (found := _LISTENING.search(log.read_text(errors="replace"))):
        if process.poll() is not None or time.monotonic() > until:
            state = "is not listening yet" if process.returncode is None else f"ended with {process.returncode}"
            pytest.fail(f"the Infinity server {state}:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)
    return found[1]
