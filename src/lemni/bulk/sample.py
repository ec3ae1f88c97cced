"""How long a job will take, how large its output will be and what it costs, from a sample of its first rows."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lemni.bulk.manifest import Manifest
from lemni.bulk.progress import Price
from lemni.bulk.run import Job, ranges_for
from lemni.bulk.sources.source import FileShard, FileSource
from lemni.bulk.windows import Computer
from lemni.bulk.worker import Worker
from lemni.errors import InvalidRequest
from lemni.tasks.model import LoadedModel

SAMPLE_ROWS = 256
_WARM_ROWS = 8
_COUNTED_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a job is expected to be.

    Attributes:
        rows: exact where `counted`, else from the bytes of the sample's rows.
        sample: rows that were measured; `rejected` of them would be.
        tokens: of all rows.
        seconds: on this machine, without loading the model.
        output_bytes: of the output; None for a store.
        cost: in the price's currency, if there is a price.
    """

    rows: int
    counted: bool
    sample: int
    rejected: int
    rows_per_s: float
    tokens: int
    seconds: float
    output_bytes: int | None
    cost: float | None


def estimate(job: Job, loaded: LoadedModel, *, price: Price | None = None) -> Estimate:
    """Embed the first rows, write nothing but a part in a temporary folder.

    Raises:
        InvalidRequest: the input has no rows, or none that can be embedded.
    """
    shards = list(islice(job.source.shards(SAMPLE_ROWS), 1))
    if not shards:
        raise InvalidRequest(f"{job.source.name}: has no rows")
    with (
        contextlib.closing(Computer(loaded, job.plan.model.engine)) as computer,
        tempfile.TemporaryDirectory() as folder,
    ):
        ranges = ranges_for(job.plan, computer)
        manifest = Manifest(Path(folder) / "sample")
        part = Path(folder) / "part"
        worker = Worker(job.plan, computer, _Nowhere(), manifest, ranges)  # type: ignore[arg-type]
        some = worker.read(shards[0])
        some.good = some.good[:_WARM_ROWS]
        worker.compute(worker.tokenize(some))
        started = time.monotonic()
        work = worker.compute(worker.tokenize(worker.read(shards[0])))
        seconds = time.monotonic() - started
        assert work.computed is not None
        sampled = len(work.rows)
        if not work.computed.places:
            first = next(iter(work.rejects), None)
            raise InvalidRequest(
                f"none of the first {sampled} rows can be embedded{f': {first.reason}' if first else ''}"
            )
        size = None
        kept, vectors = worker.vectors(work)
        if not job.output.direct:
            job.output.write(part, kept, vectors, job.plan.made)
            size = part.stat().st_size
        tokens = int(work.computed.result.token_counts.sum())
    rows = _counted(job)
    counted = rows is not None
    if rows is None:
        rows = sampled
        total = job.source.size()
        content = sum(
            len((text or "").encode("utf-8", "replace")) + len(json.dumps(carried, default=str)) + 1
            for text, carried in zip(work.rows.texts, work.rows.metadata, strict=True)
        )
        if total is not None and sampled == SAMPLE_ROWS:
            rows = max(sampled, round(total * sampled / max(1, content)))
    scale = rows / sampled
    return Estimate(
        rows,
        counted or sampled < SAMPLE_ROWS,
        sampled,
        len(work.rejects),
        sampled / seconds,
        round(tokens * scale),
        seconds * scale,
        None if size is None else round(size * scale),
        None if price is None else price.of(seconds * scale),
    )


def _counted(job: Job) -> int | None:
    """By the input's own word, or by cutting it into shards, where that reads no row."""
    rows = job.source.count()
    if rows is None and isinstance(job.source, FileSource) and job.source.random_access:
        rows = sum(shard.count for shard in job.source.shards(_COUNTED_ROWS) if isinstance(shard, FileShard))
    return rows


class _Nowhere:
    """A worker that only computes needs no output."""
