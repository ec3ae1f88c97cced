"""`lemni embed --engine ray`: the shards of a bulk job as rows of a Ray Data pipeline.

Tasks read shards, an autoscaling pool of actors, each with the model, embeds them, tasks write parts and records: the
manifest, the parts and the bytes are those of one machine, so a job may begin on one and end on a cluster. A task or an
actor that dies with its node is run again by Ray; a part is renamed into its place only when it is whole. Ray Data
holds back reading while the actors are behind.

All nodes must see the input, and the folder that the job's files are in (a shared file system), unless all are one
machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from lemni.bulk.embedding import Asked, StrPath, Wanted
from lemni.bulk.manifest import Manifest
from lemni.bulk.outputs.base import Output
from lemni.bulk.plan import Model, Plan
from lemni.bulk.progress import Progress
from lemni.bulk.rows import Rows
from lemni.bulk.run import Job, Rejected, Summary, begun, finished, is_as_it_was, ranges_for
from lemni.bulk.windows import Computer
from lemni.bulk.worker import Worker
from lemni.config import DEFAULT_MODEL
from lemni.distributed.online import connect
from lemni.errors import InvalidRequest, LemniError, Unavailable, missing_extra

_SMALL_CPUS = 0.1
"""Of a task that reads or writes: they wait for disks, beside the actors."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The actors that embed.

    Attributes:
        least, most: how many there are; None takes what the cluster has room for when the job begins.
        cpus: of each; its threads. None takes a node's, less what reading and writing needs.
        gpus: of each; None takes one if the cluster has any.
    """

    least: int = 1
    most: int | None = None
    cpus: float | None = None
    gpus: float | None = None


def embed(
    input: StrPath | Seq[StrPath],
    output: StrPath,
    *,
    model: str | Model = DEFAULT_MODEL,
    stdin: BinaryIO | None = None,
    ray_address: str | None = None,
    pool: Pool | None = None,
    **wanted: Unpack[Wanted],
) -> Summary:
    """`lemni.bulk.embed` on a Ray cluster: the same arguments, the same files.

    Args:
        ray_address: as `ray.init` takes it; None takes RAY_ADDRESS, or begins a cluster of this machine. A script that
            has called `ray.init` itself is left as it is.
        pool: how many actors with what.

    Raises:
        Unavailable: no cluster at the address; a node does not see the job's folder.
        MissingExtra: Ray is not installed.
        LemniError: as `lemni.bulk.embed`.
    """
    places = [input] if isinstance(input, str | os.PathLike) else input
    asked = Asked.of([_absolute(place) for place in places], output, model, stdin, wanted)
    with _cluster(ray_address) as ray:
        chosen = _sized(ray, pool or Pool())
        plan, ranges = _planned(ray, asked, chosen)
        job = asked.job(plan)
        with begun(job, overwrite=asked.run["overwrite"]) as complete:
            if complete is not None:
                return complete
            done = job.manifest.done()
            resumed = sum(job.manifest.record(index).rows for index in done)
            bar = Progress(job.source.count(), resumed, show=asked.run["progress"], price=asked.run["price"])
            started = time.monotonic()
            try:
                seen = _run(ray, job, job.manifest.same_ranges(ranges), chosen, done, bar)
            finally:
                bar.close()
            return finished(job, seen, time.monotonic() - started, resumed)


def _absolute(place: StrPath) -> str:
    """What other processes find too: a worker has another working directory."""
    named = os.fspath(place)
    return named if named == "-" or ":" in named else os.path.abspath(named)


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; ended afterwards if it was begun here."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # the job has a bar of its own
    try:
        import ray
        import ray.data
    except ImportError:
        raise missing_extra("ray", "ray", "--engine ray") from None
    own = not ray.is_initialized()
    connect(address)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _sized(ray: Any, pool: Pool) -> Pool:
    """The pool with nothing left open, by what the nodes have."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if not nodes:
        raise Unavailable("the Ray cluster has no node with a CPU")
    gpus = pool.gpus if pool.gpus is not None else float(any(node.get("GPU") for node in nodes))
    own = 1.0 if gpus else max(0.5, min(node["CPU"] for node in nodes) - 0.5)
    cpus = own if pool.cpus is None else pool.cpus
    room = sum(
        int(min(node["CPU"] // cpus, node.get("GPU", 0) // gpus if gpus else node["CPU"] // cpus)) for node in nodes
    )
    most = max(pool.least, room if pool.most is None else pool.most, 1)
    return Pool(pool.least, most, cpus, gpus)


def _planned(ray: Any, asked: Asked, pool: Pool) -> tuple[Plan, NDArray[np.float32] | None]:
    """What the job is, as a machine that will embed sees it: this one may have no GPU, and no room for the model."""
    source, output = asked.source.identity(), asked.output.identity()
    how, wanted = asked.model, asked.wanted

    def work() -> tuple[Plan, NDArray[np.float32] | None] | LemniError:
        from lemni.bulk.plan import plan

        try:
            with contextlib.closing(how.load()) as loaded:
                made = plan(source, output, how, loaded, **wanted)
                with contextlib.closing(Computer(loaded, how.engine)) as computer:
                    return made, ranges_for(made, computer)
        except LemniError as error:
            return error

    found = ray.get(ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus)(work).remote())
    if isinstance(found, LemniError):
        raise found
    planned: tuple[Plan, NDArray[np.float32] | None] = found
    return planned


def _run(ray: Any, job: Job, ranges: NDArray[np.float32] | None, pool: Pool, done: set[int], bar: Progress) -> set[int]:
    """What is left of the shards, through the cluster. Returns the numbers of all."""
    _check_folder(ray, job.manifest)
    rejected = Rejected(job)
    for index in done:
        rejected.add(job.manifest.record(index))
    seen: set[int] = set()
    left: list[dict[str, bytes]] = []
    for shard in job.source.shards(job.plan.shard_rows):
        seen.add(shard.index)
        if shard.index not in done or not is_as_it_was(job, shard):
            one = shard if job.source.random_access else _spooled(job.manifest, shard.index, shard.load())
            left.append({"step": pickle.dumps(one)})
    if not left:
        return seen
    common = pickle.dumps((job.plan, job.output, Manifest(job.manifest.base.absolute()), ranges))
    actors = ray.data.ActorPoolStrategy(min_size=min(pool.least, len(left)), max_size=min(pool.most or 1, len(left)))
    shards = (
        ray.data.from_items(left, override_num_blocks=len(left))
        .map(_Read(common), num_cpus=_SMALL_CPUS)
        .map_batches(
            _Embed,
            batch_size=1,
            batch_format="numpy",
            compute=actors,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            fn_constructor_args=(common, pool),
        )
    )
    own = Worker(job.plan, None, job.output, job.manifest, ranges)
    if not job.output.direct:
        shards = shards.map(_Write(common), num_cpus=_SMALL_CPUS)
    for row in shards.iter_rows():
        # A store is written to from here: one that is a file takes one writer.
        step = pickle.loads(row["step"])
        if isinstance(step, LemniError | OSError):
            raise step
        record = own.write(step) if job.output.direct else job.manifest.record(step)
        bar.passed(record.rows, record.tokens)
        rejected.add(record)
    return seen


class _Shared:
    """What every task of a job has, unpacked where it runs."""

    def __init__(self, common: bytes) -> None:
        self._common = common
        self._unpacked: Any = None

    def __getstate__(self) -> bytes:
        return self._common

    def __setstate__(self, common: bytes) -> None:
        _Shared.__init__(self, common)

    def parts(self) -> tuple[Plan, Output, Manifest, NDArray[np.float32] | None]:
        if self._unpacked is None:
            self._unpacked = pickle.loads(self._common)
        found: tuple[Plan, Output, Manifest, NDArray[np.float32] | None] = self._unpacked
        return found


class _Step(_Shared):
    """A row's `step`, pickled, into the next one; an error of ours goes on in its place: of what is raised Ray keeps
    only the text."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"step": self.after(row["step"])}

    def after(self, pickled: bytes) -> bytes:
        step = pickle.loads(pickled)
        if not isinstance(step, LemniError | OSError):
            try:
                step = self.do(step)
            except (LemniError, OSError) as error:
                step = error
        return pickle.dumps(step)

    def do(self, step: Any) -> Any:
        raise NotImplementedError


class _Read(_Step):
    """A shard -> its rows, of which the good ones are known."""

    def do(self, step: Any) -> Any:
        plan, output, manifest, ranges = self.parts()
        return Worker(plan, None, output, manifest, ranges).read(step)


class _Write(_Step):
    """Vectors -> the number of the shard, whose part and record are written."""

    def do(self, step: Any) -> Any:
        plan, output, manifest, ranges = self.parts()
        return Worker(plan, None, output, manifest, ranges).write(step).index


class _Embed(_Step):
    """Rows -> vectors. An actor: it loads the model once."""

    def __init__(self, common: bytes, pool: Pool) -> None:
        super().__init__(common)
        self._pool = pool
        self._worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"step": np.array([self.after(one) for one in batch["step"]], dtype=object)}

    def do(self, step: Any) -> Any:
        if self._worker is None:
            self._worker = self._load()
        return self._worker.compute(self._worker.tokenize(step))

    def _load(self) -> Worker:
        plan, output, manifest, ranges = self.parts()
        how = plan.model
        if how.engine.threads is None and not self._pool.gpus:
            threads = max(1, round((self._pool.cpus or 1) + 0.01))
            how = dataclasses.replace(how, engine=how.engine.model_copy(update={"threads": threads}))
        loaded = how.load()
        found = {"precision": loaded.card.dtype, "runtime": loaded.card.runtime}
        wanted = {name: plan.identity["model"][name] for name in found}
        if found != wanted:
            raise InvalidRequest(
                f"this machine computes in {found['precision']} on {found['runtime']}, and the job in "
                f"{wanted['precision']} on {wanted['runtime']}: choose both with --dtype and --runtime"
            )
        return Worker(plan, Computer(loaded, how.engine), output, manifest, ranges)


@dataclass(frozen=True, slots=True)
class _Spooled:
    """A shard of an input that can be read only once, put beside the job's parts for whoever embeds it."""

    index: int
    path: Path

    def load(self) -> Rows:
        rows: Rows = pickle.loads(self.path.read_bytes())
        return rows


def _spooled(manifest: Manifest, index: int, rows: Rows) -> _Spooled:
    path = manifest.work / "parts" / f"{index:06d}.rows"
    path.write_bytes(pickle.dumps(rows))
    return _Spooled(index, path)


def _check_folder(ray: Any, manifest: Manifest) -> None:
    """Raises Unavailable where a node does not see the folder in which the job's parts are to meet."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    job = (manifest.work / "job.json").absolute()
    expected = job.read_bytes()

    def sees() -> bool:
        try:
            return job.read_bytes() == expected
        except OSError:
            return False

    look = ray.remote(num_cpus=0)(sees)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    for node, answer in zip(nodes, ray.get(asked), strict=True):
        if not answer:
            raise Unavailable(
                f"the node {node['NodeManagerHostname']} does not see {manifest.work}: put the output onto a file "
                "system that all nodes share"
            )
