""".jsonl and .ndjson: an object per row, `{"id", "text", …carried columns, "embedding"}`.

A dense vector is a list of numbers, a sparse one `{"indices": [], "values": []}`, multi-vectors a list of lists.
Numbers are written with as many digits as tell a float32 from its neighbours. What JSON has not is written as text
(times as ISO 8601, decimals, bytes as base64); NaN is null.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import place_copy, placed_file, slices
from lemni.bulk.outputs.file import FileOutput, check_column
from lemni.bulk.outputs.flat import numbers
from lemni.bulk.rows import Rows, Vectors
from lemni.types import SparseVector

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class JsonLines(FileOutput):
    format = "jsonl"
    ending = ".jsonl"

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        values = json_vectors(vectors, rows, made)
        reserved = ("id", "text", self.vector_column)
        with part.open("wb") as file:
            for one, text, carried, vector in zip(rows.ids, rows.texts, rows.metadata, values, strict=True):
                for name in carried:
                    check_column(name, reserved, self.name)
                file.write(to_json({"id": one, "text": text, **carried, self.vector_column: vector}) + b"\n")

    def join(self, parts: Seq[Path], plan: Any, made: Made) -> list[Path]:
        if len(parts) == 1:
            place_copy(parts[0], self.path)
            return [self.path]
        with placed_file(self.path) as file:
            for part in parts:
                for some in slices(part, 0, part.stat().st_size):
                    file.write(some)
        return [self.path]


def json_vectors(vectors: Vectors, rows: Rows, made: Made) -> list[Any]:
    """A vector per row, as `to_json` takes it.

    Raises:
        ValueError: vectors that are not those of `made`.
    """
    if len(vectors) != len(rows):
        raise ValueError(f"{len(vectors)} vectors for {len(rows)} rows")
    if made.task == "sparse":
        return [one._asdict() if isinstance(one, SparseVector) else one for one in vectors]
    return [numbers(np.asarray(one), made) for one in vectors]


def to_json(value: Any) -> bytes:
    """Without line breaks. Objects' keys become texts."""
    try:
        return orjson.dumps(value, default=_as_json, option=_OPTIONS)
    except TypeError:
        # orjson refuses whole numbers over 64 bits and lone surrogates.
        return json.dumps(_plain(value), separators=(",", ":")).encode()


def _as_json(value: Any) -> Any:
    """What stands for something that JSON has not."""
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def _plain(value: Any) -> Any:
    """The same value of nothing but what the standard library's json writes as orjson does."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    return json.loads(orjson.dumps(value, default=_as_json, option=_OPTIONS))
