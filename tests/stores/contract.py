"""What every store must do, against the real one. A store's test file subclasses `StoreContract` and gives `opened`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from lemni.errors import CannotSwitch, StoreError
from lemni.stores.base import Page, Schema, Store

WIDTH = 8
ids = itertools.count()


def page(count: int, *, start: int = 0, seed: int = 0, width: int = WIDTH, names: Callable[[int], Any] = str) -> Page:
    """Entries `start` to `start + count` with unit vectors that `seed` tells apart, and metadata of every usual
    type."""
    vectors = np.random.default_rng(seed).normal(size=(start + count, width)).astype(np.float32)[start:]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = range(start, start + count)
    return Page(
        [names(number) for number in numbers],
        [f"text {number}: naïve Ω 猫 'quoted' \"double\" \\ and\nnew line" for number in numbers],
        [
            {"title": f"T{number}", "year": 1900 + number, "score": number / 8, "good": number % 2 == 0}
            for number in numbers
        ],
        vectors,
    )


def by_id(found: Page) -> dict[Any, tuple[Any, Any]]:
    return {one: (text, data) for one, text, data in zip(found.ids, found.texts, found.metadata, strict=True)}


class StoreContract:
    """`opened(collection)` opens a store for a fresh or existing collection of one and the same place."""

    names: ClassVar[Callable[[int], Any]] = staticmethod(lambda number: f"id-{number:05d}")
    metrics: ClassVar[tuple[str, ...]] = ("cosine", "dot", "l2")
    atol: ClassVar[float] = 1e-6  # of stored vectors
    can_switch: ClassVar[bool] = True
    takes_names: ClassVar[bool] = True  # whether a switch gives a collection the name of another one

    @pytest.fixture
    def opened(self) -> Callable[[str], Store]:
        raise NotImplementedError

    @pytest.fixture
    def store(self, opened: Callable[[str], Store]) -> Store:
        return opened(f"docs{next(ids)}")

    def page(self, count: int, **how: Any) -> Page:
        return page(count, names=type(self).names, **how)

    def wait_for(self, writer: Store) -> None:
        """Until others see what it wrote, where that takes time."""

    def filled(self, store: Store, count: int = 25, seed: int = 0) -> Page:
        store.create(Schema(WIDTH))
        entries = self.page(count, seed=seed)
        store.write(entries)
        return entries

    def test_it_is_not_there_and_then_it_is(self, store: Store) -> None:
        assert not store.exists()
        with pytest.raises(StoreError, match=store.collection):
            store.describe()
        store.create(Schema(WIDTH))
        assert store.exists()
        store.create(Schema(WIDTH))  # again changes nothing
        assert store.count() == 0
        store.drop()
        store.drop()
        assert not store.exists()

    def test_another_schema_is_refused(self, store: Store) -> None:
        self.filled(store, 3)
        with pytest.raises(StoreError, match=r"(?s)8.*16|16.*8"):
            store.create(Schema(16))
        assert store.count() == 3

    def test_what_goes_in_comes_out(self, store: Store) -> None:
        entries = self.filled(store)
        pages = list(store.pages(10, vectors=True))
        assert [len(one) for one in pages] == [10, 10, 5]
        assert [list(one.ids) for one in store.pages(10)] == [list(one.ids) for one in pages]  # a stable order
        assert all(one.vectors is None for one in store.pages(10))
        expected = by_id(entries)
        found: dict[Any, Any] = {}
        for one in pages:
            found.update(by_id(one))
            assert one.vectors is not None
            places = [entries.ids.index(name) for name in one.ids]
            np.testing.assert_allclose(one.vectors, np.asarray(entries.vectors)[places], atol=self.atol)
        assert found == expected
        description = store.describe()
        assert (description.count, store.count()) == (25, 25)
        assert description.schema == Schema(WIDTH)

    def test_pages_go_on_after_an_id(self, store: Store) -> None:
        self.filled(store)
        order = [name for one in store.pages(25) for name in one.ids]
        rest = [name for one in store.pages(4, after=order[9]) for name in one.ids]
        assert rest == order[10:]

    def test_the_same_again_overwrites(self, store: Store) -> None:
        self.filled(store)
        newer = self.page(10, start=20, seed=7)
        store.write(newer)
        assert store.count() == 30
        found = store.fetch(newer.ids)
        assert found.ids == newer.ids
        np.testing.assert_allclose(found.vectors, np.asarray(newer.vectors), atol=self.atol)

    def test_fetch_keeps_the_order_and_leaves_out_what_is_not_there(self, store: Store) -> None:
        entries = self.filled(store)
        missing = type(self).names(99_999)
        found = store.fetch([entries.ids[7], missing, entries.ids[3]])
        assert found.ids == [entries.ids[7], entries.ids[3]]
        assert by_id(found) == {name: by_id(entries)[name] for name in found.ids}

    def test_an_entry_without_text_and_metadata(self, store: Store) -> None:
        store.create(Schema(WIDTH))
        entries = self.page(2)
        store.write(Page(entries.ids, [None, entries.texts[1]], [{}, entries.metadata[1]], entries.vectors))
        found = store.fetch(entries.ids)
        assert found.texts == [None, entries.texts[1]]
        assert found.metadata == [{}, entries.metadata[1]]

    def test_search_finds_the_nearest(self, store: Store) -> None:
        for metric in self.metrics:
            one = store.sibling(f"{store.collection}_{metric}")
            one.create(Schema(WIDTH, metric))  # type: ignore[arg-type]
            entries = self.page(25)
            one.write(entries)
            vectors = np.asarray(entries.vectors)
            expected = np.argsort(-(vectors[:4] @ vectors.T), axis=1, kind="stable")[
                :, :5
            ]  # unit vectors: all metrics agree
            assert one.search(vectors[:4], 5) == [[entries.ids[at] for at in row] for row in expected]
            found = one.describe().schema
            assert found is not None
            assert found.metric == metric

    def test_a_name_is_switched_and_switched_back(self, opened: Callable[[str], Store], store: Store) -> None:
        old = self.filled(store, 5, seed=1)
        new = store.sibling(f"{store.collection}_new")
        entries = self.filled(new, 5, seed=2)
        if not self.can_switch:
            with pytest.raises(CannotSwitch):
                new.switch(store.collection)
            assert store.count() == 5
            return

        def served() -> Any:
            return opened(store.collection).fetch(entries.ids).vectors

        kept = new.switch(store.collection)
        assert kept is not None
        np.testing.assert_allclose(served(), np.asarray(entries.vectors), atol=self.atol)
        np.testing.assert_allclose(opened(kept).fetch(old.ids).vectors, np.asarray(old.vectors), atol=self.atol)
        again = opened(kept).switch(store.collection)
        assert again is not None
        np.testing.assert_allclose(served(), np.asarray(old.vectors), atol=self.atol)
        np.testing.assert_allclose(opened(again).fetch(old.ids).vectors, np.asarray(entries.vectors), atol=self.atol)

    def test_nothing_is_written_of_a_wrong_width(self, store: Store) -> None:
        self.filled(store, 3)
        with pytest.raises(StoreError):
            store.write(self.page(2, start=3, width=WIDTH + 1))
        assert store.count() == 3

    def test_of_two_entries_with_one_id_the_later_stays(self, store: Store) -> None:
        store.create(Schema(WIDTH))
        one, other = self.page(3, seed=1), self.page(3, seed=2)
        store.write(
            Page(
                [*one.ids, *other.ids[:2]],
                [*one.texts, "newer", None],
                [*one.metadata, {"title": "newer"}, {}],
                np.concatenate([np.asarray(one.vectors), np.asarray(other.vectors)[:2]]),
            )
        )
        assert store.count() == 3
        found = store.fetch(one.ids)
        assert found.texts == ["newer", None, one.texts[2]]
        assert found.metadata == [{"title": "newer"}, {}, one.metadata[2]]
        expected = np.concatenate([np.asarray(other.vectors)[:2], np.asarray(one.vectors)[2:]])
        np.testing.assert_allclose(found.vectors, expected, atol=self.atol)

    def test_nothing_is_written_and_nothing_found(self, store: Store) -> None:
        entries = self.filled(store, 3)
        store.write(Page([], [], [], np.empty((0, WIDTH), np.float32)))
        assert store.count() == 3
        for ids in ([], [type(self).names(99_999)]):
            found = store.fetch(ids)
            assert (found.ids, found.texts, found.metadata, len(found.vectors)) == ([], [], [], 0)  # type: ignore[arg-type]
        assert list(store.pages(2, after=[name for one in store.pages(3) for name in one.ids][-1])) == []
        assert store.search(np.asarray(entries.vectors)[:0], 1) == []

    def test_a_text_that_is_no_unicode_is_refused(self, store: Store) -> None:
        """Half of a surrogate pair, as JSON can have it; or it comes back as it was."""
        store.create(Schema(WIDTH))
        entries = self.page(1)
        for text, data in (("\ud800", {}), ("text", {"title": "\ud800"})):
            try:
                store.write(Page(entries.ids, [text], [data], entries.vectors))
            except StoreError:
                assert store.count() == 0
            else:
                assert by_id(store.fetch(entries.ids)) == {entries.ids[0]: (text, data)}
                store.drop()
                store.create(Schema(WIDTH))

    def test_an_id_that_is_asked_for_twice_comes_once(self, store: Store) -> None:
        entries = self.filled(store, 3)
        assert store.fetch([entries.ids[1], entries.ids[0], entries.ids[1]]).ids == [entries.ids[1], entries.ids[0]]

    def test_what_another_one_has_made_is_there(self, opened: Callable[[str], Store], store: Store) -> None:
        """Also where there was no file or folder when this one was opened; and closing one leaves the other."""
        assert not store.exists()
        other = opened(store.collection)
        entries = self.filled(other, 5)
        self.wait_for(other)
        other.close()
        assert store.exists()
        assert store.count() == 5
        assert sorted(store.fetch(entries.ids).ids) == sorted(entries.ids)

    def test_each_call_may_come_from_another_thread(self, store: Store) -> None:
        """As those of a bulk job do, one after the other."""
        entries = self.page(10)

        def elsewhere(call: Callable[[], Any]) -> Any:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(call).result()

        elsewhere(lambda: store.create(Schema(WIDTH)))
        elsewhere(lambda: store.write(entries))
        found = elsewhere(lambda: [name for one in store.pages(4, vectors=True) for name in one.ids])
        assert sorted(found) == sorted(entries.ids)
        assert elsewhere(lambda: store.search(np.asarray(entries.vectors)[:1], 1)) == [[entries.ids[0]]]
        elsewhere(store.close)

    def test_one_is_read_while_another_one_is_written(self, opened: Callable[[str], Store], store: Store) -> None:
        """In two threads, as a migration does."""
        entries = self.filled(store, 40)
        self.wait_for(store)
        new = opened(f"{store.collection}_new")
        new.create(Schema(WIDTH), store)
        parts = [self.page(4, start=start, seed=1) for start in range(0, 40, 4)]
        with ThreadPoolExecutor(1) as thread:
            writing = thread.submit(lambda: [new.write(one) for one in parts])
            read = [name for one in opened(store.collection).pages(2, vectors=True) for name in one.ids]
            writing.result()
        assert sorted(read) == sorted(entries.ids)
        assert new.count() == 40
        found = new.fetch(entries.ids)
        assert found.ids == entries.ids
        np.testing.assert_allclose(found.vectors, np.concatenate([one.vectors for one in parts]), atol=self.atol)

    def test_a_switch_that_is_done_is_not_done_again(self, opened: Callable[[str], Store], store: Store) -> None:
        """Killed before it had the answer, somebody asks again; and whoever has the name has it."""
        if not self.can_switch:
            return
        old = self.filled(store, 5, seed=1)
        new = store.sibling(f"{store.collection}_new")
        entries = self.filled(new, 5, seed=2)
        name = store.collection if self.takes_names else f"{store.collection}_live"
        if not self.takes_names:
            assert store.switch(name) is None
        kept = opened(new.collection).switch(name)
        assert kept is not None
        assert opened(new.collection).switch(name) in (kept, None)
        assert opened(name).switch(name) in (kept, None)
        np.testing.assert_allclose(opened(name).fetch(entries.ids).vectors, np.asarray(entries.vectors), atol=self.atol)
        np.testing.assert_allclose(opened(kept).fetch(old.ids).vectors, np.asarray(old.vectors), atol=self.atol)
        alias = opened(name).describe().alias
        if alias is not None:
            with pytest.raises(StoreError, match=f"is an alias.*{new.collection}"):
                opened(name).drop()
            assert new.count() == 5
