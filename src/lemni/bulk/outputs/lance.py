""".lance: a Lance dataset, which is a folder, of the columns of `tables.py`.

Its content is the same for the same parts; its bytes are not, since Lance names files at random and writes the time
into each version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence as Seq
from functools import lru_cache
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import remove
from lemni.bulk.outputs.tables import TableOutput
from lemni.bulk.rows import Rows, Vectors
from lemni.errors import InvalidRequest
from lemni.stores.folders import flush


class Lance(TableOutput):
    format = "lance"
    ending = ".lance"

    def join(self, parts: Seq[Path], plan: dict[str, Any], made: Made) -> list[Path]:
        schema = self.schema(plan, made)
        draft, old = (self.path.with_name(f".{self.path.name}.{what}") for what in ("draft", "old"))
        remove(draft)
        reader = pa.RecordBatchReader.from_batches(schema, self.batches(parts, schema))
        lance.write_dataset(reader, str(draft), schema=schema, mode="create")
        for path in [*draft.rglob("*"), draft]:
            flush(path)
        # A folder cannot take the place of another one in one step; the new one waits beside it.
        remove(old)
        if self.path.exists():
            self.path.replace(old)
        draft.replace(self.path)
        flush(self.path.parent)
        remove(old)
        return [self.path]

    def _check_place(self) -> None:
        there = self.path.exists()
        if (
            there
            and not (self.path / "_versions").is_dir()
            and not (self.path.is_dir() and not any(self.path.iterdir()))
        ):
            raise InvalidRequest(f"{self.name}: is there, and is no Lance dataset: name another place")

    def holds(self, kind: Any) -> bool:
        return _holds("column", kind)

    def _batch(self, rows: Rows, vectors: Vectors, made: Made) -> Any:
        batch = super()._batch(rows, vectors, made)
        for name in batch.schema.names:
            if not _holds(name, pa.int64()):
                raise InvalidRequest(
                    f"{self.name}: Lance has no columns that are called {name!r}: "
                    + ("take another --vector-column" if name == self.vector_column else "leave it out with --carry")
                )
        return batch


@lru_cache(maxsize=1024)
def _holds(name: str, kind: Any) -> bool:
    """Whether a column can be written and read: what Lance refuses is to be known before the last shard."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            lance.write_dataset(pa.table({name: pa.nulls(1, kind)}), f"{folder}/one.lance", mode="create").to_table()
        except (pa.lib.ArrowException, OSError, ValueError, TypeError, RuntimeError):
            return False
    return True
