"""What becomes of an error: one line and an exit code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lemni.cli import app as application
from lemni.errors import InternalError, InvalidRequest, LemniError, ModelNotFound

from .command import COMMAND, environment


@click.command()
def failing() -> None:
    raise failing.error  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InvalidRequest("too short"), 2, "lemni: error: too short"),
        (ModelNotFound("Tried:\n  - a: no\n  - b: no\nDo it."), 2, "lemni: error: Tried: a: no; b: no. Do it."),
        (InternalError("the worker died"), 1, "lemni: error: the worker died"),
        (PermissionError(13, "Permission denied", "/x/v.npy"), 2, "lemni: error: /x/v.npy: Permission denied"),
        (OSError(28, "No space left on device"), 2, "lemni: error: No space left on device"),
        (KeyError("gone"), 1, "lemni: error: unexpected KeyError: 'gone' (--debug shows where)"),
        (click.UsageError("give a text"), 2, "lemni: error: give a text. Try 'app failing --help'."),
        (KeyboardInterrupt(), 130, ""),
    ],
)  # fmt: skip
def test_kinds(error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failing, "error", error, raising=False)
    monkeypatch.setattr(application.App, "get_command", lambda *_: failing)
    monkeypatch.setitem(application.COMMANDS, "failing", "")
    result = CliRunner().invoke(application.app, ["failing"])
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (code, "", line)
    debug = CliRunner().invoke(application.app, ["failing"], env={"LEMNI_DEBUG": "1"})
    assert debug.exit_code == code
    assert debug.stderr.startswith("Traceback") == (code != 130)


def test_every_error_on_purpose_is_mendable_unless_it_is_ours() -> None:
    def kinds(base: type[LemniError]) -> list[type[LemniError]]:
        return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]

    for kind in kinds(LemniError):
        error = kind.__new__(kind)  # some want more than a message, each in its own way
        LemniError.__init__(error, "x")
        assert application._report(error, application.Session()) == (1 if issubclass(kind, InternalError) else 2)


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    for arguments in (["--help"], ["serve", "--help"], ["completion", "bash"], ["models", "--json"]):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, env=environment(), stdout=write, stderr=subprocess.PIPE, timeout=60
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (1, b""), arguments


def test_no_output_at_all(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "--version"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.stderr == b""
