"""What an output of vectors is. One file per format; the table of them is in `lemni.bulk.outputs`."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lemni.bulk.rows import Rows, Vectors
from lemni.types import Task


@dataclass(frozen=True, slots=True)
class Made:
    """What vectors a job makes.

    Attributes:
        task: "embed", "sparse" or "multi_vector".
        dimensions: of a vector as numbers of the model; None for sparse ones. With `binary` and `ubinary` the arrays
            are an eighth as wide.
        dtype: numpy's name of the numbers as they are written: float32, float16, int8, uint8.
        output_type: as the caller chose it: float32, float16, int8, uint8, binary or ubinary.
        similarity: what the model's vectors are compared by: cosine, dot, euclidean.
        model: its name, and with `revision` which one.
        vocabulary: number of terms of sparse vectors.
    """

    task: Task
    dimensions: int | None
    dtype: str
    output_type: str
    similarity: str
    model: str
    revision: str | None = None
    vocabulary: int = 0


class Output(Protocol):
    """Where vectors go. Calls come from one thread at a time, of any process; an output is picklable.

    Attributes:
        name: for messages; no secrets.
        direct: whether `write` puts rows where they are to stay (a store). Then equal ids are overwritten and
            `assemble` has nothing to join.
    """

    name: str
    direct: bool

    def identity(self) -> dict[str, Any]:
        """What must be equal when a job is resumed, as JSON. No secrets."""
        ...

    def files(self) -> list[Path]:
        """All files that `assemble` may write or remove, the main one first; of a folder of files those that are there,
        or the first. None of a direct output."""
        ...

    def prepare(self, made: Made) -> None:
        """Before the first row, and again before a resumed job's: refuse what this format cannot hold, create the
        collection. Idempotent.

        Raises:
            InvalidRequest: names the format and what it holds.
            MissingExtra: an optional package is needed.
        """
        ...

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        """One shard's rows, which may be none. A format writes the file `part` (its name is free, its folder exists);
        the job renames it afterwards, so it may be left half-written by a crash. A direct output writes no file and has
        the rows stored durably on return; the same shard may come again.
        """
        ...

    def assemble(self, parts: Seq[Path], made: Made) -> list[Path]:
        """Join the parts, in order, into the output in bounded memory: written beside its place, flushed to disk and
        moved there. The same parts give the same bytes. Returns the files that there are now. Idempotent.
        """
        ...


@runtime_checkable
class KeepsRows(Protocol):
    """A direct output, whose rows others may remove."""

    def has(self, count: int) -> bool:
        """Whether there are at least so many rows."""
        ...
