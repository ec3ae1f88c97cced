"""The store over the official client, against a server that does what Pinecone is documented to do: the service
cannot be run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.stores.pinecone import Pinecone
from lemni.types import SparseVector
from tests.stores.contract import WIDTH, StoreContract, by_id
from tests.stores.pinecone_server import KEY, PineconeServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PineconeServer]:
    monkeypatch.setenv("PINECONE_API_KEY", KEY)
    server = PineconeServer()
    yield server
    server.close()


@pytest.fixture
def opened(server: PineconeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []
    sibling = Pinecone.sibling

    def followed(self: Pinecone, collection: str) -> Store:
        stores.append(sibling(self, collection))
        return stores[-1]

    monkeypatch.setattr(Pinecone, "sibling", followed)  # so that those are closed, too

    def opened(collection: str, index: str = "docs", more: str = "") -> Store:
        host = f"host=http://127.0.0.1:{server.port}"
        stores.append(open_store(f"pinecone://{index}?{host}&collection={collection}{more}"))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()
        store.close()


def unit(count: int, width: int = WIDTH) -> np.ndarray[Any, Any]:
    vectors = np.random.default_rng(5).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class TestPinecone(StoreContract):
    can_switch = False
    metrics = ("cosine",)  # of an index, not of a namespace: the others are below

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[..., Store]:
        return opened

    def wait_for(self, writer: Store) -> None:
        writer.count()


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_each_index_has_its_metric(opened: Callable[..., Store], metric: Any) -> None:
    here = opened("a")
    here.create(Schema(3))
    store = here.sibling(f"docs-{metric}/a")
    schema = Schema(2, metric)
    store.create(schema)
    assert store.describe().schema == schema
    store.write(
        Page(["far", "near", "turned"], [None] * 3, [{}] * 3, np.array([[9, 1], [1, 0], [1, 0.05]], np.float32))
    )
    expected = {"cosine": ["near", "turned", "far"], "dot": ["far", "near", "turned"], "l2": ["near", "turned", "far"]}
    assert store.search(np.array([[1, 0]], np.float32), 3) == [expected[metric]]


def test_another_index_is_named_before_a_slash(server: PineconeServer, opened: Callable[..., Store]) -> None:
    here = opened("a", more="&cloud=gcp&region=europe-west4")
    here.create(Schema(4))
    with pytest.raises(StoreError, match=r"(?s)dimensions=4.*dimensions=6.*INDEX/NAMESPACE"):
        here.sibling("b").create(Schema(6))
    there = here.sibling("docs-6/a/b")
    there.create(Schema(6), like=here)
    assert (there.collection, there.name) == ("docs-6/a/b", "pinecone://docs-6, namespace a/b")
    assert set(server.indexes["docs-6"].now) == {"__default__", "a/b"}
    assert server.models["docs-6"]["deployment"]["region"] == "europe-west4"
    assert there.sibling("c").name == "pinecone://docs-6, namespace c"
    there.drop()
    assert not there.exists()
    assert "docs-6" in server.models  # the index stays


def test_the_region_is_that_of_the_old_index(server: PineconeServer, opened: Callable[..., Store]) -> None:
    old = opened("a", more="&cloud=gcp&region=europe-west4")
    old.create(Schema(4))
    opened("a", index="other").create(Schema(6), like=old)
    assert server.models["other"]["deployment"]["region"] == "europe-west4"
    opened("a", index="third").create(Schema(6))
    assert server.models["third"]["deployment"]["region"] == "us-east-1"


def test_the_default_namespace(server: PineconeServer, opened: Callable[..., Store]) -> None:
    store = opened("")
    assert not store.exists()
    store.create(Schema(WIDTH))
    assert store.exists()
    store.write(Page(["a"], ["x"], [{}], unit(1)))
    assert list(server.indexes["docs"].now["__default__"]) == ["a"]
    assert [one.ids for one in store.pages(5)] == [["a"]]
    assert store.count() == store.describe().count == 1
    store.drop()
    assert opened("").count() == 0


def test_reads_wait_for_what_was_written(server: PineconeServer, opened: Callable[..., Store]) -> None:
    store = opened("a")
    store.create(Schema(WIDTH))
    vectors = unit(3)
    for at in range(3):
        store.write(Page([f"{at}"], [None], [{}], vectors[at : at + 1]))
        assert server.indexes["docs"].reconciled < server.indexes["docs"].committed  # not seen yet
        assert store.fetch([f"{at}"]).ids == [f"{at}"]
    store.write(Page(["3"], [None], [{}], vectors[:1]))
    assert store.search(vectors[:1], 4)[0][:2] in (["0", "3"], ["3", "0"])
    store.write(Page(["4"], [None], [{}], vectors[:1]))
    assert store.count() == 5


def test_pages_of_more_ids_than_a_request_lists(server: PineconeServer, opened: Callable[..., Store]) -> None:
    store = opened("a")
    store.create(Schema(WIDTH))
    names = [
        f"{at % 7}/é".encode("ascii", "backslashreplace").decode() + f"{at}-{'x' * (at % 90)}" for at in range(350)
    ]
    store.write(Page(list(names), names, [{"at": at} for at in range(350)], unit(350)))
    for size in (1, 99, 100, 101, 349, 350, 400):
        if size == 1:
            assert next(store.pages(1)).ids == [min(names)]
            continue
        pages = list(store.pages(size))
        assert [name for one in pages for name in one.ids] == sorted(names, key=str.encode)
        assert all(len(one) == size for one in pages[:-1])
    order = sorted(names)
    for at in (0, 98, 99, 100, 248, 349):
        assert [name for one in store.pages(60, after=order[at]) for name in one.ids] == order[at + 1 :]
    assert store.count() == 350
    assert by_id(store.fetch(names[:5])) == {name: (name, {"at": at}) for at, name in enumerate(names[:5])}


def test_long_ids_are_fetched_in_short_addresses(server: PineconeServer, opened: Callable[..., Store]) -> None:
    store = opened("a")
    store.create(Schema(WIDTH))
    names = [f"{at:03d}" + "%" * 500 for at in range(40)]  # three characters each in an address
    store.write(Page(list(names), [None] * 40, [{}] * 40, unit(40)))
    assert store.fetch(names).ids == names
    assert [one.ids for one in store.pages(40)] == [names]


def test_a_write_is_cut_by_bytes_and_by_entries(server: PineconeServer, opened: Callable[..., Store]) -> None:
    store = opened("a")
    store.create(Schema(WIDTH))

    def sent() -> list[tuple[int, int]]:
        asked = [one for one in server.indexes["docs"].http.asked if one.path == ["vectors", "upsert"]]
        del server.indexes["docs"].http.asked[:]
        return [(len(json.loads(one.body)["vectors"]), len(one.body)) for one in asked]

    texts = ["猫" * 10_000] * 150  # 30 KB each, 4.5 MB
    store.write(Page([f"{at}" for at in range(150)], list(texts), [{}] * 150, unit(150)))
    found = sent()
    assert [count for count, _ in found] == [66, 66, 18]
    assert max(size for _, size in found) <= 2_000_000
    store.write(Page([f"{at}" for at in range(2_100)], [None] * 2_100, [{}] * 2_100, unit(2_100)))
    assert [count for count, _ in sent()] == [1_000, 1_000, 100]
    assert store.count() == 2_100


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "null"),
        ({"a": 1}, "dict"),
        ([1, 2], "list"),
        (["a", None], "list"),
        (2**53 + 1, "9007199254740993 is no number"),
        (float("nan"), "nan is no number"),
    ],
)
def test_metadata_that_would_be_changed_is_refused(opened: Callable[..., Store], value: Any, why: str) -> None:
    store = opened("a")
    store.create(Schema(WIDTH))
    data: list[dict[str, Any]] = [{"tags": ["x", "y"], "none": []}, {"bad": value}]
    with pytest.raises(StoreError, match=f"'two'.*'bad'.*{why}"):
        store.write(Page(["one", "two"], ["t", "t"], data, unit(2)))
    assert store.count() == 0  # not the good one either
    store.write(Page(["one"], ["t"], data[:1], unit(1)))
    assert store.fetch(["one"]).metadata == data[:1]


def test_limits_of_an_entry(opened: Callable[..., Store]) -> None:
    store = opened("a")
    store.create(Schema(WIDTH))
    for name in ("naïve", "x" * 513, "", "a\0b"):
        with pytest.raises(StoreError, match="1 to 512 ASCII"):
            store.write(Page([name], [None], [{}], unit(1)))
    room = 40_960 - len('{"k":"v","text":""}')
    with pytest.raises(StoreError, match=r"'long'.*40961 bytes.*40960"):
        store.write(Page(["long"], ["x" * (room + 1)], [{"k": "v"}], unit(1)))
    store.write(Page(["x" * 512, 7], ["x" * room, "Ω" * (room // 2)], [{"k": "v"}] * 2, unit(2)))
    with pytest.raises(StoreError, match=r"'a'.*'\$x'"):
        store.write(Page(["a"], [None], [{"$x": 1}], unit(1)))
    with pytest.raises(StoreError, match=r"'a'.*'text'"):
        store.write(Page(["a"], [None], [{"text": "x"}], unit(1)))
    for wrong in (0.0, np.inf):
        vectors = unit(2)
        vectors[1] = wrong
        with pytest.raises(StoreError, match="'b'"):
            store.write(Page(["a", "b"], [None] * 2, [{}] * 2, vectors))
    assert sorted(store.fetch(["7", "x" * 512, "a", "b"]).ids) == ["7", "x" * 512]


def test_text_in_another_field(opened: Callable[..., Store]) -> None:
    store = opened("a", more="&text=chunk_text")
    store.create(Schema(WIDTH))
    store.write(Page(["a"], ["words"], [{"text": "a title"}], unit(1)))
    found = store.fetch(["a"], vectors=False)
    assert (found.texts, found.metadata, found.vectors) == (["words"], [{"text": "a title"}], None)
    assert opened("a").fetch(["a"]).metadata == [{"chunk_text": "words"}]


def test_sparse_vectors(opened: Callable[..., Store]) -> None:
    store = opened("a")
    schema = Schema(None, "dot", "sparse")
    store.create(schema)
    store.create(schema)
    assert store.describe().schema == schema
    vectors = [
        SparseVector(np.array([3, 1037, 30000], np.int32), np.array([0.5, 1.25, 2.0], np.float32)),
        SparseVector(np.array([3, 7], np.int32), np.array([1.0, 0.1], np.float32)),
        SparseVector(np.array([9], np.int32), np.array([4.0], np.float32)),
    ]
    store.write(Page(["a", "b", "c"], ["x"] * 3, [{}] * 3, vectors))
    found = store.fetch(["a", "b", "c"])
    for vector, expected in zip(found.vectors or (), vectors, strict=True):
        np.testing.assert_array_equal(vector.indices, expected.indices)
        np.testing.assert_array_equal(vector.values, expected.values)
    query = SparseVector(np.array([3, 30000], np.int32), np.array([0.5, 2.0], np.float32))
    assert store.search([query], 5) == [["a", "b"]]
    many = SparseVector(np.arange(2_049, dtype=np.int32), np.ones(2_049, np.float32))
    with pytest.raises(StoreError, match=r"'d'.*2049 terms.*2048"):
        store.write(Page(["d"], [None], [{}], [many]))
    with pytest.raises(StoreError, match="another schema"):
        store.create(Schema(8))
    hashed = SparseVector(np.array([2**31 + 1], np.uint32), np.array([1.0], np.float32))  # as Pinecone's own model has
    store.write(Page(["d"], [None], [{}], [hashed]))
    assert store.fetch(["d"], vectors=False).ids == ["d"]
    with pytest.raises(StoreError, match=r"'d': .*2147483649"):
        store.fetch(["d"])
    store.write(Page([], [], [], []))


def test_switching_is_left_to_the_application(opened: Callable[..., Store]) -> None:
    with pytest.raises(CannotSwitch, match=r"ask for the namespace new of the index docs instead of old"):
        opened("new").switch("old")


def test_writing_makes_no_namespace(server: PineconeServer, opened: Callable[..., Store]) -> None:
    opened("a").create(Schema(WIDTH))
    with pytest.raises(StoreError, match="create it first"):
        opened("b").write(Page(["x"], [None], [{}], unit(1)))
    assert set(server.indexes["docs"].now) == {"__default__", "a"}
    with pytest.raises(StoreError, match=r"namespace b: .*there are: __default__, a"):
        opened("b").describe()
    with pytest.raises(StoreError, match=r"no index none .*there are: docs"):
        opened("a", index="none").describe()


def test_keys_and_addresses(server: PineconeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"?host=http://127.0.0.1:{server.port}&collection=a"
    monkeypatch.setenv("PINECONE_API_KEY", "wr0ng-key")
    with closing(open_store(f"pinecone://docs{where}")) as store:
        with pytest.raises(StoreError, match="Invalid API Key") as caught:
            store.exists()
        assert "wr0ng-key" not in str(caught.value)
    with closing(open_store(f"pinecone://:{KEY}@docs{where}")) as store:
        assert not store.exists()
    monkeypatch.delenv("PINECONE_API_KEY")
    with pytest.raises(StoreError, match="PINECONE_API_KEY"):
        open_store(f"pinecone://docs{where}")
    for wrong in ("pinecone:docs", "pinecone://docs/path", "pinecone://docs:80"):
        with pytest.raises(StoreError, match="is not pinecone://INDEX"):
            open_store(wrong)
