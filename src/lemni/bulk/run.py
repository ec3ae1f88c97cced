"""`lemni.bulk.embed`: a whole input into an output, in this process or on a Ray cluster, exactly once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.bulk.manifest import Manifest, Record
from lemni.bulk.outputs.base import KeepsRows, Output
from lemni.bulk.plan import Plan
from lemni.bulk.progress import Price, Progress
from lemni.bulk.sources.base import MayChange, Shard, Source
from lemni.bulk.stages import run_stages
from lemni.bulk.windows import Computer
from lemni.bulk.worker import Work, Worker, digest_of
from lemni.errors import InvalidRequest, RequestCancelled
from lemni.tasks.model import LoadedModel

logger = logging.getLogger("lemni.bulk")

_LISTED = 4
"""Files of an output that a summary names one by one."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A job that is complete.

    Attributes:
        rows: of the input.
        written: that have vectors in the output.
        rejected: that have none; the reasons are in `rejects`.
        truncated: rows that lost tokens.
        tokens: that were computed.
        seconds: of this run; 0 if the job was complete before.
        resumed: rows that an earlier run had done.
        outputs: files, or the store's name.
        manifest: says all this and what was computed how.
        rejects: None if there are none.
    """

    rows: int
    written: int
    rejected: int
    truncated: int
    tokens: int
    seconds: float
    resumed: int
    outputs: tuple[str, ...]
    manifest: str
    rejects: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that a run needs, wherever it runs."""

    plan: Plan
    source: Source
    output: Output
    manifest: Manifest


def run_job(
    job: Job,
    loaded: LoadedModel,
    *,
    overwrite: bool = False,
    progress: bool | None = None,
    price: Price | None = None,
) -> Summary:
    """Do what is left of a job, in this process.

    Raises:
        InvalidRequest: the output or an interrupted job there is another one's; a row with `fail_fast`; too many
            rejected rows.
        LemniError: what the source, the model and the output raise.
    """
    with begun(job, overwrite=overwrite) as complete:
        if complete is not None:
            return complete
        with contextlib.closing(Computer(loaded, job.plan.model.engine)) as computer:
            ranges = job.manifest.same_ranges(ranges_for(job.plan, computer))
            done = job.manifest.done()
            resumed = sum(job.manifest.record(index).rows for index in done)
            bar = Progress(job.source.count(), resumed, show=progress, price=price)
            started = time.monotonic()
            ended = threading.Event()

            def passed(rows: int, tokens: int) -> None:
                if ended.is_set():  # Ctrl-C need not wait for a whole shard
                    raise RequestCancelled("the job has ended")
                bar.passed(rows, tokens)

            try:
                worker = Worker(job.plan, computer, job.output, job.manifest, ranges, passed)
                seen = _run(job, worker, done, bar, computer.replicas, ended)
            finally:
                bar.close()
        return finished(job, seen, time.monotonic() - started, resumed)


@contextlib.contextmanager
def begun(job: Job, *, overwrite: bool) -> Iterator[Summary | None]:
    """The job's folder is ours, and its output ready for the first row. Gives the summary if all is done already."""
    manifest, identity = job.manifest, job.plan.identity
    if overwrite:
        manifest.discard()
    complete = manifest.completed(identity)
    if complete is not None and _is_there(job.output, complete) and _is_of_these_rows(job, complete):
        manifest.sweep()
        found = _summary(complete["summary"])
        yield dataclasses.replace(found, seconds=0.0, resumed=found.rows)
        return
    if complete is None and not overwrite and not manifest.work.exists():
        for path in job.output.files():
            if path.exists():
                raise InvalidRequest(f"{path}: is there already; --overwrite replaces it")
    fresh = not manifest.work.exists()
    manifest.begin(identity)
    try:
        job.output.prepare(job.plan.made)
        if fresh and isinstance(job.output, KeepsRows) and job.output.has(1):
            logger.warning(
                "%s: has entries already; they must be vectors of %s too", job.output.name, job.plan.made.model
            )
        yield None
    except BaseException:
        manifest.abandon()
        raise
    finally:
        manifest.release()


def finished(job: Job, seen: set[int], seconds: float, resumed: int) -> Summary:
    """All shards are done: join the parts and sum up.

    Raises:
        InvalidRequest: there are records of shards that the input does not have any more.
    """
    manifest = job.manifest
    if gone := manifest.done() - seen:
        raise InvalidRequest(
            f"{job.source.name}: has fewer rows than when this job began (shard {min(gone)} is gone). "
            "--overwrite begins anew"
        )
    rows = written = rejected = truncated = tokens = 0
    digest = _Digest()
    for record in manifest.records():
        digest.add(record.digest)
        rows, written, rejected = rows + record.rows, written + record.written, rejected + len(record.rejects)
        truncated, tokens = truncated + record.truncated, tokens + record.tokens
    facts: dict[str, Any] = {"digest": digest.value()}
    if isinstance(job.output, KeepsRows):
        # Rows with equal ids are one row of a store.
        facts["kept"] = written if job.output.has(written) else min(1, written)
    parts = [] if job.output.direct else [manifest.part(index) for index in sorted(seen)]
    files = job.output.assemble(parts, job.plan.made)
    summary = Summary(
        rows=rows,
        written=written,
        rejected=rejected,
        truncated=truncated,
        tokens=tokens,
        seconds=round(seconds, 3),
        resumed=resumed,
        outputs=_places(files) or (job.output.name,),
        manifest=str(manifest.final),
        rejects=str(manifest.rejects) if rejected else None,
    )
    manifest.complete(job.plan.identity, {"summary": asdict(summary), **facts})
    return summary


def _is_there(output: Output, complete: dict[str, Any]) -> bool:
    """Whether what a complete job has written still is where it was, whatever folder that was called from."""
    if isinstance(output, KeepsRows):
        return output.has(complete["kept"])
    there = {place.name for path in output.files() if path.exists() for place in (path, path.parent)}
    return all(Path(one).name in there for one in complete["summary"]["outputs"])


def _is_of_these_rows(job: Job, complete: dict[str, Any]) -> bool:
    """Whether a complete job has been given the rows that its input has now.

    Raises:
        InvalidRequest: it has not, and the output is no store in which the new ones would overwrite the old.
    """
    source = job.source
    if not isinstance(source, MayChange):
        return True
    if job.output.direct and not source.rereadable:
        return False
    digest = _Digest()
    for shard in source.shards(job.plan.shard_rows):
        digest.add(digest_of(shard.load()))
    if digest.value() == complete["digest"]:
        return True
    if job.output.direct:
        return False
    raise InvalidRequest(
        f"{job.manifest.base}: is there already, and {source.name} has other rows than it was made of. "
        "--overwrite replaces it"
    )


class _Digest:
    """Stands for all rows of an input, by its shards' digests."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)

    def add(self, shard: str) -> None:
        self._digest.update(shard.encode() + b"\n")

    def value(self) -> str:
        return self._digest.hexdigest()


def _places(files: list[Path]) -> tuple[str, ...]:
    """The files, or the folder of many."""
    folders = {path.parent for path in files}
    if len(files) > _LISTED and len(folders) == 1:
        return (str(folders.pop()),)
    return tuple(map(str, files))


def ranges_for(plan: Plan, computer: Computer) -> NDArray[np.float32] | None:
    """float32 [2, dimensions] where the output type needs them: from the cache, or measured now and kept there."""
    from lemni.hub.cache import DEFAULT_DIR
    from lemni.tasks.output_types import needs_ranges
    from lemni.tasks.ranges import Ranges, calibrate, calibration_request, key_of

    if not needs_ranges(plan.output_type):
        return None
    card = computer.model.card
    kept = Ranges((plan.model.hub.cache_dir or DEFAULT_DIR).expanduser())
    key = key_of(card)
    if kept.of(key, card, plan.request.options) is None:
        request = calibration_request()
        measured = computer.compute(computer.tokenize(request.items, request)).result
        kept.put(key, calibrate(lambda _: measured.vectors))
    return kept.of(key, card, plan.request.options)


def _run(job: Job, worker: Worker, done: set[int], bar: Progress, replicas: int, ended: threading.Event) -> set[int]:
    """The shards that are not done yet, through the steps side by side. Returns the numbers of all."""
    seen: set[int] = set()
    rejected = Rejected(job)
    for index in done:
        rejected.add(job.manifest.record(index))

    def left() -> Iterator[Shard]:
        for shard in job.source.shards(job.plan.shard_rows):
            seen.add(shard.index)
            if shard.index not in done or not is_as_it_was(job, shard):
                yield shard

    with ThreadPoolExecutor(replicas, thread_name_prefix="lemni-replica") as pool:

        def compute(work: Work) -> Future[Work]:
            return pool.submit(worker.compute, work)

        def write(work: Future[Work]) -> tuple[Record, int]:
            one = work.result()
            return worker.write(one), len(one.rows) - one.passed

        for record, skipped in run_stages(
            left(), worker.read, worker.tokenize, compute, write, room=max(1, replicas - 1), ended=ended
        ):
            bar.skipped(skipped)
            rejected.add(record)
    return seen


def is_as_it_was(job: Job, shard: Shard) -> bool:
    """Whether a shard that is done need not be done again. What files hold is known by their sizes and times; other
    rows are compared.

    Raises:
        InvalidRequest: they have changed, and the output is no store in which the new ones would overwrite the old.
    """
    if job.source.random_access:
        return True
    record = job.manifest.record(shard.index)
    if record.digest == digest_of(shard.load()):
        return True
    if job.output.direct:
        return False
    raise InvalidRequest(
        f"{job.source.name}: rows {record.first} to {record.first + record.rows - 1} are not what they were when this "
        "job began. --overwrite begins anew"
    )


class Rejected:
    """Counts rejected rows, those of earlier runs too. Raises InvalidRequest when there are more than the rules
    allow."""

    def __init__(self, job: Job) -> None:
        self._job, self._count = job, 0
        self._counts: dict[int, int] = {}

    def add(self, record: Record) -> None:
        """A shard that is done anew counts once."""
        self._count += len(record.rejects) - self._counts.get(record.index, 0)
        if record.rejects or record.index in self._counts:
            self._counts[record.index] = len(record.rejects)
        if record.rejects and self._job.plan.rules.fail_fast:
            raise record.rejects[0].error()
        limit = self._job.plan.rules.max_rejects
        if limit is not None and self._count > limit:
            one = record.rejects[-1] if record.rejects else None
            last = f"; the last: row {one.row}, {one.reason}" if one else ""
            some = "1 row is" if self._count == 1 else f"{self._count} rows are"
            raise InvalidRequest(f"{some} rejected, and at most {limit} may be{last}")


def _summary(found: dict[str, Any]) -> Summary:
    return Summary(**{**found, "outputs": tuple(found["outputs"])})
