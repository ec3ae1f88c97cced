""".parquet: the columns of `tables.py`, in row groups of a few thousand rows; model, revision and output type are in
the file's metadata (`pyarrow.parquet.read_schema(path).metadata`)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import place_copy, placed
from lemni.bulk.outputs.tables import TableOutput, same


class Parquet(TableOutput):
    format = "parquet"
    ending = ".parquet"

    def join(self, parts: Seq[Path], plan: dict[str, Any], made: Made) -> list[Path]:
        schema = self.schema(plan, made)
        with placed(self.path) as draft, self._writer(draft, schema) as writer:
            for batch in self.batches(parts, schema):
                writer.write_batch(batch, row_group_size=len(batch))
        return [self.path]

    def holds(self, kind: Any) -> bool:
        return _holds(kind)

    def _writer(self, path: Path, schema: Any) -> Any:
        # Dictionaries and bounds of vectors are work for nothing, and texts' bounds are long.
        short = [name for name in schema.names if name not in self._own()]
        return pq.ParquetWriter(str(path), schema, use_dictionary=short, write_statistics=short)


class ParquetParts(Parquet):
    """In a folder of files: a part is a parquet file, which is linked to its place if its types are those of all
    parts."""

    def write(self, part: Path, rows: Any, vectors: Any, made: Made) -> None:
        batch = self._batch(rows, vectors, made)
        kinds = {field.name: field.type for field in batch.schema if field.name not in self._own()}
        with self._writer(part, self.schema(kinds, made)) as writer:
            writer.write_batch(batch, row_group_size=max(len(batch), 1))

    def join(self, parts: Seq[Path], plan: dict[str, Any], made: Made) -> list[Path]:
        if len(parts) == 1 and same(pq.read_schema(parts[0]), self.schema(plan, made)):
            place_copy(parts[0], self.path)
            return [self.path]
        return super().join(parts, plan, made)

    def _schema(self, part: Path) -> Iterable[Any]:
        return list(pq.read_schema(part))

    def _batches(self, part: Path) -> Iterator[Any]:
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches()


@lru_cache(maxsize=256)
def _holds(kind: Any) -> bool:
    try:
        pq.ParquetWriter(io.BytesIO(), pa.schema([("column", kind)])).close()
    except pa.lib.ArrowException:
        return False
    return True
