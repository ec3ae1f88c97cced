"""What a vector store is to Lemni: pages out, batches in, and a name that is switched from one collection to another.

One file per store, each over its official client; the table of them is in `lemni.stores`. A *collection* is whatever
the store calls it: collection, table, index, namespace, key.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lemni.types import SparseVector

Id: TypeAlias = str | int
Metric: TypeAlias = Literal["cosine", "dot", "l2"]
VectorKind: TypeAlias = Literal["dense", "sparse", "multi_vector"]


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a collection, in the store's stable order (by id, or as it keeps them).

    Attributes:
        ids: as the store has them, in its own type.
        texts: what was embedded, from the store's document, payload or text field; None where an entry has none.
        metadata: everything else of each entry but its vector, exactly.
        vectors: float32 [entries, dimensions], or a list of sparse or of multi-vectors; None if they were not asked
            for.
    """

    ids: list[Id]
    texts: list[str | None]
    metadata: list[dict[str, Any]]
    vectors: NDArray[np.float32] | Seq[SparseVector] | Seq[NDArray[np.float32]] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a collection holds.

    Attributes:
        dimensions: of its dense or multi-vectors; None for sparse ones.
        metric: how it compares them.
        kind: what a vector is.
    """

    dimensions: int | None
    metric: Metric = "cosine"
    kind: VectorKind = "dense"


@dataclass(frozen=True, slots=True)
class Description:
    """A collection as it is.

    Attributes:
        collection: its own name; behind an alias, of what the alias points to.
        count: entries.
        schema: None if it is empty and the store cannot say.
        alias: the name it was asked for by, if that is an alias.
        notes: what a person should know, such as an index that is built in the background.
    """

    collection: str
    count: int
    schema: Schema | None
    alias: str | None = None
    notes: tuple[str, ...] = field(default=())


class Store(Protocol):
    """One collection in one store. Opened by `lemni.stores.open_store`; nothing is created by opening. Not thread-safe.

    Every method raises StoreError (a LemniError) with the store's own words where it fails, MissingExtra where the
    client package is not installed.

    Attributes:
        name: for messages, such as "qdrant://localhost:6333, collection docs"; no secrets.
        collection: what it was opened for.
        kinds: what it can hold.
        id_type: "any" (text and whole numbers), "str" (numbers become texts), "int", or "uuid-or-int". `write` converts
            by `as_id` and refuses what cannot be converted, naming the id.
    """

    name: str
    collection: str
    kinds: tuple[VectorKind, ...]
    id_type: str

    def exists(self) -> bool: ...

    def describe(self) -> Description:
        """Raises StoreError if there is no such collection, and names those there are."""
        ...

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        """All entries in a stable order, `size` at a time, in bounded memory; with `after` those behind that id.
        A collection that does not change gives the same pages every time."""
        ...

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        """The entries with these ids that there are, each once, in the order of `ids`."""
        ...

    def sibling(self, collection: str) -> Store:
        """Another collection (or column) of the same store, which may not exist yet."""
        ...

    def create(self, schema: Schema, like: Store | None = None) -> None:
        """Make this collection with an index for `schema`, its other settings (payload indexes, replication, columns)
        as `like`'s, a collection of the same kind of store, where the store has such. If it exists with this schema,
        leave it.

        Raises:
            StoreError: it exists with another schema: names both.
        """
        ...

    def write(self, page: Page) -> None:
        """Insert the entries, or overwrite those with the same ids; of two with one id the later stays. Durable on
        return. `page.vectors` are there."""
        ...

    def count(self) -> int:
        """Entries now, exactly."""
        ...

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        """The ids of the nearest `k` entries for each query (dense [queries, dimensions], or a list as in `Page`),
        nearest first."""
        ...

    def switch(self, name: str) -> str | None:
        """From now on whoever asks for `name` gets this collection: by an alias where the store has aliases, else by
        renaming both inside one transaction or as near to one as the store allows.

        Returns:
            The collection name under which what `name` meant before is kept: `sibling(it).switch(name)` undoes this.
            None if `name` meant nothing before, or this collection already.

        Raises:
            CannotSwitch: the store has no way to do it; the message says what to change in the application.
        """
        ...

    def drop(self) -> None:
        """Remove the collection with all entries. No error if there is none.

        Raises:
            StoreError: the name is an alias, whose collection may be in use: names that.
        """
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


@runtime_checkable
class Finishes(Protocol):
    """A store that leaves something for the end while many entries come, such as PostgreSQL's index."""

    def finish(self) -> None:
        """Do it now. Idempotent."""
        ...
