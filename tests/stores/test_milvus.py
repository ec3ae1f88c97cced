"""Milvus Lite in a folder: the real thing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, Function, FunctionType, MilvusClient

from lemni.errors import MissingExtra, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.types import SparseVector
from tests.stores.contract import WIDTH, StoreContract, page


class TestMilvus(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[str], Store]:
        return lambda collection: open_store(f"milvus:{tmp_path}/milvus.db?collection={collection}")


def opened(folder: Path, collection: str = "docs", **options: str) -> Store:
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return open_store(f"milvus:{folder}/milvus.db?collection={collection}{more}")


def one(page_of: Page, **changed: Any) -> Page:
    """The first entry of a page with something else in it."""
    values = {name: [getattr(page_of, name)[0]] for name in ("ids", "texts", "metadata")}
    return Page(**{**values, "vectors": np.asarray(page_of.vectors)[:1], **changed})


def test_opening_makes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert not store.exists()
    with pytest.raises(StoreError, match=r"no such collection.*milvus\.db"):
        store.count()
    assert list(tmp_path.iterdir()) == []


def test_what_lite_lacks_is_not_logged(tmp_path: Path) -> None:
    # In a new process Lite's server is a new one: the client asks it for a timestamp when it makes a collection.
    code = "import logging, sys; logging.basicConfig(); from lemni.stores import open_store\n"
    code += "from lemni.stores.base import Schema\nopen_store(sys.argv[1]).create(Schema(4))"
    place = f"milvus:{tmp_path}/milvus.db?collection=docs"
    done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=True)
    assert "grpc._server" not in done.stderr
    assert opened(tmp_path).exists()


def test_a_collection_that_was_there_is_read_and_copied(tmp_path: Path) -> None:
    client = MilvusClient(f"{tmp_path}/milvus.db")
    schema = client.create_schema(auto_id=True, enable_dynamic_field=False)
    schema.add_field("pk", DataType.INT64, is_primary=True, auto_id=True)
    schema.add_field("text", DataType.VARCHAR, max_length=1000)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=4)
    schema.add_field("picture", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("year", DataType.INT64, nullable=True)
    schema.add_field("more", DataType.JSON)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=10, max_length=100)
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="HNSW", metric_type="L2", params={"M": 16, "efConstruction": 64})
    indexes.add_index("picture", index_type="AUTOINDEX", metric_type="IP")
    client.create_collection("docs", schema=schema, index_params=indexes)
    others = [
        {"picture": [1.5, 2.0], "year": None, "more": {"a": [1, 2.5, None]}, "tags": ["x", "y"]},
        {"picture": [0.5, 3.0], "year": 1999, "more": {}, "tags": []},
    ]
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    rows = [
        {"text": f"t{at}", "vector": vector.tolist(), **other}
        for at, (vector, other) in enumerate(zip(vectors, others, strict=True))
    ]
    made = client.insert("docs", rows)["ids"]

    store = opened(tmp_path)
    (found,) = store.pages(10, vectors=True)
    assert (store.id_type, found.ids, found.texts) == ("int", list(made), ["t0", "t1"])
    assert found.metadata == others
    np.testing.assert_array_equal(found.vectors, vectors)
    assert store.describe().schema == Schema(4, "l2")

    copy = store.sibling("copy")
    copy.create(Schema(WIDTH, "cosine"), like=store)
    copy.write(Page(found.ids, found.texts, found.metadata, page(2).vectors))
    again = copy.fetch(found.ids)
    assert (again.ids, again.texts, again.metadata) == (found.ids, found.texts, found.metadata)
    assert copy.describe().schema == Schema(WIDTH, "cosine")
    assert client.describe_index("copy", "vector")["index_type"] == "HNSW"
    assert client.describe_index("copy", "picture")["metric_type"] == "IP"
    before, after = (
        {field["name"]: field["type"] for field in client.describe_collection(name)["fields"]}
        for name in ("docs", "copy")
    )
    assert after == before
    entry = one(again, vectors=np.asarray(again.vectors)[:1])
    with pytest.raises(StoreError, match="no field for 'colour', and no dynamic field"):
        copy.write(one(entry, metadata=[{**others[0], "colour": 1}]))
    with pytest.raises(StoreError, match="no field 'titel'; there are pk, text"):
        opened(tmp_path, text="titel").count()
    (by_picture,) = opened(tmp_path, vector="picture").pages(10, vectors=True)
    np.testing.assert_array_equal(by_picture.vectors, [[1.5, 2.0], [0.5, 3.0]])
    assert by_picture.metadata[0]["vector"] == vectors[0].tolist()


def test_what_the_server_computes_is_left_to_it(tmp_path: Path) -> None:
    client = MilvusClient(f"{tmp_path}/milvus.db")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=100)
    schema.add_field("text", DataType.VARCHAR, max_length=1000, enable_analyzer=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection("docs", schema=schema, index_params=indexes)
    store = opened(tmp_path)
    entries = page(3)
    store.write(entries)
    (found,) = store.pages(5)
    assert found.metadata == entries.metadata
    copy = store.sibling("copy")
    copy.create(Schema(WIDTH), like=store)
    copy.write(Page(entries.ids, ["red fish", "blue bird", "green tree"], entries.metadata, entries.vectors))
    (hits,) = client.search("copy", data=["a bird"], anns_field="words", limit=1, output_fields=["id"])
    assert [hit["id"] for hit in hits] == [entries.ids[1]]


def test_metadata_of_any_form_comes_back_exactly(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    given: list[dict[str, Any]] = [
        {"year": 3, "none": None, "good": True},
        {"year": 3.0, "deep": {"a": [1, 2.0, None, {"b": "猫"}]}, "list": [], "empty": ""},
        {},
        {"naïve Ω": "猫", "two words": -(2**63), "a.b": 0.1},
    ]
    entries = page(len(given))
    store.write(Page(entries.ids, entries.texts, given, entries.vectors))
    found = store.fetch(entries.ids).metadata
    assert found == given
    assert type(found[0]["year"]) is int
    assert type(found[1]["year"]) is float


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    entries = page(1)
    for changed, words in (
        ({"ids": ["猫" * 171]}, "id '猫猫.*has 513 bytes, the primary key at most 512"),
        ({"texts": ["é" * 32_768]}, "id '0': its text has 65536 bytes, the field at most 65535"),
        ({"metadata": [{"vector": 1}]}, "'vector', which is the name of a field; choose others"),
        ({"metadata": [{"x": "y" * 65_536}]}, "id '0': its metadata has 65545 bytes"),
        ({"metadata": [{"x": float("nan")}]}, "metadata that is no JSON"),
        ({"metadata": [{"x": {1, 2}}]}, "metadata that is no JSON"),
    ):
        with pytest.raises(StoreError, match=words):
            store.write(one(entries, **changed))
    assert store.count() == 0
    longest = one(entries, ids=["猫" * 170], texts=["é" * 32_767])
    store.write(longest)
    assert store.fetch(longest.ids).texts == longest.texts


def test_ids_with_quotes_and_the_later_of_two_equal_ones(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    names = ["it's", 'say "x"', "back\\slash\nline", "it's", "猫", ""]
    entries = page(6)
    store.write(Page(names, entries.texts, entries.metadata, entries.vectors))
    assert store.count() == 5
    found = store.fetch(names)
    assert found.ids == ["it's", 'say "x"', "back\\slash\nline", "猫", ""]
    assert found.texts[0] == entries.texts[3]
    order = [name for part in store.pages(2) for name in part.ids]
    assert order == sorted(names[1:])
    for at, name in enumerate(order):
        assert [other for part in store.pages(2, after=name) for other in part.ids] == order[at + 1 :]


def test_whole_numbers_as_ids(tmp_path: Path) -> None:
    store = opened(tmp_path, idtype="int", id="number", text="body", vector="embedding")
    store.create(Schema(WIDTH, "l2"))
    entries = page(4)
    names = [7, -3, "12", 2**63 - 2]
    store.write(Page(names, entries.texts, [{"id": 1, "text": 2, "vector": 3}] * 4, entries.vectors))
    (found,) = store.pages(9)
    assert found.ids == [-3, 7, 12, 2**63 - 2]
    assert found.metadata == [{"id": 1, "text": 2, "vector": 3}] * 4
    assert store.fetch(["12", -3]).ids == [12, -3]
    with pytest.raises(StoreError, match="id 'x' is no whole number"):
        store.write(one(entries, ids=["x"]))


def test_sparse_vectors(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(StoreError, match="sparse vectors by dot, not by cosine"):
        store.create(Schema(None, "cosine", "sparse"))
    store.create(Schema(None, "dot", "sparse"))
    vectors = [
        SparseVector(np.array(terms, np.int32), np.array(weights, np.float32))
        for terms, weights in (([3, 70_000], [0.5, 1.25]), ([3], [0.25]), ([5, 9], [2.0, 1.0]))
    ]
    store.write(Page(["a", "b", "c"], ["x", None, "z"], [{"n": 1}, {}, {}], vectors))
    (found,) = store.pages(5, vectors=True)
    assert found.vectors is not None
    for got, expected in zip(found.vectors, vectors, strict=True):
        np.testing.assert_array_equal(got.indices, expected.indices)
        np.testing.assert_array_equal(got.values, expected.values)
    assert store.search([vectors[0], vectors[2]], 2)[0] == ["a", "b"]
    assert store.search([vectors[2]], 1) == [["c"]]
    assert store.describe().schema == Schema(None, "dot", "sparse")
    copy = store.sibling("copy")
    copy.create(Schema(WIDTH), like=store)
    assert copy.describe().schema == Schema(WIDTH)


def test_an_alias_is_moved_and_a_collection_becomes_one(tmp_path: Path) -> None:
    stores = {}
    for at, name in enumerate(("one", "two", "three")):
        stores[name] = opened(tmp_path, name)
        stores[name].create(Schema(WIDTH))
        stores[name].write(page(at + 1))
    served = opened(tmp_path, "live")
    assert stores["one"].switch("live") is None
    assert stores["two"].switch("live") == "one"
    assert (served.count(), served.describe().collection, served.describe().alias) == (2, "two", "live")
    assert stores["one"].switch("live") == "two"
    assert served.count() == 1
    # A collection's own name: kept under another one, and from then on an alias.
    assert stores["three"].switch("two") == "two_before_three"
    assert (opened(tmp_path, "two").count(), opened(tmp_path, "two_before_three").count()) == (3, 2)
    assert stores["three"].switch("two") == "two_before_three"  # again changes nothing
    assert opened(tmp_path, "two_before_three").switch("two") == "three"
    assert opened(tmp_path, "two").describe().collection == "two_before_three"
    # Killed between the two steps.
    client = MilvusClient(f"{tmp_path}/milvus.db")
    client.rename_collection("one", "one_before_three")
    assert stores["three"].switch("one") == "one_before_three"
    assert opened(tmp_path, "one").count() == 3


def test_what_was_written_outlives_a_killed_process(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from lemni.stores.base import Schema
from tests.stores.contract import page
from tests.stores.test_milvus import opened
store = opened(Path({str(tmp_path)!r}))
store.create(Schema({WIDTH}))
store.write(page(500))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr[-1000:]
    store, entries = opened(tmp_path), page(500)
    assert store.count() == 500
    found = store.fetch(entries.ids)
    assert (found.texts, found.metadata) == (entries.texts, entries.metadata)
    np.testing.assert_array_equal(found.vectors, np.asarray(entries.vectors))


def test_another_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    opened(tmp_path).create(Schema(WIDTH))
    program = f"from lemni.stores import open_store; open_store('milvus:{tmp_path}/milvus.db?collection=docs')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "does another process have it?" in ended.stderr.splitlines()[-1]


def test_addresses_that_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for address, words in {
        "milvus:x.db": "which collection",
        "milvus:folder?collection=docs": r"milvus:FILE\.db",
        "milvus:x.db?collection=docs&idtype=uuid": "str or int",
        "milvus:x.db?collection=docs&metric=l2": "unknown option 'metric'",
    }.items():
        with pytest.raises(StoreError, match=words):
            open_store(address)
    monkeypatch.setenv("MILVUS_TOKEN", "root:verysecret")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:9") as caught:
        open_store("milvus://127.0.0.1:9?collection=docs")
    assert "verysecret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    monkeypatch.delitem(sys.modules, "lemni.stores.milvus", raising=False)
    with pytest.raises(MissingExtra, match=r"needs the package 'pymilvus'.*pip install 'lemni\[milvus\]'"):
        open_store("milvus:x.db?collection=docs")


def test_ids_with_any_characters(tmp_path: Path) -> None:
    names = [
        " a ",
        'it\'s "quoted"',
        "back\\slash",
        "\\u0041",
        "\x01\x7f",
        "\ttab\nline\rend",
        "100%_*",
        "007",
        "Ω 猫 🦉",
    ]
    one = opened(tmp_path)
    one.create(Schema(WIDTH))
    entries = page(len(names), names=lambda at: names[at])
    one.write(entries)
    order = [name for part in one.pages(2) for name in part.ids]
    assert sorted(order) == sorted(names)
    for at, name in enumerate(order):
        assert [later for part in one.pages(4, after=name) for later in part.ids] == order[at + 1 :]
        assert one.fetch([name]).ids == [name]
