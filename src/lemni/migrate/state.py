"""The journal of a migration: how far it is, and what has the names. Written whole, before and after each step that
cannot be taken twice, so that the same command finishes what was interrupted."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from lemni.bulk.manifest import write_whole
from lemni.errors import ConfigError

FORMAT = 1
Phase = Literal["begun", "written", "failed", "verified", "switching", "switched", "undoing", "undone", "dropped"]


@dataclass(slots=True)
class State:
    """A migration's journal.

    Attributes:
        phase: the last step; "switching" and "undoing" are entered before the store is asked.
        old: the collection that has what was there before, under its present name.
        new: the same of what was written.
        alias: the name that was switched.
        verified: whether the last verification passed; None if there was none.
        results: the last of each step for the report: "rows" of its first table by their names, "seconds", "checks",
            "samples".
        history: times and steps.
    """

    path: Path
    source: str
    target: str
    model: str
    phase: Phase = "begun"
    old: str = ""
    new: str = ""
    alias: str | None = None
    verified: bool | None = None
    results: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> State | None:
        """None if there is none. Raises ConfigError where it is another program's."""
        if not path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            if found.pop("format") != FORMAT:
                raise ValueError("it is of another version")
            return cls(path, **found)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}: is no journal of a migration: {error}") from None

    def note(self, rows: dict[str, str], seconds: dict[str, float] | None = None) -> None:
        """For the report; in place of what had the same names."""
        self.results["rows"] = {**self.results.get("rows", {}), **rows}
        self.results["seconds"] = {**self.results.get("seconds", {}), **(seconds or {})}

    def enter(self, phase: Phase) -> None:
        """Write down a step, with everything that was set."""
        self.phase = phase
        self.history.append({"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "step": phase})
        content = {"format": FORMAT, **asdict(self)}
        del content["path"]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n")
