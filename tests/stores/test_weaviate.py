"""Weaviate: the contract and its own traits through the real client, against a stand-in (`weaviate_server.py`) that
answers as Weaviate documents, since no package has the server."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from tests.stores.contract import WIDTH, StoreContract, ids, page
from tests.stores.weaviate_server import HNSW, Standin, weaviate_standin

Opened = Callable[[str], Store]


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    with weaviate_standin() as standin:
        yield standin


@pytest.fixture
def opened(standin: Standin) -> Iterator[Opened]:
    stores: list[Store] = []

    def opened(address: str) -> Store:
        stores.append(
            open_store(f"weaviate://127.0.0.1:{standin.port}?collection={address}&grpc_port={standin.grpc_port}")
        )
        return stores[-1]

    yield opened
    for one in stores:
        one.close()
        one.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened(f"Docs{next(ids)}")


def vectors(one: Page) -> Any:
    return np.asarray(one.vectors)


class TestContract(StoreContract):
    takes_names = False

    @pytest.fixture
    def opened(self, standin: Standin) -> Opened:
        where = f"weaviate://127.0.0.1:{standin.port}?grpc_port={standin.grpc_port}"
        return lambda collection: open_store(f"{where}&collection={collection}")

    def test_a_name_is_switched_and_switched_back(self, opened: Opened, store: Store) -> None:
        """It begins with an alias: Weaviate's cannot have the name of a collection."""
        old = self.filled(store, 5, seed=1)
        new = store.sibling(f"{store.collection}_new")
        entries = self.filled(new, 5, seed=2)
        alias = f"live{store.collection}"

        def served() -> Any:
            return opened(alias).fetch(entries.ids).vectors

        assert store.switch(alias) is None
        np.testing.assert_allclose(served(), np.asarray(old.vectors), atol=self.atol)
        for incoming, outgoing, expected in ((new, store, entries), (store, new, old)):
            assert incoming.switch(alias) == outgoing.collection
            np.testing.assert_allclose(served(), np.asarray(expected.vectors), atol=self.atol)
            description = opened(alias).describe()
            assert (description.collection, description.alias) == (incoming.collection, f"L{alias[1:]}")
            assert incoming.switch(alias) is None  # again changes nothing
        with pytest.raises(CannotSwitch, match=rf"'{store.collection}' is a collection.*\?collection=ALIAS"):
            new.switch(store.collection)
        np.testing.assert_allclose(store.fetch(old.ids).vectors, np.asarray(old.vectors), atol=self.atol)


def test_the_first_letter_is_a_capital(opened: Opened, standin: Standin) -> None:
    one = opened(f"small{next(ids)}")
    one.create(Schema(WIDTH))
    assert one.collection == one.describe().collection
    assert one.collection in standin.schema
    assert one.collection.startswith("Small")


def test_metadata_is_not_taken_for_a_text_or_an_id(store: Store) -> None:
    store.create(Schema(WIDTH))
    one = page(1)
    for text, data, why in (
        (None, {"text": "a title"}, "would be taken for it"),
        ("text", {"text": "a title"}, "its text would stand there"),
        ("text", {"_lemni_id": "7"}, "has metadata '_lemni_id'"),
    ):
        with pytest.raises(StoreError, match=f"entry '0'.*{why}"):
            store.write(replace(one, texts=[text], metadata=[data]))
    assert store.count() == 0


def test_every_kind_of_id_comes_back(store: Store, standin: Standin) -> None:
    own = [str(uuid.UUID(int=5)), str(uuid.UUID(int=2**100))]
    every: list[Any] = [*own, "7", 7, "", "Ω 猫", -3, 2**70, str(uuid.UUID(int=0xABC)).upper()]
    store.create(Schema(WIDTH))
    store.write(replace(page(len(every)), ids=every))
    found = store.fetch(every[::-1])
    assert found.ids == every[::-1]
    assert found.metadata == page(len(every)).metadata[::-1]
    order = [one for part in store.pages(4) for one in part.ids]
    assert sorted(map(repr, order)) == sorted(map(repr, every))
    assert [one.ids for one in store.pages(20, after=order[4])] == [order[5:]]
    assert store.search(vectors(found)[:2], 1) == [[every[-1]], [every[-2]]]
    kept = standin.objects[store.collection]
    assert all(("_lemni_id" in values) == (one not in own) for one, (values, _) in kept.items())
    assert set(own) < set(kept)


def test_metadata_has_the_types_it_came_with(store: Store, standin: Standin) -> None:
    store.create(Schema(WIDTH))
    data = {
        "i": 3,
        "f": 2.0,
        "b": True,
        "s": "2020-01-01T00:00:00Z",
        "is": [1, 2],
        "fs": [1.5, 2.0],
        "bs": [True],
        "ss": ["x"],
    }
    store.write(replace(page(2), metadata=[{**data, "none": None, "empty": []}, {"i": 4}]))
    found = store.fetch(["0", "1"]).metadata
    assert found == [data, {"i": 4}]
    assert {key: type(value) for key, value in found[0].items()} == {key: type(value) for key, value in data.items()}
    kinds = {one["name"]: one["dataType"] for one in standin.schema[store.collection]["properties"]}
    assert (kinds["i"], kinds["f"], kinds["is"], kinds["fs"], kinds["s"]) == (
        ["int"], ["number"], ["int[]"], ["number[]"], ["text"],
    )  # fmt: skip


def test_what_weaviate_would_change_is_refused(store: Store) -> None:
    store.create(Schema(WIDTH))
    for data in ({"Title": 1}, {"a-b": 1}, {"id": "x"}, {"deep": {"a": 1}}, {"big": 2**53 + 1}, {"n": float("nan")}):
        with pytest.raises(StoreError, match=f"entry '1' has metadata '{next(iter(data))}'"):
            store.write(replace(page(2), metadata=[{}, data]))
    with pytest.raises(StoreError, match="'k' are int and text"):
        store.write(replace(page(2), metadata=[{"k": 1}, {"k": "x"}]))
    with pytest.raises(StoreError, match=r"entry '0' has metadata 'text'.*text=FIELD"):
        store.write(replace(page(1), metadata=[{"text": "other"}]))
    assert store.count() == 0
    store.write(replace(page(2), metadata=[{"k": 1}, {"k": 1.5}]))
    assert store.fetch(["0", "1"]).metadata == [{"k": 1.0}, {"k": 1.5}]


def test_an_object_that_is_refused_is_named(store: Store, standin: Standin) -> None:
    store.create(Schema(WIDTH))
    name = str(uuid.UUID(int=77))
    standin.refused.add(name)
    with pytest.raises(StoreError, match=f"1 entries were refused; '{name}': no more memory"):
        store.write(replace(page(3), ids=["a", name, "b"]))


def test_many_go_in_several_requests(store: Store, standin: Standin) -> None:
    store.create(Schema(WIDTH))
    standin.batches.clear()
    entries = page(600)
    store.write(entries)
    assert standin.batches == [256, 256, 88]
    found = store.fetch(entries.ids)
    assert found.ids == entries.ids
    np.testing.assert_array_equal(vectors(found), vectors(entries))


def schema(name: str, **rest: Any) -> dict[str, Any]:
    return {
        "class": name,
        "description": "mails",
        "properties": [
            {
                "name": "page_content", "dataType": ["text"], "tokenization": "field",
                "moduleConfig": {"text2vec-openai": {"skip": False}},
            },
            {"name": "year", "dataType": ["int"], "indexRangeFilters": True},
            {"name": "sent", "dataType": ["date"]},
        ],
        "invertedIndexConfig": {
            "bm25": {"b": 0.5, "k1": 1.0},
            "cleanupIntervalSeconds": 30,
            "stopwords": {"additions": None, "preset": "en", "removals": None},
        },
        "replicationConfig": {"asyncEnabled": True, "deletionStrategy": "DeleteOnConflict", "factor": 3},
        **rest,
    }  # fmt: skip


@pytest.mark.parametrize("named", [True, False])
def test_a_new_collection_has_the_settings_of_the_old(opened: Opened, standin: Standin, named: bool) -> None:
    name = f"Old{next(ids)}"
    index = {"vectorIndexType": "hnsw", "vectorIndexConfig": {**HNSW, "ef": 77, "distance": "dot"}}
    openai = {"text2vec-openai": {"model": "x", "vectorizeClassName": True}}
    modules = {**({} if named else openai), "generative-openai": {"model": "y"}}
    standin.create(
        schema(name, vectorConfig={"body": {**index, "vectorizer": openai}}, moduleConfig=modules)
        if named
        else schema(name, vectorizer="text2vec-openai", moduleConfig=modules, **index)
    )
    old = opened(name)
    kept = [uuid.UUID(int=9), {"page_content": "a", "year": 1999.0, "sent": "2020-02-03T04:05:06Z"}]
    vector = np.ones(4, "<f4").tobytes()
    standin.objects[name][str(kept[0])] = (kept[1], {"body" if named else "": vector})  # type: ignore[assignment]
    assert old.describe().schema == Schema(4, "dot")
    new = old.sibling(f"{name}_new")
    new.create(Schema(WIDTH, "cosine"), like=old)
    sent = standin.sent[f"{name}_new"]
    made = sent["vectorConfig"]["body"] if named else sent
    assert made["vectorizer"] == ({"none": {}} if named else "none")
    assert made["vectorIndexType"] == "hnsw"
    assert (made["vectorIndexConfig"]["ef"], made["vectorIndexConfig"]["distance"]) == (77, "cosine")
    assert ("vectorConfig" in sent) == named
    assert sent["moduleConfig"] == {"generative-openai": {"model": "y"}}
    assert (sent["description"], sent["replicationConfig"]["factor"]) == ("mails", 3)
    assert sent["replicationConfig"]["deletionStrategy"] == "DeleteOnConflict"
    assert sent["invertedIndexConfig"]["bm25"] == {"b": 0.5, "k1": 1.0}
    properties = {one["name"]: one for one in sent["properties"]}
    assert set(properties) == {"page_content", "year", "sent", "_lemni_id"}
    assert properties["page_content"]["tokenization"] == "field"
    assert properties["year"]["indexRangeFilters"] is True
    assert "moduleConfig" not in properties["page_content"]
    # And an entry goes over as it was.
    (entry,) = old.pages(5)
    assert (entry.texts, entry.metadata) == (["a"], [{"year": 1999, "sent": "2020-02-03T04:05:06Z"}])
    new.write(replace(entry, vectors=np.ones((1, WIDTH), np.float32)))
    assert standin.objects[f"{name}_new"][str(kept[0])][0] == kept[1]


def test_several_vectors(opened: Opened, standin: Standin) -> None:
    name = f"Two{next(ids)}"
    none: Any = {"vectorizer": {"none": {}}}
    manhattan = {**none, "vectorIndexConfig": {"distance": "manhattan"}}
    standin.create({"class": name, "vectorConfig": {"title": none, "body": manhattan}})
    with pytest.raises(StoreError, match="has the vectors title, body; choose one: vector=NAME"):
        opened(name).describe()
    description = opened(f"{name}&vector=body").describe()
    assert description.schema is None
    assert description.notes == (
        "it has other vectors too: title",
        "it compares by manhattan, which no other store has",
    )
    with pytest.raises(StoreError, match="which Weaviate's batches would take away"):
        opened(f"{name}&vector=title").write(page(1))


def test_the_text_field_by_name(opened: Opened) -> None:
    one = opened(f"Docs{next(ids)}&text=abstract")
    one.create(Schema(WIDTH))
    one.write(replace(page(1), metadata=[{"text": "other"}]))
    assert (one.fetch(["0"]).texts, one.fetch(["0"]).metadata) == (page(1).texts, [{"text": "other"}])


def test_a_key_is_sent_and_not_shown(store: Store, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create(Schema(WIDTH))
    where = f"127.0.0.1:{standin.port}?collection={store.collection}&grpc_port={standin.grpc_port}"
    for address in (f"weaviate://:geheim@{where}", f"weaviate://{where}"):
        standin.credentials.clear()
        one = open_store(address)
        assert one.count() == 0
        assert standin.credentials == {"Bearer geheim"}
        assert "geheim" not in one.name
        one.close()
        monkeypatch.setenv("WEAVIATE_API_KEY", "geheim")


def test_what_is_no_address() -> None:
    for address, said in (
        ("weaviate:folder?collection=Docs", "is written weaviate://HOST"),
        ("weaviate://host", "is written weaviate://HOST"),
        ("weaviate://host?collection=Docs&color=red", "unknown option 'color'"),
        ("weaviate://host?collection=Docs&https=yes", "https is true or false"),
        ("weaviate://127.0.0.1:9?collection=Docs", "(?i)connect"),
    ):
        with pytest.raises(StoreError, match=said):
            open_store(address)
