"""Runs the real `lemni` command in a process of its own, away from the user's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "lemni"]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The process's variables without Lemni's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEMNI_", "_LEMNI"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **(more or {})}


def lemni(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    done: Any = subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment(env), input=stdin or b"", capture_output=True, timeout=120
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def error_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line on stderr of a command that was refused."""
    assert done.returncode == code, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("lemni: error: "), line
    return line.removeprefix("lemni: error: ")
