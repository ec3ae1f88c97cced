"""Rows and vectors to write, and the way a job writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lemni.bulk.outputs import Made, Output
from lemni.bulk.rows import Id, Rows, Vectors
from lemni.types import SparseVector

WIDTH = 16
DTYPES = {"binary": "int8", "ubinary": "uint8"}
TYPES = ("float32", "float16", "int8", "uint8", "binary", "ubinary")

Shard = tuple[Rows, Vectors]


def dense(output_type: str = "float32") -> Made:
    return Made("embed", WIDTH, DTYPES.get(output_type, output_type), output_type, "cosine", "some/model", "abc123")


SPARSE = Made("sparse", None, "float32", "float32", "dot", "some/sparse", None, 1000)
MULTI = Made("multi_vector", WIDTH, "float32", "float32", "cosine", "some/colbert")


def rows(first: int, count: int, *, ids: Sequence[Id] | None = None, **columns: list[Any]) -> Rows:
    """With the rows' numbers as ids, if none are given, and columns of `count` cells each."""
    numbers = range(first, first + count)
    texts: list[str | None] = [f'text {number}: naïve Ω 猫 "quoted"\nline' for number in numbers]
    metadata = [{name: cells[at] for name, cells in columns.items()} for at in range(count)]
    return Rows(first, list(numbers if ids is None else ids), list(texts), texts, metadata)


def vectors(count: int, made: Made, seed: int = 0) -> Vectors:
    draw = np.random.default_rng(seed)
    if made.task == "sparse":
        return [_terms(draw) for _ in range(count)]
    if made.task == "multi_vector":
        return [draw.normal(size=(at % 4, WIDTH)).astype(made.dtype) for at in range(count)]
    width = WIDTH // 8 if "binary" in made.output_type else WIDTH
    if made.dtype.startswith("float"):
        return draw.normal(size=(count, width)).astype(made.dtype)
    about = np.iinfo(made.dtype)
    return draw.integers(about.min, about.max, size=(count, width), dtype=made.dtype, endpoint=True)


def _terms(draw: np.random.Generator) -> SparseVector:
    indices = np.sort(draw.choice(1000, size=draw.integers(0, 6), replace=False)).astype(np.int32)
    return SparseVector(indices, draw.random(len(indices), dtype=np.float32) + 0.01)


def shards(made: Made, *counts: int, **how: Any) -> list[Shard]:
    found, first = [], 0
    for number, count in enumerate(counts):
        found.append((rows(first, count, **how), vectors(count, made, number)))
        first += count
    return found


def parts(output: Output, given: Sequence[Shard], made: Made, folder: Path) -> list[Path]:
    """What the shards' `write` gives, each file named as the job names it."""
    folder.mkdir(parents=True, exist_ok=True)
    output.prepare(made)
    found = []
    for number, (some, vectors) in enumerate(given):
        part = folder / f"{number:06d}.part"
        draft = part.with_suffix(".draft")
        output.write(draft, some, vectors, made)
        draft.replace(part)
        found.append(part)
    return found


def written(output: Output, given: Sequence[Shard], made: Made, folder: Path) -> list[Path]:
    """The files of a whole job."""
    return output.assemble(parts(output, given, made, folder), made)


def stacked(given: Sequence[Shard]) -> Any:
    """All dense vectors [rows, width]."""
    return np.concatenate([np.asarray(vectors) for _, vectors in given])


def listed(given: Sequence[Shard]) -> list[Any]:
    """A vector per row."""
    return [vector for _, vectors in given for vector in vectors]


def ids(given: Sequence[Shard]) -> list[Id]:
    return [one for some, _ in given for one in some.ids]
