"""`--format pinecone` as parquet, the form of Pinecone's imports; see `pinecone.py`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.chroma import text_id
from lemni.bulk.outputs.facts import facts_of
from lemni.bulk.outputs.flat import flat
from lemni.bulk.outputs.lines import to_json
from lemni.bulk.outputs.parquet import ParquetParts
from lemni.bulk.outputs.pinecone import metadata_of, vector_name
from lemni.bulk.outputs.tables import vector_column
from lemni.bulk.rows import Rows, Vectors


class PineconeParquet(ParquetParts):
    format = "pinecone"
    tasks = ("embed", "sparse")
    output_types = ("float32", "float16", "int8", "uint8")

    def schema(self, plan: dict[str, Any], made: Made) -> Any:
        kind: Any = pa.list_(pa.float32())
        if made.task == "sparse":
            kind = pa.struct([("indices", pa.list_(pa.uint32())), ("values", kind)])
        columns = [("id", pa.string()), (vector_name(made), kind), ("metadata", pa.string())]
        return pa.schema(columns, facts_of(made))

    def _own(self) -> tuple[str, ...]:
        return ("values", "sparse_values", "metadata")

    def _batch(self, rows: Rows, vectors: Vectors, made: Made) -> Any:
        schema = self.schema({}, made)
        if made.task == "sparse":
            numbers = vector_column(vectors, len(rows), made)
        else:
            values = flat(vectors, len(rows), made)["vectors"].astype("float32")
            numbers = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
        metadata = [to_json(one).decode() for one in metadata_of(self, rows)]
        ids = pa.array([text_id(one) for one in rows.ids], pa.string())
        columns = [ids, numbers.cast(schema.field(1).type), pa.array(metadata, pa.string())]
        return pa.RecordBatch.from_arrays(columns, schema=schema)
