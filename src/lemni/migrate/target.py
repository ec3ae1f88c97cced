"""The new collection, as the output of a bulk job."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from lemni.bulk.manifest import Manifest
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.stores import schema_of
from lemni.bulk.rows import Rows, Vectors
from lemni.errors import InvalidRequest
from lemni.migrate.connection import Connection
from lemni.stores.base import Finishes, Id, Metric, Page

_AT_ONCE = 256  # rows: servers limit the bytes of a request


class Target:
    """Rows with equal ids are overwritten, so a shard may come twice.

    Args:
        connection: of the new collection.
        like: the old one, where it is of the same kind of store; its other settings are taken over.
    """

    direct = True

    def __init__(self, connection: Connection, metric: Metric | None = None, like: Connection | None = None) -> None:
        self._connection, self._metric, self._like = connection, metric, like
        self.name = connection.name

    def identity(self) -> dict[str, Any]:
        return {"store": self.name, "metric": self._metric}

    def files(self) -> list[Path]:
        return []

    def prepare(self, made: Made) -> None:
        schema = schema_of(made, self._metric)
        if schema.kind not in self._connection.store.kinds:
            raise InvalidRequest(
                f"{self.name}: holds {', '.join(self._connection.store.kinds)} vectors, and {made.model} gives "
                f"{schema.kind} ones here"
            )
        self._connection.ask(lambda store: store.create(schema, None if self._like is None else self._like.store))

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            self._put(Page(rows.ids[some], rows.texts[some], rows.metadata[some], vectors[some]))

    def _put(self, page: Page) -> None:
        self._connection.ask(lambda store: store.write(page))

    def has(self, count: int) -> bool:
        """Whether what a complete job has written is still there."""
        return self._connection.ask(lambda store: store.exists() and store.count() >= count)

    def assemble(self, parts: Seq[Path], made: Made) -> list[Path]:
        """Has the store build the index that it has put off, if it has."""
        self._connection.ask(lambda store: store.finish() if isinstance(store, Finishes) else None)
        return []


def rejected_by(folder: Path) -> set[Id]:
    """Ids that a migration's last job did not embed."""
    last = next((one for one in ("catch-up", "job") if Manifest(folder / one).final.exists()), "job")
    path = Manifest(folder / last).rejects
    if not path.exists():
        return set()
    with path.open("rb") as lines:
        return {json.loads(line)["id"] for line in lines}
