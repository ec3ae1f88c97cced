"""What the new side lacks or has otherwise, as the input of a bulk job: catching up with a source that lives on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lemni.bulk.sources.base import Shard
from lemni.migrate.connection import Connection
from lemni.migrate.source import Side, shards_of
from lemni.stores import as_id
from lemni.stores.base import Page

_PAGE = 256


def is_same(there: tuple[str | None, dict[str, Any]] | None, text: str | None, data: dict[str, Any]) -> bool:
    """Whether an entry is stored as it should be; a store may leave out what is null or an empty list."""
    return there is not None and there[0] == text and _said(there[1]) == _said(data)


def _said(data: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None and value != []}


class Difference:
    """Entries of a source that a collection does not have, or with another text or other metadata. Nothing that only
    the collection has is touched."""

    random_access = False

    def __init__(self, source: Side, target: Connection) -> None:
        self._source, self._target = source, target
        self.name = f"what {target.name} lacks of {source.name}"

    def identity(self) -> dict[str, Any]:
        return {"catch_up": self._source.identity()}

    def count(self) -> int | None:
        return None

    def size(self) -> int | None:
        return None

    def shards(self, rows: int) -> Iterator[Shard]:
        # The job writes to the collection while this reads from it, in another thread.
        target = Connection(self._target.place)
        try:
            yield from shards_of(self._pages(target), rows)
        finally:
            target.close()

    def _pages(self, target: Connection) -> Iterator[Page]:
        for page in self._source.pages(_PAGE):
            id_type, name = target.store.id_type, target.name
            ids = [as_id(one, id_type, name) for one in page.ids]
            there = target.ask(lambda store, ids=ids: store.fetch(ids, vectors=False))  # type: ignore[misc]
            known = dict(zip(there.ids, zip(there.texts, there.metadata, strict=True), strict=True))
            entries = zip(ids, page.texts, page.metadata, strict=True)
            places = [at for at, (one, text, data) in enumerate(entries) if not is_same(known.get(one), text, data)]
            if places:
                yield replace(
                    page,
                    ids=[page.ids[at] for at in places],
                    texts=[page.texts[at] for at in places],
                    metadata=[page.metadata[at] for at in places],
                )
