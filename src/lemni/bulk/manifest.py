"""What a job has done, beside its output: one small file for each shard, written whole or not at all.

    vectors.npy.lemni/          while the job runs
        job.json                what the job is: `Plan.identity`
        parts/000012.part       a shard's rows as the output's format keeps them until the end
        shards/000012.json      the shard is done: its counts, its rejected rows, a hash of its input
    vectors.npy.manifest.json   when it is complete: all of it summed up
    vectors.npy.rejects.jsonl   rows that were not embedded, with the reason

A shard is done when its record is there; a part without one is written again. So a job may be killed at any moment, and
several processes may do different shards of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from lemni.errors import InvalidRequest
from lemni.stores.folders import flush

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not embedded: its number from 0 in the input, its id, its text's beginning, and why."""

    row: int
    id: str | int
    reason: str
    text: str | None = None

    def error(self) -> InvalidRequest:
        """What ends a job at it."""
        return InvalidRequest(f"row {self.row} (id {self.id!r}): {self.reason}")


@dataclass(frozen=True, slots=True)
class Record:
    """A shard that is done.

    Attributes:
        first: number of its first row in the input.
        rows: of the input; `written` of them have vectors.
        tokens: that were computed.
        truncated: rows that lost tokens.
        digest: of its rows' ids and items: what the input must still be.
    """

    index: int
    first: int
    rows: int
    written: int
    tokens: int
    truncated: int
    digest: str
    rejects: list[Reject] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Record:
        """Raises InvalidRequest where the file is none."""
        try:
            found = json.loads(path.read_bytes())
            return cls(**{**found, "rejects": [Reject(**one) for one in found["rejects"]]})
        except (ValueError, TypeError, KeyError) as error:
            raise InvalidRequest(
                f"{path}: is no record of a shard ({error}); remove it to do the shard again"
            ) from None


class Manifest:
    """A job's records.

    Args:
        base: the output's own path, or for a store a path that stands for it; everything is named after it.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.work = base.with_name(f"{base.name}.lemni")
        self.final = base.with_name(f"{base.name}.manifest.json")
        self.rejects = base.with_name(f"{base.name}.rejects.jsonl")
        self._lock: FileLock | None = None

    def begin(self, identity: dict[str, Any]) -> None:
        """Take the work folder, or go on with the job that was interrupted in it.

        Raises:
            InvalidRequest: it belongs to another job (says in what they differ), or to a process that runs.
        """
        self._take()
        job = self.work / "job.json"
        wanted = _plain({"format": FORMAT, **identity})
        if not job.exists():
            # Records without their job are what was left where forgetting it was interrupted.
            for folder in ("parts", "shards"):
                shutil.rmtree(self.work / folder, ignore_errors=True)
                (self.work / folder).mkdir()
            write_whole(job, _json(wanted))
            return
        for folder in ("parts", "shards"):
            (self.work / folder).mkdir(exist_ok=True)
        try:
            found = _object(job, "--overwrite begins anew")
        except InvalidRequest:
            self.release()
            raise
        if found != wanted:
            self.release()
            raise InvalidRequest(
                f"{self.work}: holds an interrupted job that is another one: {differences(found, wanted)}. "
                "Give the same command to resume that, or --overwrite to begin anew"
            )

    def completed(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """The summary of the same job, if it is complete; None if there is no complete one.

        Raises:
            InvalidRequest: the complete one is another job.
        """
        if not self.final.exists():
            return None
        found = _object(self.final, "--overwrite replaces it and its output")
        wanted = _plain({"format": FORMAT, **identity})
        if found.get("job") != wanted:
            raise InvalidRequest(
                f"{self.base}: is there already, of another job: {differences(found.get('job') or {}, wanted)}. "
                "--overwrite replaces it (entries in a store by their ids), --manifest names another job"
            )
        return found

    def discard(self) -> None:
        """Forget all that was done.

        Raises:
            InvalidRequest: a process is at it.
        """
        if self.work.exists():
            self._take()
            self._forget()
        for path in (self.final, self.rejects):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what is left of a complete job whose process was killed while it did that."""
        if self.work.exists():
            with contextlib.suppress(InvalidRequest):  # somebody is at it again
                self._take()
                self._forget()

    def abandon(self) -> None:
        """Leave no trace of a job that has not begun; one that has stays to be resumed."""
        if not self.done():
            self._forget()

    def done(self) -> set[int]:
        """Which shards are."""
        return {int(path.stem) for path in (self.work / "shards").glob("*.json")}

    def part(self, index: int) -> Path:
        return self.work / "parts" / f"{index:06d}.part"

    def same_ranges(self, ranges: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """Those that the job began with, or these if it begins: one output has one scale, whatever the cache says."""
        path = self.work / "ranges.npy"
        if ranges is None:
            return None
        if not path.exists():
            content = io.BytesIO()
            np.save(content, ranges)
            write_whole(path, content.getvalue())
        found: NDArray[np.float32] = np.load(path)
        return found

    def draft(self, index: int) -> Path:
        """Where a part is written before it is one; different for every process."""
        return self.work / "parts" / f"{index:06d}.{platform.node()}.{os.getpid()}.draft"

    def keep(self, record: Record) -> None:
        """The shard is done: its part, if it has one, becomes what the record vouches for. Both are on disk then."""
        draft = self.draft(record.index)
        if draft.exists():
            flush(draft)
            draft.replace(self.part(record.index))
            flush(draft.parent)
        write_whole(self.work / "shards" / f"{record.index:06d}.json", _json(asdict(record)))

    def record(self, index: int) -> Record:
        return Record.read(self.work / "shards" / f"{index:06d}.json")

    def records(self) -> Iterator[Record]:
        """In order."""
        for index in sorted(self.done()):
            yield self.record(index)

    def complete(self, identity: dict[str, Any], summary: dict[str, Any]) -> None:
        """The output is in its place: leave only the summary and the rejected rows."""
        draft = self.rejects.with_name(f".{self.rejects.name}.part")
        count = 0
        with draft.open("wb") as file:
            for record in self.records():
                for one in record.rejects:
                    file.write(json.dumps(asdict(one), ensure_ascii=False).encode() + b"\n")
                    count += 1
        if count:
            draft.replace(self.rejects)
        else:
            draft.unlink()
            self.rejects.unlink(missing_ok=True)
        write_whole(self.final, _json({"job": _plain({"format": FORMAT, **identity}), **summary}))
        self._forget()

    def release(self) -> None:
        """Let another process have it. Idempotent."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take(self) -> None:
        """Raises InvalidRequest where another process has it."""
        self.work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.work / "lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise InvalidRequest(f"{self.work}: another process is at this job") from None
        self._lock = lock

    def _forget(self) -> None:
        """Remove the work folder, which is ours: first what makes its records a job."""
        (self.work / "job.json").unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)
        self.release()


def differences(found: dict[str, Any], wanted: dict[str, Any], path: str = "") -> str:
    """Where two jobs differ: "model.name was 'a' and is 'b'"."""
    said = []
    for name in sorted({*found, *wanted}):
        old, new = found.get(name), wanted.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            said.append(differences(old, new, f"{path}{name}."))
        else:
            said.append(f"{path}{name} was {_short(old)} and is {_short(new)}")
    return "; ".join(said)


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 120 else f"{shown[:119]}…"


def write_whole(path: Path, content: bytes) -> None:
    """A file that is there with all of `content`, on disk, or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    flush(path.parent)


def _object(path: Path, remedy: str) -> dict[str, Any]:
    """Raises InvalidRequest where the file is not what was written."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path}: is damaged; {remedy}")
    return found


def _plain(value: dict[str, Any]) -> Any:
    """As it comes back from JSON: tuples are lists."""
    return json.loads(json.dumps(value))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"
