"""What the formats with columns share: parquet, Arrow and Lance.

Columns: `id` (int64, or string where one is no such number), `text` string, the carried ones, and the vectors: dense a
list of fixed size of the vectors' numbers; sparse struct<indices: list<int32>, values: list<float32>>; multi-vectors a
list of such lists of fixed size. A carried column has the type that the source says, else the one that its cells have;
types that differ from part to part become one that holds all. Nulls only: string.

A part is an Arrow IPC file of one batch with the types of that part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lemni.bulk.outputs import cells
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.facts import facts_of
from lemni.bulk.outputs.file import FileOutput, check_column
from lemni.bulk.outputs.flat import flat, width_of
from lemni.bulk.rows import Rows, Vectors

# Of written batches: enough for a reader to go through in few steps, whatever the size of parts.
_ROWS = 16_384
_BYTES = 16 << 20


class TableOutput(FileOutput):
    """`join` writes `batches` of the plan's schema."""

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        self._save(part, self._batch(rows, vectors, made))

    def plan(self, parts: Seq[Path]) -> dict[str, Any]:
        """The types of `id` and the carried columns by name, in the order in which they appear."""
        kinds: dict[str, dict[Any, None]] = {}
        for part in parts:
            for field in self._schema(part):
                kinds.setdefault(field.name, {})[field.type] = None
        found = {name: cells.common(list(some)) for name, some in kinds.items() if name not in self._own()}
        # Without rows nothing is known of the ids: rows' numbers.
        if not kinds or list(kinds["id"]) == [pa.null()]:
            found["id"] = pa.int64()
        return found

    def schema(self, plan: dict[str, Any], made: Made) -> Any:
        """Of the output."""
        carried = [(name, kind) for name, kind in plan.items() if name != "id"]
        columns = [("id", plan["id"]), ("text", pa.string()), *carried, (self.vector_column, vector_type(made))]
        return pa.schema(columns, facts_of(made))

    def batches(self, parts: Seq[Path], schema: Any) -> Iterator[Any]:
        """The parts' rows in batches of one schema: several small parts in one, so that a batch is at most as large as
        a part or `_ROWS` rows and `_BYTES`."""
        waiting: list[Any] = []
        rows = size = 0
        for batch in (self._fitted(batch, schema) for part in parts for batch in self._batches(part)):
            if waiting and (rows + len(batch) > _ROWS or size + batch.nbytes > _BYTES):
                yield pa.concat_batches(waiting)
                waiting, rows, size = [], 0, 0
            if len(batch):
                waiting.append(batch)
                rows, size = rows + len(batch), size + batch.nbytes
        if waiting:
            yield pa.concat_batches(waiting)

    def holds(self, kind: Any) -> bool:
        """Whether the format has columns of an Arrow type."""
        return True

    def _own(self) -> tuple[str, ...]:
        return ("text", self.vector_column)

    def _batch(self, rows: Rows, vectors: Vectors, made: Made) -> Any:
        """The rows, with the types that these rows need."""
        known = {} if rows.schema is None else {field.name: field.type for field in rows.schema}
        names = dict.fromkeys([*known, *(name for carried in rows.metadata for name in carried)])
        for name in names:
            check_column(name, ("id", "text", self.vector_column), self.name)
        columns = {"id": ids_column(rows.ids), "text": cells.texts(rows.texts)}
        for name in names:
            values = [carried.get(name) for carried in rows.metadata]
            columns[name] = cells.column(values, known.get(name), self.holds)
        columns[self.vector_column] = vector_column(vectors, len(rows), made)
        return pa.RecordBatch.from_pydict(columns)

    def _fitted(self, batch: Any, schema: Any) -> Any:
        arrays = []
        for field in schema:
            at = batch.schema.get_field_index(field.name)
            array = pa.nulls(len(batch), field.type) if at < 0 else cells.become(batch.column(at), field.type)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    # A part's form.

    def _save(self, part: Path, batch: Any) -> None:
        with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)

    def _schema(self, part: Path) -> Iterable[Any]:
        with pa.OSFile(str(part), "rb") as file, pa.ipc.open_file(file) as reader:
            return list(reader.schema)

    def _batches(self, part: Path) -> Iterator[Any]:
        with pa.OSFile(str(part), "rb") as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)


def same(one: Any, other: Any) -> bool:
    """Whether schemas say the same; what the items of lists are called aside, which parquet changes."""
    return bool(one.equals(other) and one.metadata == other.metadata)


def ids_column(ids: Seq[Any]) -> Any:
    """int64; string where an id is a text or no number of 64 bits; null where there are none."""
    if not ids:
        return pa.nulls(0)
    try:
        if all(isinstance(one, int) for one in ids):
            return pa.array(ids, pa.int64())
    except OverflowError:
        pass
    return cells.texts(str(one) for one in ids)


def vector_type(made: Made) -> Any:
    if made.task == "sparse":
        return pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
    dense = pa.list_(pa.from_numpy_dtype(np.dtype(made.dtype)), width_of(made))
    return pa.list_(dense) if made.task == "multi_vector" else dense


def vector_column(vectors: Vectors, count: int, made: Made) -> Any:
    """Raises ValueError for vectors that are not those of `made`."""
    arrays = flat(vectors, count, made)

    def lists(values: Any, kind: Any) -> Any:
        offsets = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
        if offsets[-1] >= 1 << 31:
            raise ValueError(f"{offsets[-1]} vectors in one shard: make shards of fewer rows")
        return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values, type=kind)

    kind = vector_type(made)
    if made.task == "sparse":
        values = [lists(pa.array(arrays[field.name]), field.type) for field in kind]
        return pa.StructArray.from_arrays(values, fields=list(kind))
    dense = kind.value_type if made.task == "multi_vector" else kind
    rows = pa.FixedSizeListArray.from_arrays(pa.array(arrays["vectors"].reshape(-1)), type=dense)
    return lists(rows, kind) if made.task == "multi_vector" else rows
