"""`--format chroma`: `chroma_data.json` = `{"ids", "documents", "embeddings", "metadatas"}`, what `collection.add` of
Chroma takes, as `migrate_embeddings.py` writes it: in the folder `chroma_export/`, or in the one that is named.

Chroma's ids are texts: whole numbers, which rows have that came without an id, become doc_0, doc_1 ... Metadata has no
nulls, which Chroma refuses.

A part has the four lists without their brackets, each on a line, and before them a line with the lines' lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import placed_file, slices
from lemni.bulk.outputs.file import FileOutput
from lemni.bulk.outputs.lines import json_vectors, to_json
from lemni.bulk.rows import Id, Rows, Vectors

FOLDER = "chroma_export"
FILE = "chroma_data.json"
_LISTS = ("ids", "documents", "embeddings", "metadatas")


class ChromaJson(FileOutput):
    format = "chroma"
    ending = ".json"
    tasks = ("embed",)
    output_types = ("float32", "float16", "int8", "uint8")

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        lists: list[list[Any]] = [
            [text_id(one) for one in rows.ids],
            rows.texts,
            json_vectors(vectors, rows, made),
            [without_nulls(carried) for carried in rows.metadata],
        ]
        lines = [b",".join(to_json(one) for one in some) for some in lists]
        with part.open("wb") as file:
            file.write(orjson.dumps([len(line) for line in lines]) + b"\n")
            file.writelines(line + b"\n" for line in lines)

    def join(self, parts: Seq[Path], plan: Any, made: Made) -> list[Path]:
        places = [(part, _lines(part)) for part in parts]
        filled = [(part, lines) for part, lines in places if lines[0][0] < lines[0][1]]
        with placed_file(self.path) as file:
            for number, name in enumerate(_LISTS):
                file.write(b"%s%s: [" % (b", " if number else b"{", to_json(name)))
                join_lists(file, [(part, *lines[number]) for part, lines in filled])
                file.write(b"]")
            file.write(b"}\n")
        return [self.path]


def join_lists(file: BinaryIO, pieces: Seq[tuple[Path, int, int]]) -> None:
    """Lists without brackets, none of them empty, each from one byte of a file to another, as one."""
    for number, (part, start, stop) in enumerate(pieces):
        if number:
            file.write(b",")
        for some in slices(part, start, stop):
            file.write(some)


def text_id(one: Id) -> str:
    return one if isinstance(one, str) else f"doc_{one}"


def without_nulls(carried: dict[str, Any]) -> dict[str, Any]:
    """Nor numbers that are null in JSON."""
    return {
        name: value
        for name, value in carried.items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }


def _lines(part: Path) -> list[tuple[int, int]]:
    """Where each list begins and ends."""
    with part.open("rb") as file:
        first = file.readline()
    places, at = [], len(first)
    for length in orjson.loads(first):
        places.append((at, at + length))
        at += length + 1
    return places
