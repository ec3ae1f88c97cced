"""What a source of rows is. One file per kind of input; the table of them is in `lemni.bulk.sources`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from lemni.bulk.rows import Rows


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns mean what.

    Attributes:
        text: what is embedded: texts, or paths of images (relative ones to the input's folder).
        id: what names a row; None takes the column `id` where there is one, else the row's number.
        carry: other columns to keep; None keeps all, () none.
        kind: what the cells of `text` are.
    """

    text: str = "text"
    id: str | None = None
    carry: tuple[str, ...] | None = None
    kind: Literal["text", "image"] = "text"


class Shard(Protocol):
    """Consecutive rows that are computed and written together. Small and picklable: it may be loaded by another process
    on a machine that sees the same files, unless `portable` is false (then it holds its rows).

    Attributes:
        index: 0, 1, 2 ...
    """

    index: int

    def load(self) -> Rows:
        """Read the rows. Equal every time.

        Raises:
            InvalidRequest: the input is not what it was, or cannot be read; names the file and where in it.
        """
        ...


class Source(Protocol):
    """An input. Cutting it into shards is deterministic: the same input and number of rows give the same shards.

    Attributes:
        name: for messages.
        random_access: whether shards can be loaded apart from each other, in any order, by any process; else (standard
            input, a query's rows) they hold their rows and must be consumed one after the other.
    """

    name: str
    random_access: bool

    def identity(self) -> dict[str, Any]:
        """What must be equal when a job is resumed, as JSON: files with their sizes and times, the query. No
        secrets."""
        ...

    def count(self) -> int | None:
        """Number of rows, where that is cheap to know (the footer of a file, a count of the database)."""
        ...

    def size(self) -> int | None:
        """Bytes of the input where that is known; with `Shard` sizes of a sample it estimates the rows."""
        ...

    def shards(self, rows: int) -> Iterator[Shard]:
        """All shards, of `rows` rows each (a file's last one may have fewer), in order, with bounded memory.

        Raises:
            InvalidRequest: a file cannot be read, or lacks the columns; names it and those it has.
        """
        ...


@runtime_checkable
class MayChange(Protocol):
    """A source of which `identity` does not say whether its rows are still the same: a query, standard input.

    Attributes:
        rereadable: whether `shards` may be called more than once.
    """

    rereadable: bool

    def shards(self, rows: int) -> Iterator[Shard]: ...
