"""What every input must do, and its rows as plain tuples."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lemni.bulk.rows import Broken, Id
from lemni.bulk.sources import Columns, Source, open_source


class Row(NamedTuple):
    id: Id
    item: Any
    text: str | None
    metadata: dict[str, Any]


def reason(row: Row) -> str:
    """Why it is broken."""
    assert isinstance(row.item, Broken)
    return row.item.reason


def read(
    places: Path | str | Sequence[Path | str], columns: Columns | None = None, rows: int = 3, **more: Any
) -> list[Row]:
    every = [places] if isinstance(places, (str, Path)) else places
    return rows_of(open_source([str(place) for place in every], columns or Columns(), **more), rows)


def rows_of(source: Source, rows: int) -> list[Row]:
    """All rows, with what the protocol promises asserted."""
    assert json.loads(json.dumps(source.identity())) == source.identity()
    found: list[Row] = []
    fewer = 0  # a shard with fewer rows ends a file
    for index, shard in enumerate(source.shards(rows)):
        assert shard.index == index
        if source.random_access:
            packed = pickle.dumps(shard)
            assert len(packed) < 4000
            shard = pickle.loads(packed)
        batch = shard.load()
        assert batch.first == len(found)
        assert 0 < len(batch) <= rows
        fewer += len(batch) < rows
        assert len(batch.ids) == len(batch.items) == len(batch.texts) == len(batch.metadata)
        found += map(Row, batch.ids, batch.items, batch.texts, batch.metadata)
    assert fewer <= len(getattr(source, "files", [0]))
    if (count := source.count()) is not None:
        assert count == len(found)
    return found
