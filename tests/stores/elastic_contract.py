"""What holds for Elasticsearch and for OpenSearch beyond the contract of all stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.types import SparseVector
from tests.stores.contract import WIDTH, StoreContract, by_id
from tests.stores.elastic_server import ElasticServer


class ElasticContract(StoreContract):
    flavour: ClassVar[str]
    dense: ClassVar[dict[str, Any]]  # a mapping as somebody else made it
    takes_names = False

    @pytest.fixture
    def server(self) -> Iterator[ElasticServer]:
        server = ElasticServer(self.flavour)
        yield server
        server.close()

    @pytest.fixture
    def opened(self, server: ElasticServer) -> Iterator[Callable[..., Store]]:
        stores = []

        def opened(collection: str, more: str = "") -> Store:
            stores.append(open_store(f"{self.flavour}://127.0.0.1:{server.port}?collection={collection}{more}"))
            return stores[-1]

        yield opened
        for store in stores:
            store.close()
            store.close()

    def test_a_name_is_switched_and_switched_back(self, opened: Callable[[str], Store], store: Store) -> None:
        old = self.filled(store, 5, seed=1)
        new = store.sibling(f"{store.collection}_new")
        entries = self.filled(new, 5, seed=2)
        with pytest.raises(CannotSwitch, match=f"{store.collection} is an index"):  # an alias cannot have its name
            new.switch(store.collection)
        assert store.count() == 5

        name = f"{store.collection}_served"
        assert store.switch(name) is None
        assert store.switch(name) is None  # as it was
        assert opened(name).describe().alias == name
        assert opened(name).describe().collection == store.collection

        def served() -> Any:
            return opened(name).fetch(entries.ids).vectors

        np.testing.assert_allclose(served(), np.asarray(old.vectors), atol=self.atol)
        kept = new.switch(name)
        assert kept == store.collection
        np.testing.assert_allclose(served(), np.asarray(entries.vectors), atol=self.atol)
        np.testing.assert_allclose(opened(kept).fetch(old.ids).vectors, np.asarray(old.vectors), atol=self.atol)
        assert [len(one) for one in opened(name).pages(3)] == [3, 2]
        again = opened(kept).switch(name)
        assert again == new.collection
        np.testing.assert_allclose(served(), np.asarray(old.vectors), atol=self.atol)
        np.testing.assert_allclose(opened(again).fetch(old.ids).vectors, np.asarray(entries.vectors), atol=self.atol)

    def test_a_switch_is_one_request_and_keeps_the_filter(
        self, server: ElasticServer, opened: Callable[[str], Store], store: Store
    ) -> None:
        self.filled(store, 2)
        new = store.sibling(f"{store.collection}_new")
        self.filled(new, 2)
        only_good = {"filter": {"term": {"good": True}}, "search_routing": "1"}
        server.indexes[store.collection].aliases["served"] = dict(only_good)
        del server.http.asked[:]
        assert new.switch("served") == store.collection
        assert server.indexes[new.collection].aliases == {"served": only_good}
        assert server.indexes[store.collection].aliases == {}
        changes = [json.loads(one.body) for one in server.http.asked if one.method not in ("GET", "HEAD")]
        assert len(changes) == 1
        assert [next(iter(action)) for action in changes[0]["actions"]] == ["remove", "add"]

    def test_an_alias_of_several_indices_is_neither_read_nor_switched(
        self, server: ElasticServer, opened: Callable[[str], Store], store: Store
    ) -> None:
        self.filled(store, 2)
        new = store.sibling(f"{store.collection}_new")
        self.filled(new, 2)
        for name in (store.collection, new.collection):
            server.indexes[name].aliases["all"] = {}
        with pytest.raises(StoreError, match="several indices"):
            opened("all").describe()
        with pytest.raises(CannotSwitch, match="several indices"):
            new.switch("all")

    def test_an_alias_is_not_dropped(self, opened: Callable[[str], Store], store: Store) -> None:
        self.filled(store, 2)
        store.switch("served")
        with pytest.raises(StoreError, match=f"drop the index {store.collection}"):
            opened("served").drop()
        assert store.count() == 2

    def test_every_page_size_gives_every_entry_once_in_one_order(self, server: ElasticServer, store: Store) -> None:
        self.filled(store, 60)
        numbers = [number for _, number, _ in server.indexes[store.collection].seen.values()]
        assert len(set(numbers)) < len(
            numbers
        )  # shards have numbers in common, so ends of requests fall between equals
        order = [name for one in store.pages(60) for name in one.ids]
        assert len(set(order)) == 60
        for size in (1, 2, 3, 5, 7, 16, 17, 59, 60, 61):
            assert [name for one in store.pages(size) for name in one.ids] == order
        for at in range(0, 60, 7):
            assert [name for one in store.pages(2, after=order[at]) for name in one.ids] == order[at + 1 :]
        with pytest.raises(StoreError, match="'gone'"):
            next(store.pages(2, after="gone"))
        assert not server.pits  # all closed

    def test_pages_are_those_of_their_beginning(self, server: ElasticServer, store: Store) -> None:
        entries = self.filled(store, 40)
        pages = store.pages(4)
        first = next(pages)
        newer = self.page(45, seed=9)
        store.write(newer)  # all of them get new numbers
        names = [*first.ids, *(name for one in pages for name in one.ids)]
        assert sorted(names) == sorted(entries.ids)

    def test_pages_left_early_close_their_point_in_time(self, server: ElasticServer, store: Store) -> None:
        self.filled(store, 5)
        pages = store.pages(2)
        next(pages)
        assert len(server.pits) == 1
        pages.close()
        assert not server.pits

    def test_an_index_of_somebody_else(self, server: ElasticServer, opened: Callable[..., Store], store: Store) -> None:
        mapping = {"properties": {"body": {"type": "text"}, "emb": self.dense, "tag": {"type": "keyword"}}}
        settings = {"number_of_replicas": 3, **({} if server.elastic else {"knn": True})}
        server.create("theirs", {"settings": {"index": settings}, "mappings": mapping})
        deep = {"tag": "a", "nested": {"list": [1, 2.5, None, {"x": "y"}], "none": None}, "text": 7}
        index = server.indexes["theirs"]
        index.put("a", {"body": "naïve", "emb": [1.0, 2.0, 2.0], **deep})
        index.seen = dict(index.written)
        plain = opened("theirs")
        assert plain.describe().schema is None
        with pytest.raises(StoreError, match=r"has no vector field 'vector'; it has emb"):
            plain.write(self.page(1))
        theirs = opened("theirs", "&text=body&vector=emb")
        assert theirs.describe().schema == Schema(3, "dot")
        found = theirs.fetch(["a"])
        assert (found.texts, found.metadata) == (["naïve"], [deep])
        np.testing.assert_array_equal(found.vectors, np.array([[1, 2, 2]], dtype=np.float32))

        new = theirs.sibling("ours")
        new.create(Schema(4, "l2"), like=theirs)
        made = server.indexes["ours"]
        assert made.settings["number_of_replicas"] == "3"
        fields = made.mappings["properties"]
        assert (fields["body"], fields["tag"]) == ({"type": "text"}, {"type": "keyword"})
        assert new.describe().schema == Schema(4, "l2")
        new.write(Page(found.ids, found.texts, found.metadata, np.ones((1, 4), np.float32)))
        assert by_id(new.fetch(["a"])) == by_id(found)

    def test_sparse_vectors(self, store: Store) -> None:
        schema = Schema(None, "dot", "sparse")
        store.create(schema)
        store.create(schema)
        vectors = [
            SparseVector(np.array([3, 1037, 30000], np.int32), np.array([0.5, 1.25, 2.0], np.float32)),
            SparseVector(np.array([3, 7], np.int32), np.array([1.0, 0.1], np.float32)),
            SparseVector(np.array([9], np.int32), np.array([4.0], np.float32)),
        ]
        entries = self.page(3)
        store.write(Page(entries.ids, entries.texts, entries.metadata, vectors))
        assert store.describe().schema == schema
        for found in (store.fetch(entries.ids), next(store.pages(3, vectors=True))):
            assert by_id(found) == by_id(entries)
            for name, vector in zip(found.ids, found.vectors, strict=True):
                expected = vectors[entries.ids.index(name)]
                np.testing.assert_array_equal(vector.indices, expected.indices)
                np.testing.assert_array_equal(vector.values, expected.values)
        # 3: 0.5 x 0.5 + 2 x 2 = 4.25; 1: 0.5 x 1 = 0.5; 2 has no term in common
        query = SparseVector(np.array([3, 30000], np.int32), np.array([0.5, 2.0], np.float32))
        assert store.search([query], 5) == [[entries.ids[0], entries.ids[1]]]
        negative = SparseVector(np.array([1], np.int32), np.array([-1.0], np.float32))
        with pytest.raises(StoreError, match=repr(entries.ids[0])):
            store.write(Page(entries.ids[:1], [None], [{}], [negative]))

    def test_a_vector_that_cannot_be_held_is_named_and_nothing_is_written(self, store: Store) -> None:
        self.filled(store, 2)
        for wrong in (0.0, np.nan):
            bad = self.page(3, start=2)
            np.asarray(bad.vectors)[1] = wrong
            with pytest.raises(StoreError, match=repr(bad.ids[1])):
                store.write(bad)
        assert store.count() == 2
        dot = store.sibling(f"{store.collection}_dot")
        dot.create(Schema(WIDTH, "dot"))
        dot.write(Page(["zero", "long"], [None] * 2, [{}] * 2, np.array([[0.0] * WIDTH, [9.0] * WIDTH], np.float32)))
        assert dot.search(np.ones((1, WIDTH), np.float32), 2) == [["long", "zero"]]

    def test_entries_that_the_server_refuses_are_named(self, store: Store) -> None:
        self.filled(store, 2)
        bad = self.page(2, start=2)
        bad.metadata[1]["year"] = "unknown"  # a number in the others
        with pytest.raises(StoreError, match=rf"(?s)1 of 2 entries.*{bad.ids[1]!r}.*year.*unknown"):
            store.write(bad)
        assert store.fetch(bad.ids).ids == bad.ids[:1]

    def test_metadata_under_the_name_of_text_or_vector_is_refused(self, store: Store) -> None:
        store.create(Schema(WIDTH))
        for field in ("text", "vector"):
            with pytest.raises(StoreError, match=f"'id-00000'.*'{field}'"):
                store.write(Page(["id-00000"], [None], [{field: "x"}], np.ones((1, WIDTH), np.float32)))
        with pytest.raises(StoreError, match="514 bytes"):
            store.write(Page(["Ω" * 257], [None], [{}], np.ones((1, WIDTH), np.float32)))
        assert store.count() == 0

    def test_texts_that_look_like_dates_stay_texts(self, server: ElasticServer, store: Store) -> None:
        store.create(Schema(WIDTH))
        assert server.indexes[store.collection].mappings["date_detection"] is False

    def test_writing_makes_no_index(self, server: ElasticServer, store: Store) -> None:
        with pytest.raises(StoreError, match="there is no such index"):
            store.write(self.page(1))
        assert not server.indexes

    @pytest.mark.parametrize("name", ["*", "a,b", "_all", "", "<docs-{now}>", "a b"])
    def test_a_name_that_means_several_indices_is_none(self, opened: Callable[..., Store], name: str) -> None:
        with pytest.raises(StoreError, match="no name of an index"):
            opened(name)
        store = opened("docs")
        self.filled(store, 2)
        with pytest.raises(StoreError, match="no name of an index"):
            store.switch(name)

    def test_an_alias_may_have_capitals_and_an_index_not(self, opened: Callable[..., Store], store: Store) -> None:
        self.filled(store, 2)
        assert store.switch("Docs") is None
        assert opened("Docs").count() == 2
        with pytest.raises(StoreError, match=r"Invalid index name \[Other\]"):
            opened("Other").create(Schema(WIDTH))

    def test_an_empty_page_is_written(self, store: Store) -> None:
        self.filled(store, 2)
        store.write(Page([], [], [], np.zeros((0, 0), np.float32)))
        assert store.count() == 2

    def test_options(self, opened: Callable[..., Store]) -> None:
        with pytest.raises(StoreError, match="neither true nor false"):
            opened("docs", "&https=yes")
        with pytest.raises(StoreError, match="without dots"):
            opened("docs", "&vector=a.b")
        with pytest.raises(StoreError, match=r"ca_certs=/none\.pem is no file"):
            opened("docs", "&ca_certs=/none.pem")
        with pytest.raises(StoreError, match="unknown option 'colour'"):
            opened("docs", "&colour=red")

    def test_a_large_write_is_cut_by_its_bytes(
        self, server: ElasticServer, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(f"lemni.stores.{self.flavour}.BULK_BYTES", 2_000)
        store.create(Schema(WIDTH))
        entries = self.page(30)
        store.write(entries)
        sent = [one for one in server.http.asked if one.path == ["_bulk"]]
        assert len(sent) > 5
        assert all(len(one.body) <= 2_000 for one in sent)
        assert sorted(name for one in store.pages(30) for name in one.ids) == sorted(entries.ids)
