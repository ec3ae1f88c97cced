"""Qdrant: the contract in local mode, which is the real thing, and through the client's HTTP against a stand-in
(`qdrant_server.py`), since no package has the server; and its own traits."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.types import SparseVector
from tests.stores.contract import WIDTH, StoreContract, ids, page
from tests.stores.qdrant_server import Standin, qdrant_standin

Opened = Callable[[str], Store]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning"),
    # A client that finds a folder locked leaves its file open.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <_io.FileIO name=.*lock:pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qdrant") / "kept"


@pytest.fixture(scope="module")
def standin() -> Iterator[Standin]:
    with qdrant_standin() as standin:
        yield standin


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    stores: list[Store] = []

    def opened(address: str) -> Store:
        stores.append(open_store(f"qdrant:{folder}?collection={address}"))
        return stores[-1]

    yield opened
    for one in stores:
        one.close()
        one.close()


@pytest.fixture
def store(opened: Opened) -> Store:
    return opened(f"docs{next(ids)}")


@pytest.fixture
def client(opened: Opened, store: Store) -> QdrantClient:
    store.create(Schema(WIDTH))
    return store._client  # type: ignore[attr-defined,no-any-return]


class Contract(StoreContract):
    takes_names = False

    def test_a_name_is_switched_and_switched_back(self, opened: Opened, store: Store) -> None:
        """It begins with an alias: Qdrant's cannot have the name of a collection."""
        old = self.filled(store, 5, seed=1)
        new = store.sibling(f"{store.collection}_new")
        entries = self.filled(new, 5, seed=2)
        alias = f"{store.collection}_live"

        def served() -> Any:
            return opened(alias).fetch(entries.ids).vectors

        assert store.switch(alias) is None
        np.testing.assert_allclose(served(), np.asarray(old.vectors), atol=self.atol)
        for incoming, outgoing, expected in ((new, store, entries), (store, new, old)):
            assert incoming.switch(alias) == outgoing.collection
            np.testing.assert_allclose(served(), np.asarray(expected.vectors), atol=self.atol)
            description = opened(alias).describe()
            assert (description.collection, description.alias) == (incoming.collection, alias)
            assert incoming.switch(alias) is None  # again changes nothing
        with pytest.raises(CannotSwitch, match=rf"'{store.collection}' is a collection.*\?collection=ALIAS"):
            new.switch(store.collection)
        np.testing.assert_allclose(store.fetch(old.ids).vectors, np.asarray(old.vectors), atol=self.atol)
        with pytest.raises(StoreError, match=f"is an alias.*{store.collection}"):
            opened(alias).drop()
        store.drop()
        assert not opened(alias).exists()
        assert new.count() == 5


class TestFolder(Contract):
    @pytest.fixture
    def opened(self, folder: Path) -> Opened:
        return lambda address: open_store(f"qdrant:{folder}?collection={address}")


class TestServer(Contract):
    @pytest.fixture
    def opened(self, standin: Standin) -> Iterator[Opened]:
        stores: list[Store] = []

        def opened(address: str) -> Store:
            stores.append(open_store(f"qdrant://127.0.0.1:{standin.port}?collection={address}"))
            return stores[-1]

        yield opened
        for one in stores:
            one.close()


def vectors(one: Page) -> Any:
    return np.asarray(one.vectors)


def test_opening_makes_nothing(tmp_path: Path) -> None:
    one = open_store(f"qdrant:{tmp_path}/none?collection=docs")
    assert not one.exists()
    with pytest.raises(StoreError, match=r"collection docs: there is no such collection; there are: none"):
        one.describe()
    one.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_closed_with_its_last_store(tmp_path: Path) -> None:
    one = open_store(f"qdrant:{tmp_path}?collection=docs")
    one.create(Schema(WIDTH))
    two = one.sibling("docs")
    one.write(page(2))
    one.close()
    assert two.count() == 2
    two.close()
    client = QdrantClient(path=str(tmp_path))  # refused while another has it
    with pytest.raises(StoreError, match="already accessed by another instance"):
        open_store(f"qdrant:{tmp_path}?collection=docs")
    assert client.count("docs").count == 2  # durable
    client.close()


def test_every_kind_of_id_comes_back(store: Store) -> None:
    unusual = ["7", "x", "", "Ω 猫", str(uuid.UUID(int=0xABC)).upper(), uuid.UUID(int=6).hex, -3, 2**64]
    own = [7, 0, 2**64 - 1, str(uuid.UUID(int=2**100 + 5))]
    every: list[Any] = [*own, *unusual]
    store.create(Schema(WIDTH))
    store.write(replace(page(len(every)), ids=every))
    assert store.count() == len(every)
    found = store.fetch(every[::-1])
    assert found.ids == every[::-1]
    np.testing.assert_allclose(vectors(found), vectors(page(len(every)))[::-1], atol=1e-6)
    assert found.metadata == page(len(every)).metadata[::-1]
    order = [one for part in store.pages(5) for one in part.ids]
    assert sorted(map(repr, order)) == sorted(map(repr, every))
    assert order[:3] == [0, 7, 2**64 - 1]  # numbers before UUIDs
    assert [one.ids for one in store.pages(20, after=order[4])] == [order[5:]]
    assert store.search(vectors(found)[:2], 1) == [[every[-1]], [every[-2]]]
    points = {one.id: one.payload for one in store._client.scroll(store.collection, limit=20)[0]}  # type: ignore[attr-defined]
    assert set(own) <= set(points)
    assert all(("_lemni_id" in payload) == (one not in own) for one, payload in points.items())


def test_pages_go_on_behind_an_id_that_is_gone(store: Store) -> None:
    store.create(Schema(WIDTH))
    store.write(page(9, names=int))
    store._client.delete(store.collection, [4])  # type: ignore[attr-defined]
    assert [one.ids for one in store.pages(3, after=4)] == [[5, 6, 7], [8]]
    assert list(store.pages(3, after=8)) == []


NODE = '{"id_": "1", "text": "a"}'


@pytest.mark.parametrize(
    ("payload", "text", "metadata"),
    [
        ({"text": "a", "page_content": "b"}, "a", {"page_content": "b"}),
        ({"document": "a", "n": None}, "a", {"n": None}),
        ({"page_content": "a", "metadata": {"from": [1, {"x": 2.5}]}}, "a", {"metadata": {"from": [1, {"x": 2.5}]}}),
        ({"content": "a", "text": 3}, "a", {"text": 3}),
        ({"body": ""}, "", {}),
        ({"_node_content": NODE, "k": 1}, "a", {"_node_content": NODE, "k": 1}),
        ({"title": "a"}, None, {"title": "a"}),
    ],
)  # fmt: skip
def test_the_text_is_where_frameworks_put_it(
    opened: Opened, store: Store, client: QdrantClient, payload: Any, text: Any, metadata: Any
) -> None:
    client.upsert(store.collection, [models.PointStruct(id=1, vector=[1.0] * WIDTH, payload=payload)])
    (found,) = store.pages(5)
    assert (found.texts, found.metadata) == ([text], [metadata])
    # Into a collection like it, everything comes as it was.
    new = opened(f"{store.collection}_new")
    new.create(Schema(WIDTH), like=store)
    new.write(replace(found, vectors=np.ones((1, WIDTH), np.float32)))
    assert client.retrieve(new.collection, [1])[0].payload == payload
    assert opened(new.collection).fetch([1], vectors=False).texts == [text]


def test_the_text_field_by_name(opened: Opened, store: Store, client: QdrantClient) -> None:
    client.upsert(
        store.collection, [models.PointStruct(id=1, vector=[1.0] * WIDTH, payload={"text": "a", "abstract": "b"})]
    )
    one = opened(f"{store.collection}&text=abstract")
    assert one.fetch([1], vectors=False).texts == ["b"]
    new = one.sibling(f"{store.collection}_new")
    new.create(Schema(WIDTH))
    new.write(page(1, names=int))
    assert client.retrieve(new.collection, [0])[0].payload["abstract"] == page(1).texts[0]  # type: ignore[index]
    with pytest.raises(StoreError, match=r"entry 5 has metadata 'abstract'.*text=FIELD"):
        new.write(replace(page(1), ids=[5], metadata=[{"abstract": "other"}]))
    assert new.count() == 1


def sparse(count: int) -> list[SparseVector]:
    return [
        SparseVector(np.array([number, 100 + number, 30_000], np.int32), np.array([1.0, 0.5, 0.25], np.float32))
        for number in range(count)
    ]


@pytest.mark.parametrize("where", ["folder", "server"])
def test_sparse_vectors(opened: Opened, standin: Standin, where: str) -> None:
    name = f"sparse{next(ids)}"
    one = opened(name) if where == "folder" else open_store(f"qdrant://127.0.0.1:{standin.port}?collection={name}")
    one.create(Schema(None, "dot", "sparse"))
    one.create(Schema(None, "dot", "sparse"))
    one.write(replace(page(6), vectors=sparse(6)))
    assert one.describe().schema == Schema(None, "dot", "sparse")
    (found,) = one.pages(10, vectors=True)
    for at, row in zip(found.ids, found.vectors or (), strict=True):
        assert isinstance(row, SparseVector)
        np.testing.assert_array_equal(row.indices, sparse(6)[int(at)].indices)
        np.testing.assert_array_equal(row.values, sparse(6)[int(at)].values)
    asked = SparseVector(np.array([3, 104], np.int32), np.array([1.0, 1.0], np.float32))
    assert one.search([asked], 2) == [["3", "4"]]
    with pytest.raises(StoreError, match=r"entry '0' has a vector of shape \(8,\); wanted are sparse vectors"):
        one.write(page(1))
    with pytest.raises(StoreError, match="exists for sparse"):
        one.create(Schema(WIDTH))
    one.close()


@pytest.mark.parametrize("where", ["folder", "server"])
def test_multi_vectors(opened: Opened, standin: Standin, where: str) -> None:
    name = f"multi{next(ids)}"
    one = opened(name) if where == "folder" else open_store(f"qdrant://127.0.0.1:{standin.port}?collection={name}")
    rows = [np.random.default_rng(number).normal(size=(2 + number, 4)).astype(np.float32) for number in range(5)]
    one.create(Schema(4, "dot", "multi_vector"))
    one.write(replace(page(5), vectors=rows))
    assert one.describe().schema == Schema(4, "dot", "multi_vector")
    found = one.fetch(["3", "1"])
    assert found.vectors is not None
    for row, expected in zip(found.vectors, (rows[3], rows[1]), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-6)  # type: ignore[arg-type]
    scores = [[(query @ row.T).max(axis=1).sum() for row in rows] for query in rows[:2]]
    expected_ids = [[str(at) for at in np.argsort(-np.asarray(row))[:3]] for row in scores]
    assert one.search(rows[:2], 3) == expected_ids
    one.close()


class TestSeveralVectors:
    @pytest.fixture
    def hybrid(self, store: Store, client: QdrantClient) -> str:
        name = f"hybrid{next(ids)}"
        client.create_collection(
            name,
            vectors_config={
                "title": models.VectorParams(size=4, distance=models.Distance.DOT),
                "body": models.VectorParams(size=WIDTH, distance=models.Distance.EUCLID),
            },
            sparse_vectors_config={"terms": models.SparseVectorParams()},
        )
        terms = models.SparseVector(indices=[1], values=[1.0])
        vector: Any = {"title": [1.0] * 4, "body": [2.0] * WIDTH, "terms": terms}
        client.upsert(name, [models.PointStruct(id=1, vector=vector, payload={"text": "a", "k": 1})])
        return name

    def test_one_has_to_be_chosen(self, opened: Opened, hybrid: str) -> None:
        with pytest.raises(StoreError, match=r"'title', 'body', 'terms'; choose one: vector=NAME"):
            opened(hybrid).describe()
        description = opened(f"{hybrid}&vector=body").describe()
        assert description.schema == Schema(WIDTH, "l2")
        assert description.notes == ("it has other vectors, which stay as they are: 'title', 'terms'",)
        assert opened(f"{hybrid}&vector=terms").describe().schema == Schema(None, "dot", "sparse")
        with pytest.raises(StoreError, match="choose one"):
            opened(f"{hybrid}&vector=none").describe()

    def test_the_only_dense_one_is_chosen(self, opened: Opened, client: QdrantClient) -> None:
        name = f"two{next(ids)}"
        config = {"dense": models.VectorParams(size=4, distance=models.Distance.COSINE)}
        client.create_collection(name, config, sparse_vectors_config={"terms": models.SparseVectorParams()})
        assert opened(name).describe().schema == Schema(4)

    def test_the_others_stay_when_one_is_written(self, opened: Opened, client: QdrantClient, hybrid: str) -> None:
        one = opened(f"{hybrid}&vector=body")
        one.write(replace(page(2, names=int), metadata=[{}, {"new": True}]))
        (had,) = client.retrieve(hybrid, [1], with_vectors=True)
        assert had.payload == {"new": True, "text": page(2).texts[1]}
        assert isinstance(had.vector, dict)
        assert had.vector["title"] == [1.0] * 4
        assert had.vector["terms"] == models.SparseVector(indices=[1], values=[1.0])
        np.testing.assert_allclose(had.vector["body"], vectors(page(2))[1], atol=1e-6)  # type: ignore[arg-type]
        np.testing.assert_allclose(vectors(one.fetch([0, 1])), vectors(page(2)), atol=1e-6)
        title = opened(f"{hybrid}&vector=title")
        with pytest.raises(StoreError, match="entry 0 has no vector 'title'"):
            title.fetch([0])

    def test_a_new_one_has_the_name(self, opened: Opened, client: QdrantClient, hybrid: str) -> None:
        new = opened(f"{hybrid}_new")
        new.create(Schema(WIDTH, "cosine"), like=opened(f"{hybrid}&vector=body"))
        assert list(client.get_collection(f"{hybrid}_new").config.params.vectors) == ["body"]  # type: ignore[arg-type]
        assert new.describe().schema == Schema(WIDTH)


def test_a_distance_of_its_own(opened: Opened, client: QdrantClient) -> None:
    name = f"manhattan{next(ids)}"
    client.create_collection(name, models.VectorParams(size=4, distance=models.Distance.MANHATTAN))
    description = opened(name).describe()
    assert description.schema is None
    assert description.notes == ("it compares by Manhattan, which no other store has",)


SETTINGS: dict[str, Any] = {
    "shard_number": 3,
    "replication_factor": 2,
    "write_consistency_factor": 2,
    "on_disk_payload": True,
    "hnsw_config": models.HnswConfigDiff(m=8, ef_construct=50, full_scan_threshold=20_000, payload_m=4),
    "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=5, default_segment_number=2),
    "wal_config": models.WalConfigDiff(wal_capacity_mb=8),
    "quantization_config": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.9, always_ram=True)
    ),
    "strict_mode_config": models.StrictModeConfig(enabled=True, max_query_limit=500),
    "metadata": {"owner": "x"},
}


def test_a_new_collection_has_the_settings_of_the_old(standin: Standin) -> None:
    client = QdrantClient(port=standin.port, host="127.0.0.1", check_compatibility=False)
    old, name = f"old{next(ids)}", f"new{next(ids)}"
    params = models.VectorParams(
        size=4, distance=models.Distance.DOT, on_disk=True, datatype=models.Datatype.FLOAT16,
        hnsw_config=models.HnswConfigDiff(m=5),
    )  # fmt: skip
    client.create_collection(old, params, **SETTINGS)
    client.create_payload_index(old, "year", models.PayloadSchemaType.INTEGER)
    words = models.TextIndexParams(type=models.TextIndexType.TEXT, tokenizer=models.TokenizerType.WORD, min_token_len=2)
    client.create_payload_index(old, "title", words)
    one = open_store(f"qdrant://127.0.0.1:{standin.port}?collection={old}")
    new = one.sibling(name)
    new.create(Schema(WIDTH), like=one)
    was, now = standin.sent[old], standin.sent[name]
    assert now["vectors"] == {**was["vectors"], "size": WIDTH, "distance": "Cosine"}
    for key in SETTINGS:
        sent, kept = was[key], now[key]
        # Its description has the server's defaults too.
        assert kept.items() >= sent.items() if isinstance(sent, dict) else kept == sent, key
    assert standin.indexes[name] == standin.indexes[old]
    # Killed before its second index: another call makes what is missing.
    del standin.indexes[name]["title"]
    sibling = one.sibling(name)
    sibling.create(Schema(WIDTH), like=one)
    assert standin.indexes[name] == standin.indexes[old]
    for each in (one, new, sibling, client):
        each.close()


def test_a_key_is_sent_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with qdrant_standin("geheim") as standin:
        address = f"127.0.0.1:{standin.port}?collection=docs"
        with pytest.raises(StoreError, match="401: Invalid API key"):
            open_store(f"qdrant://{address}")
        with pytest.raises(StoreError) as refused:
            open_store(f"qdrant://:wr0ng@{address}&https=false")
        assert "wr0ng" not in str(refused.value)
        one = open_store(f"qdrant://:geheim@{address}&https=false")
        assert not one.exists()
        assert "geheim" not in one.name
        one.close()
        monkeypatch.setenv("QDRANT_API_KEY", "geheim")
        two = open_store(f"qdrant://{address}&https=false")
        with pytest.raises(StoreError, match="there are: none"):
            two.count()
        two.close()
        with pytest.raises(StoreError, match=r"(?i)ssl"):
            open_store(f"qdrant://{address}")  # with a key, https


def test_many_entries_in_requests_of_bounded_size(standin: Standin) -> None:
    one = open_store(f"qdrant://127.0.0.1:{standin.port}?collection=wide{next(ids)}")
    one.create(Schema(2048, "dot"))
    standin.requests.clear()
    entries = page(600, width=2048, names=int)
    one.write(entries)
    sent = [
        len(body["points"]) for method, path, _, body in standin.requests if (method, path[-7:]) == ("PUT", "/points")
    ]
    assert sent == [244, 244, 112]
    assert one.count() == 600
    found = one.fetch(range(600))
    np.testing.assert_allclose(vectors(found), vectors(entries), atol=1e-6)
    one.close()


def test_nothing_is_written_if_one_does_not_fit(store: Store) -> None:
    store.create(Schema(WIDTH))
    rows = [*vectors(page(2)), np.ones(WIDTH + 1, np.float32)]
    with pytest.raises(StoreError, match=r"entry '2' has a vector of shape \(9,\); wanted are 8 dimensions"):
        store.write(replace(page(3), vectors=rows))
    assert store.count() == 0


def test_payloads_of_any_json(store: Store) -> None:
    store.create(Schema(WIDTH))
    metadata = {
        "none": None,
        "empty": [],
        "deep": {"a": [1, {"b": [None, "x", 1.5, True]}]},
        "big": 2**53 + 1,
        "Ω": "猫",
    }
    store.write(replace(page(1), metadata=[metadata]))
    assert json.dumps(store.fetch(["0"]).metadata) == json.dumps([metadata])


def test_what_is_no_address() -> None:
    for address, said in (
        ("qdrant:folder", "say which collection"),
        ("qdrant:folder?collection=docs&color=red", "unknown option 'color'"),
        ("qdrant://host?collection=docs&https=yes", "https is true or false"),
        ("qdrant://127.0.0.1:9?collection=docs", "refused"),
    ):
        with pytest.raises(StoreError, match=said):
            open_store(address)


def test_what_is_written_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from lemni.stores import open_store; from lemni.stores.base import Schema;"
        "from tests.stores.contract import WIDTH, page; one = open_store(sys.argv[1]); one.create(Schema(WIDTH));"
        "one.write(page(20)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    address = f"qdrant:{tmp_path}/kept?collection=docs"
    done = subprocess.run([sys.executable, "-c", program, address], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    one = open_store(address)
    found = one.fetch(page(20).ids)
    assert (found.ids, found.texts, found.metadata) == (page(20).ids, page(20).texts, page(20).metadata)
    np.testing.assert_allclose(vectors(found), vectors(page(20)), atol=1e-6)
    assert one.search(vectors(found)[:3], 1) == [["0"], ["1"], ["2"]]
    one.close()


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
