"""What is migrated: a collection, or files, as the input of a bulk job and as pages to look through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lemni.bulk.rows import Rows
from lemni.bulk.sources.base import Shard, Source
from lemni.migrate.connection import Connection
from lemni.migrate.joined import JoinedTexts
from lemni.stores.base import Page


class Side(Source, Protocol):
    """The old side: an input whose entries can be looked through as those of a store.

    Attributes:
        connection: None where it is no store.
    """

    connection: Connection | None

    def pages(self, size: int, *, vectors: bool = False) -> Iterator[Page]: ...


@dataclass(slots=True)
class HeldShard:
    """Rows that were read already; they hold no more than the entries of a shard."""

    index: int
    rows: Rows
    portable: bool = False

    def load(self) -> Rows:
        return self.rows


class StoreSource:
    """A collection as the input of a bulk job: rows in the order of its pages, with its ids and its metadata.

    Args:
        joined: texts for entries that have none in the store.
    """

    random_access = False

    def __init__(self, connection: Connection, joined: JoinedTexts | None = None) -> None:
        self.connection: Connection | None = connection
        self._connection, self._joined = connection, joined
        self.name = connection.name

    def identity(self) -> dict[str, Any]:
        return {"store": self.name, "texts": None if self._joined is None else self._joined.identity()}

    def count(self) -> int | None:
        return self._connection.ask(lambda store: store.count())

    def size(self) -> int | None:
        return None

    def pages(self, size: int, *, vectors: bool = False) -> Iterator[Page]:
        for page in self._connection.pages(size, vectors=vectors):
            yield page if self._joined is None else self._with_texts(page, self._joined)

    def shards(self, rows: int) -> Iterator[Shard]:
        yield from shards_of(self.pages(rows), rows)

    def _with_texts(self, page: Page, joined: JoinedTexts) -> Page:
        missing = [at for at, text in enumerate(page.texts) if is_missing(text)]
        texts = list(page.texts)
        for at, text in zip(missing, joined.of([page.ids[at] for at in missing]), strict=True):
            texts[at] = text
        return replace(page, texts=texts)


class FileSide:
    """Files that `lemni embed` reads, as the old side."""

    connection: Connection | None = None

    def __init__(self, source: Source) -> None:
        self._source = source
        self.name, self.random_access = source.name, source.random_access
        self.identity, self.count, self.size, self.shards = source.identity, source.count, source.size, source.shards

    def pages(self, size: int, *, vectors: bool = False) -> Iterator[Page]:
        for shard in self._source.shards(size):
            rows = shard.load()
            texts = [item if isinstance(item, str) else None for item in rows.items]
            yield Page(rows.ids, texts, rows.metadata)


def is_missing(text: str | None) -> bool:
    """Whether there is nothing to embed."""
    return text is None or not text.strip()


def shards_of(pages: Iterator[Page], rows: int) -> Iterator[HeldShard]:
    """Exactly `rows` entries in each but the last, whatever the sizes of the pages."""
    index, ids, texts, metadata = 0, [], [], []  # type: ignore[var-annotated]

    def shard(count: int) -> HeldShard:
        held = Rows(index * rows, ids[:count], list(texts[:count]), texts[:count], metadata[:count])
        del ids[:count], texts[:count], metadata[:count]
        return HeldShard(index, held)

    for page in pages:
        ids += page.ids
        texts += page.texts
        metadata += page.metadata
        while len(ids) >= rows:
            yield shard(rows)
            index += 1
    if ids:
        yield shard(len(ids))
