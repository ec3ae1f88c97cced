"""`--format pinecone`: what Pinecone takes, dense or sparse, by the file's ending.

- .json, as `migrate_embeddings.py` writes it, and .jsonl: `{"id", "values", "metadata": {…carried, "text"}}` for an
  upsert; sparse vectors are `"sparse_values": {"indices", "values"}` in the place of `values`;
- .parquet, or a folder of them, for an import: columns `id` string, `values` list<float> or `sparse_values`
  struct<indices: list<uint32>, values: list<float>>, `metadata` string (JSON).

Pinecone's ids are texts: whole numbers, which rows have that came without an id, become doc_0, doc_1 ... Its metadata
is texts, numbers, booleans and lists of texts: nulls are left out, anything else is its JSON.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.chroma import join_lists, text_id, without_nulls
from lemni.bulk.outputs.drafts import placed_file
from lemni.bulk.outputs.file import FileOutput, check_column
from lemni.bulk.outputs.lines import JsonLines, json_vectors, to_json
from lemni.bulk.rows import Rows, Vectors


class PineconeLines(JsonLines):
    format = "pinecone"
    tasks = ("embed", "sparse")
    output_types = ("float32", "float16", "int8", "uint8")

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        with part.open("wb") as file:
            file.writelines(line + b"\n" for line in _objects(self, rows, vectors, made))


class PineconeJson(FileOutput):
    """A part is the list without its brackets."""

    format = "pinecone"
    ending = ".json"
    tasks = ("embed", "sparse")
    output_types = ("float32", "float16", "int8", "uint8")

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        part.write_bytes(b",\n".join(_objects(self, rows, vectors, made)))

    def join(self, parts: Seq[Path], plan: Any, made: Made) -> list[Path]:
        sizes = [(part, 0, part.stat().st_size) for part in parts]
        with placed_file(self.path) as file:
            file.write(b"[")
            join_lists(file, [piece for piece in sizes if piece[2]])
            file.write(b"]\n")
        return [self.path]


def _objects(output: FileOutput, rows: Rows, vectors: Vectors, made: Made) -> list[bytes]:
    name = vector_name(made)
    return [
        to_json({"id": text_id(one), name: vector, "metadata": metadata})
        for one, vector, metadata in zip(
            rows.ids, json_vectors(vectors, rows, made), metadata_of(output, rows), strict=True
        )
    ]


def vector_name(made: Made) -> str:
    return "sparse_values" if made.task == "sparse" else "values"


def metadata_of(output: FileOutput, rows: Rows) -> list[dict[str, Any]]:
    """As Pinecone takes it, with the text."""
    found = []
    for text, carried in zip(rows.texts, rows.metadata, strict=True):
        for name in carried:
            check_column(name, ("text",), output.name)
        found.append({name: _value(value) for name, value in without_nulls({**carried, "text": text}).items()})
    return found


def _value(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return list(value)
    written = to_json(value).decode()
    # A time or a decimal is a JSON text: without its quotes.
    return written[1:-1] if written.startswith('"') else written
