"""One model in several precisions, side by side: size, memory, speed, and how much of its quality is kept.

Each precision is loaded in a process of its own. Rounds of timing go from one to the next and around again, so that a
drift of the machine hits all alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError, LemniError
from lemni.hub.spec import ModelSpec
from lemni.quantize.data import Collection, Pairs
from lemni.quantize.folder import check, planned_bytes
from lemni.quantize.precisions import DTYPES, Precision
from lemni.quantize.quality import cosines, ndcg, similarities, spearman
from lemni.quantize.worker import Worker

ROUNDS = 5


@dataclass
class Row:
    """What was measured of one precision.

    Attributes:
        weights_bytes: of its weight files, if it were written.
        resident_bytes: memory of a process that has loaded the model and embedded the texts.
        gpu_bytes: what torch took on a GPU, at most.
        load_s: from the files that were given, so conversion is in it.
        query_ms: a short text by itself, median.
        texts_per_s: all texts in one request, median.
        speed: texts_per_s over that of fp32.
        cosine_mean, cosine_min, cosine_max: of a text's vector with its vector in fp32, over all texts.
        spearman: of similarities with human scores; None if the model finds all pairs alike.
        ndcg: at 10.
    """

    precision: Precision
    weights_bytes: int
    resident_bytes: int = 0
    gpu_bytes: int | None = None
    load_s: float = 0.0
    query_ms: float = 0.0
    texts_per_s: float = 0.0
    speed: float = 1.0
    cosine_mean: float | None = None
    cosine_min: float | None = None
    cosine_max: float | None = None
    spearman: float | None = None
    ndcg: float | None = None


@dataclass
class Comparison:
    """`left_out` says of each precision that is not among the rows why."""

    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def compare(
    spec: ModelSpec,
    settings: Mapping[str, Any],
    texts: Seq[str],
    precisions: Seq[Precision],
    *,
    rounds: int = ROUNDS,
    accuracy: bool = True,
    pairs: Pairs | None = None,
    collection: Collection | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Comparison:
    """Load, measure and compare; the first precision is what the others are compared with.

    Args:
        settings: of `lemni.load`, without the precision.
        texts: what is embedded.
        progress: told what is done next.

    Raises:
        ConfigError: the first precision cannot be had, or the model is not one for embedding.
        LemniError: what asking the model raises.
    """
    found = Comparison()
    with ExitStack() as stack:
        workers: dict[Precision, Worker] = {}
        for precision in precisions:
            progress(f"loading {precision}")
            try:
                check(spec, precision)
                worker = Worker({**settings, "dtype": DTYPES[precision]})
                stack.callback(worker.close)
                if worker.loaded["dtype"] != DTYPES[precision]:
                    raise ConfigError(f"{worker.loaded['dtype']} is computed here instead")
            except LemniError as error:
                if not workers:
                    raise
                found.left_out[precision] = error.message
                continue
            workers[precision] = worker
            found.rows.append(Row(precision, planned_bytes(spec, precision), load_s=worker.loaded["load_s"]))
        _check_task(spec, next(iter(workers.values())))
        _measure(found.rows, workers, list(texts), rounds, progress)
        if accuracy:
            with tempfile.TemporaryDirectory() as folder:
                _judge(found.rows, workers, list(texts), pairs, collection, Path(folder), progress)
    return found


def _check_task(spec: ModelSpec, worker: Worker) -> None:
    if "embed" not in worker.loaded["tasks"]:
        tasks = ", ".join(worker.loaded["tasks"])
        raise ConfigError(f"{spec.files.id} does {tasks}; precisions are compared for embedding models")


def _measure(
    rows: Seq[Row], workers: Mapping[Precision, Worker], texts: list[str], rounds: int, progress: Callable[[str], None]
) -> None:
    times: dict[Precision, list[dict[str, float]]] = {precision: [] for precision in workers}
    for number in range(rounds + 1):
        for precision, worker in workers.items():
            progress(f"round {number} of {rounds}: {precision}" if number else f"warming up {precision}")
            measured = worker.ask({"job": "time", "texts": texts})
            if number:
                times[precision].append(measured)
    for row in rows:
        memory = workers[row.precision].ask({"job": "memory"})
        row.resident_bytes, row.gpu_bytes = memory.get("rss", 0), memory.get("gpu")
        row.query_ms = median(one["query_ms"] for one in times[row.precision])
        row.texts_per_s = len(texts) / median(one["seconds"] for one in times[row.precision])
        row.speed = row.texts_per_s / rows[0].texts_per_s


def _judge(
    rows: Seq[Row],
    workers: Mapping[Precision, Worker],
    texts: list[str],
    pairs: Pairs | None,
    collection: Collection | None,
    folder: Path,
    progress: Callable[[str], None],
) -> None:
    exact: NDArray[np.float32] | None = None
    for row in rows:
        worker = workers[row.precision]
        similarity = worker.loaded["similarity"]

        def embed(items: list[str], side: str | None = None, worker: Worker = worker) -> NDArray[np.float32]:
            path = folder / "vectors.npy"
            worker.ask({"job": "embed", "texts": items, "input_type": side, "path": str(path)})
            vectors: NDArray[np.float32] = np.load(path)
            return vectors

        progress(f"vectors of {row.precision}")
        vectors = embed(texts)
        exact = vectors if exact is None else exact
        alike = cosines(vectors, exact)
        row.cosine_mean, row.cosine_min, row.cosine_max = float(alike.mean()), float(alike.min()), float(alike.max())
        if pairs is not None:
            one, two = embed(pairs.one), embed(pairs.two)
            scores = np.concatenate(
                [similarities(one[at : at + 1], two[at : at + 1], similarity)[0] for at in range(len(one))]
            )
            found = spearman(scores, pairs.scores)
            row.spearman = None if np.isnan(found) else found
        if collection is not None:
            queries, documents = embed(collection.queries, "query"), embed(collection.documents, "document")
            row.ndcg = ndcg(similarities(queries, documents, similarity), collection.judgments)
