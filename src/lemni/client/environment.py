"""Settings from environment variables and `.env`, where the caller gave none. Read when a client is made."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lemni.errors import ConfigError


class Environment:
    """Variables of the process, and below them those of the nearest `.env` from the working directory upwards."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables: Mapping[str, str | None] = _read() if variables is None else variables

    def text(self, *names: str) -> str | None:
        """The first of the variables that is set and not blank; the more specific name comes first."""
        for name in names:
            if value := (self._variables.get(name) or "").strip():
                return value
        return None

    def number(self, *names: str, zero: bool = False) -> float | None:
        """The same as a number over 0, or 0 too. Raises ConfigError that names the variable."""
        for name in names:
            if (text := self.text(name)) is not None:
                try:
                    value = float(text)
                except ValueError:
                    value = float("nan")
                if not (0 < value < float("inf") or (zero and value == 0)):
                    least = "0 or more" if zero else "over 0"
                    raise ConfigError(f"the variable {name} is {text!r}; it must be a number {least}", param=name)
                return value
        return None

    def integer(self, *names: str) -> int | None:
        """The same as a whole number over 0. Raises ConfigError that names the variable."""
        for name in names:
            if (value := self.number(name)) is not None:
                if value != int(value):
                    raise ConfigError(f"the variable {name} is {value}; it must be a whole number", param=name)
                return int(value)
        return None


def _read() -> dict[str, str | None]:
    from dotenv import dotenv_values, find_dotenv

    try:
        path = find_dotenv(usecwd=True)
    except OSError:  # a working directory that is gone has no file
        path = ""
    try:
        return {**(dotenv_values(path) if path else {}), **os.environ}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
