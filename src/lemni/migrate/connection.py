"""A store that is opened again when it was away for a moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Id, Page, Store
from lemni.stores.place import Place

_log = logging.getLogger(__name__)
_Found = TypeVar("_Found")

WAITS_S = (0.5, 1.0, 2.0, 4.0)
"""Before each further try. What a restart takes longer than, the same command resumes."""


class StoreLost(StoreError):
    """A store failed in the middle, and again when it was asked again. What it had said it has written it has."""

    code = "store_lost"
    retryable = True


class Connection:
    """One collection. Used from one thread at a time, like the store in it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._store: Store | None = None

    @property
    def name(self) -> str:
        return str(self.place)

    @property
    def store(self) -> Store:
        """Opened. Raises StoreError."""
        if self._store is None:
            self._store = open_store(self.place)
        return self._store

    def other(self, collection: str) -> Connection:
        return Connection(replace(self.place, collection=collection))

    def ask(self, action: Callable[[Store], _Found]) -> _Found:
        """What `action` gives, which may be done several times.

        Raises:
            StoreError: Lemni's own check of what was asked for failed.
            StoreLost: the store failed each time.
        """
        for wait in (*WAITS_S, None):
            try:
                return action(self.store)
            except CannotSwitch:
                raise
            except StoreError as error:
                if error.__cause__ is None:  # nothing that the store has said, and nothing that time mends
                    raise
                if wait is None:
                    raise StoreLost(error.message) from error
                _log.warning("%s; trying again in %g s", error.message, wait)
                self.close()
                time.sleep(wait)
        raise AssertionError("unreachable")

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        """As `Store.pages`; goes on behind the last page where the store was away."""
        pages: Iterator[Page] | None = None

        def following(store: Store) -> Page | None:
            nonlocal pages
            if pages is None:
                pages = store.pages(size, vectors=vectors, after=after)
            try:
                return next(pages, None)
            except BaseException:
                pages = None
                raise

        while (page := self.ask(following)) is not None:
            if page.ids:
                after = page.ids[-1]
                yield page

    def close(self) -> None:
        """Idempotent; a store that is away cannot be told."""
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except Exception as error:
                _log.debug("closing %s: %s", self.place, error)
