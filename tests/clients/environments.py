"""Clients whose dependencies clash with the tests' own live in environments of their own, made by `make test`.

An environment is a dependency group of pyproject.toml that the Makefile lists in CLIENTS. Client tests call `run`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(sys.prefix) / "clients"
SOURCE = str(Path(__file__).parents[2] / "src")
"""For `PYTHONPATH`, where a program imports lemni: it is not installed in any of the environments."""

# No client phones home: prices of models, telemetry.
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HAYSTACK_TELEMETRY_ENABLED": "False", "DO_NOT_TRACK": "1"}


def site_packages(name: str) -> Path:
    """Where the environment of client `name` keeps its packages. Fails the test if `make test` has not made it."""
    found = list((FOLDER / name).glob("lib/python*/site-packages"))
    if not found:
        pytest.fail(f"{FOLDER / name} is missing: `make test` creates it")
    return found[0]


def run(name: str, program: Path, arguments: dict[str, Any], **variables: str) -> Any:
    """Run a program in the environment of client `name`: JSON in by argument, JSON out by its last line."""
    return json.loads(printed(name, ["python", str(program), json.dumps(arguments)], **variables).splitlines()[-1])


def printed(name: str, command: Seq[str], **variables: str) -> str:
    """What a command prints whose program is one of the environment's, with these environment variables."""
    site_packages(name)
    folder = FOLDER / name / "bin"
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | QUIET
    environ |= {"PATH": f"{folder}{os.pathsep}{environ['PATH']}", **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
