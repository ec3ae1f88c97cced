"""A vector store as the output: every shard is upserted when it is done, and nothing has to be joined.

Not to be confused with `lemni migrate`, which reads from a store as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.flat import flat
from lemni.bulk.outputs.lines import to_json
from lemni.bulk.rows import Rows, Vectors
from lemni.errors import InvalidRequest
from lemni.stores import open_store
from lemni.stores.base import Finishes, Metric, Page, Schema, Store, VectorKind
from lemni.stores.place import parse
from lemni.types import TASK_WORDS, Task

_METRICS: dict[str, Metric] = {
    "cosine": "cosine",
    "dot": "dot",
    "euclidean": "l2",
    "maxsim": "cosine",
    "meanmaxsim": "cosine",
}
_KINDS: dict[Task, VectorKind] = {"embed": "dense", "sparse": "sparse", "multi_vector": "multi_vector"}
# Packed bits would be compared as if they were numbers.
_OUTPUT_TYPES = ("float32", "float16", "int8", "uint8")
_AT_ONCE = 256  # rows


def schema_of(made: Made, metric: Metric | None = None) -> Schema:
    """What a collection of a model's vectors is; `metric` if not the model's own.

    Raises:
        InvalidRequest: stores do not compare as the model wants it.
    """
    found = metric or ("dot" if made.task == "sparse" else _METRICS.get(made.similarity))
    if found is None:
        raise InvalidRequest(f"{made.model}: its vectors are compared by {made.similarity}, which no store does")
    return Schema(made.dimensions, found, _KINDS[made.task])


class StoreOutput:
    """Implements `Output`. Opened by the first call that needs it, in whatever process that is.

    Args:
        address: of `lemni.stores`, with a collection.

    Raises:
        StoreError: it is no address.
    """

    direct = True

    def __init__(self, address: str) -> None:
        self._address = address
        self.name = str(parse(address))
        self._opened: Store | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def identity(self) -> dict[str, Any]:
        return {"format": "store", "name": self.name}

    def files(self) -> list[Path]:
        return []

    def prepare(self, made: Made) -> None:
        """Creates the collection if there is none; one that is there must have the same dimensions and metric."""
        store, kind = self._store(), _KINDS[made.task]
        if kind not in store.kinds:
            raise InvalidRequest(f"{self.name}: holds {', '.join(store.kinds)} vectors, not {TASK_WORDS[made.task]}")
        if made.output_type not in _OUTPUT_TYPES:
            raise InvalidRequest(f"{self.name}: a store takes {', '.join(_OUTPUT_TYPES)}, not {made.output_type}")
        store.create(schema_of(made))

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        """Text and metadata go along (`metadata_of`). Of rows with equal ids the last is kept."""
        if made.task == "embed":
            vectors = flat(vectors, len(rows), made)["vectors"].astype(np.float32)
        elif made.task == "multi_vector":
            vectors = [np.asarray(matrix, np.float32) for matrix in vectors]
        last = {name: place for place, name in enumerate(rows.ids)}
        if len(last) < len(rows):  # a batch with one id twice is refused by some stores; of those the last counts
            places = sorted(last.values())
            rows = rows.take(places)
            chosen: Any = vectors[places] if isinstance(vectors, np.ndarray) else [vectors[place] for place in places]
            vectors = chosen
        store = self._store()
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            metadata = [metadata_of(carried) for carried in rows.metadata[some]]
            store.write(Page(rows.ids[some], rows.texts[some], metadata, vectors[some]))

    def has(self, count: int) -> bool:
        """A collection that is gone has none."""
        store = self._store()
        return store.exists() and store.count() >= count

    def assemble(self, parts: Seq[Path], made: Made) -> list[Path]:
        """Finishes what the store leaves for the end, and closes the connection; a later call opens another one."""
        store = self._store()
        if isinstance(store, Finishes):
            store.finish()
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        return []

    def _store(self) -> Store:
        if self._opened is None:
            self._opened = open_store(self._address)
        return self._opened


def metadata_of(carried: dict[str, Any]) -> dict[str, Any]:
    """As stores take it: without nulls (and NaN, which is none either), and of what JSON has: times and decimals as
    text, bytes as base64. Lists and objects stay."""
    found = json.loads(to_json(carried))
    return {name: value for name, value in found.items() if value is not None}
