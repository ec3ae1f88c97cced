"""What travels from a source to an output: rows with an id, something to embed, and whatever else stood beside it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from lemni.types import Image, SparseVector

Id: TypeAlias = str | int
Vectors: TypeAlias = NDArray[Any] | Seq[SparseVector] | Seq[NDArray[Any]]
"""[rows, dimensions] of any number type, or for each row a `SparseVector` or a matrix [tokens, dimensions]."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A cell that cannot be embedded, and why: "is not JSON: ...", "no such file". Goes to the rejects."""

    reason: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Consecutive rows of an input.

    Attributes:
        first: number of the first one in the whole input, from 0.
        ids: from the id column; else the rows' numbers.
        items: what is embedded. None is a null; a text may be empty: whether that is embedded is up to the job.
        texts: the cells as they stood in the input: the text itself, or the path of an image.
        metadata: the other columns of each row that are carried along, by name.
        schema: pyarrow.Schema of those, where the source knows their types.
        vectors: float32 [rows, dimensions] that the rows had already (a store's), where they were asked for.
    """

    first: int
    ids: list[Id]
    items: list[str | Image | Broken | None]
    texts: list[str | None]
    metadata: list[dict[str, Any]]
    schema: Any = None
    vectors: NDArray[Any] | None = field(default=None)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Iterable[int]) -> Rows:
        """Some of the rows, by their places from 0. `first` stays."""
        chosen = list(places)
        return Rows(
            self.first,
            [self.ids[at] for at in chosen],
            [self.items[at] for at in chosen],
            [self.texts[at] for at in chosen],
            [self.metadata[at] for at in chosen],
            self.schema,
            None if self.vectors is None else self.vectors[chosen],
        )
