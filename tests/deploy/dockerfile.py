"""What a Dockerfile says of its last stage, as a process would be started from it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path


class Stage:
    """The last stage of a Dockerfile.

    Attributes:
        env: variables, with those of earlier ENV and ARG put in.
        entrypoint, cmd, healthcheck: in exec form.
        user, base: as written.
    """

    def __init__(self, path: Path, base_env: dict[str, str]) -> None:
        text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.MULTILINE))
        lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
        last = max(number for number, line in enumerate(lines) if line[0] == "FROM")
        self.base = lines[last][1]
        self.env = dict(base_env)
        self.healthcheck: list[str] = []
        args: dict[str, str] = {}
        for word, rest in lines[last + 1 :]:
            if word == "ARG":
                name, _, value = rest.partition("=")
                args[name] = "".join(shlex.split(value))
            elif word == "ENV":
                for pair in shlex.split(rest):
                    name, _, value = pair.partition("=")
                    known = {**args, **self.env}
                    self.env[name] = re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], ""), value)  # noqa: B023
            elif word == "ENTRYPOINT":
                self.entrypoint: list[str] = json.loads(rest)
            elif word == "CMD":
                self.cmd: list[str] = json.loads(rest)
            elif word == "HEALTHCHECK":
                self.healthcheck = json.loads(rest[rest.index("[") :])
            elif word == "USER":
                self.user = rest
            elif word == "STOPSIGNAL":
                self.stop_signal = rest
