"""A program that stays open in an environment of its own: a line of JSON is an order, a line comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


class Process:
    """Waits until the program says "ready".

    `stopped`: it stands still but for its orders, so that no thread of it takes a core from another engine.
    `variables` are added to its surroundings. RuntimeError, with the end of what it said, if it fails.
    """

    def __init__(
        self,
        python: Path,
        program: Path,
        *arguments: str,
        variables: Mapping[str, str] | None = None,
        stopped: bool = False,
    ) -> None:
        self._stopped = stopped
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [str(python), str(program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=kept | dict(variables or {}),
            start_new_session=True,
        )
        self._line()
        self._stand(still=True)

    def ask(self, order: Mapping[str, Any]) -> dict[str, float]:
        assert self._process.stdin is not None
        self._stand(still=False)
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._line())
        self._stand(still=True)
        return found

    def close(self) -> None:
        if self._process.poll() is None:
            # The whole session: an engine may have processes of its own.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            said = [line for line in self._log.read().splitlines() if line.strip()]
            self.close()
            raise RuntimeError(last_error(said))
        return line

    def _stand(self, *, still: bool) -> None:
        if self._stopped:
            os.killpg(self._process.pid, signal.SIGSTOP if still else signal.SIGCONT)


def last_error(lines: Sequence[str]) -> str:
    """What a program said last, as one short line."""
    return lines[-1].strip()[:300] if lines else "it has stopped without a word"
