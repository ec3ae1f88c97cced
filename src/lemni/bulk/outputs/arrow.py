""".arrow and .feather: an Arrow IPC file (Feather version 2) of the columns of `tables.py`, not compressed, so that it
can be memory-mapped."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import pyarrow as pa

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import place_copy, placed
from lemni.bulk.outputs.tables import TableOutput, same
from lemni.bulk.rows import Rows, Vectors


class Arrow(TableOutput):
    format = "arrow"
    ending = ".arrow"

    def join(self, parts: Seq[Path], plan: dict[str, Any], made: Made) -> list[Path]:
        schema = self.schema(plan, made)
        with placed(self.path) as draft, pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in self.batches(parts, schema):
                writer.write_batch(batch)
        return [self.path]


class ArrowParts(Arrow):
    """In a folder of files: a part that has the types of all parts is linked to its place."""

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        batch = self._batch(rows, vectors, made)
        kinds = {field.name: field.type for field in batch.schema if field.name not in self._own()}
        self._save(part, pa.RecordBatch.from_arrays(batch.columns, schema=self.schema(kinds, made)))

    def join(self, parts: Seq[Path], plan: dict[str, Any], made: Made) -> list[Path]:
        if len(parts) == 1:
            with pa.OSFile(str(parts[0]), "rb") as file, pa.ipc.open_file(file) as reader:
                final = same(reader.schema, self.schema(plan, made))
            if final:
                place_copy(parts[0], self.path)
                return [self.path]
        return super().join(parts, plan, made)
