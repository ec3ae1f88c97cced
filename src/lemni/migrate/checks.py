"""What is found out about a new collection, as a report says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        passed: None where it is a number to know, which no migration fails for.
        found: the result in a line.
        wanted: what it had to be; "" without a limit.
    """

    name: str
    passed: bool | None
    found: str
    wanted: str = ""


@dataclass(slots=True)
class Verification:
    """All checks of one run.

    Attributes:
        numbers: the same as numbers, by short names, for programs.
        samples: values of single entries or queries by what they are, for plots.
        seconds: all of it.
    """

    checks: list[Check] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return all(check.passed is not False for check in self.checks)

    def add(self, name: str, passed: bool | None, found: str, wanted: str = "", **numbers: float) -> None:
        self.checks.append(Check(name, passed, found, wanted))
        self.numbers.update(numbers)


def named(ids: list[Any], most: int = 10) -> str:
    """The first ids, as they are written in Python, so that 7 and "7" can be told apart."""
    said = ", ".join(f"{name!r:.80}" for name in ids[:most])
    return said + (f" and {len(ids) - most} more" if len(ids) > most else "")
