"""LanceDB in a folder: the real library."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer

from lemni.errors import CannotSwitch, MissingExtra, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from tests.stores.contract import WIDTH, StoreContract, page


class TestLanceDB(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[str], Store]:
        return lambda collection: open_store(f"lancedb:{tmp_path}?collection={collection}")


def opened(folder: Path, collection: str = "docs", **options: str) -> Store:
    return open_store(f"lancedb:{folder}?collection={collection}" + "".join(f"&{k}={v}" for k, v in options.items()))


def theirs(folder: Path, rows: list[dict[str, Any]], **types: pa.DataType) -> Any:
    """A table as an application makes it."""
    schema = pa.schema([pa.field(name, kind) for name, kind in types.items()])
    data = pa.Table.from_pylist(rows, schema=schema)
    return lancedb.connect(folder).create_table("docs", data=data, on_bad_vectors="null")


def test_opening_makes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path / "data")
    assert not store.exists()
    with pytest.raises(StoreError, match="no such table"):
        store.count()
    assert not (tmp_path / "data").exists()


def test_a_table_that_was_there_is_read_and_copied_with_all_its_types(tmp_path: Path) -> None:
    when = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456)
    rows = [
        {
            "id": number,
            "body": f"text {number}",
            "embedding": [float(number), 1.0],
            "year": None if number == 1 else 1900 + number,
            "when": when,
            "metadata": {"source": f"s{number}", "tags": ["a", str(number)], "deep": {"x": number / 4}},
        }
        for number in range(3)
    ]
    nested = pa.struct(
        {"source": pa.string(), "tags": pa.list_(pa.string()), "deep": pa.struct({"x": pa.float64()})},
    )
    theirs(
        tmp_path,
        rows,
        id=pa.int64(),
        body=pa.string(),
        embedding=pa.list_(pa.float32(), 2),
        year=pa.int16(),
        when=pa.timestamp("us"),
        metadata=nested,
    )
    store = opened(tmp_path)
    (found,) = store.pages(10, vectors=True)
    assert store.id_type == "int"
    assert found.ids == [0, 1, 2]
    assert found.texts == ["text 0", "text 1", "text 2"]
    assert found.metadata == [{name: row[name] for name in ("year", "when", "metadata")} for row in rows]
    np.testing.assert_array_equal(found.vectors, [[0, 1], [1, 1], [2, 1]])
    assert store.describe().schema == Schema(2, "l2")
    assert "LanceDB's default is l2" in store.describe().notes[0]

    copy = store.sibling("copy")
    copy.create(Schema(WIDTH, "cosine"), like=store)
    vectors = page(3).vectors
    copy.write(Page(found.ids, found.texts, found.metadata, vectors))
    again = copy.fetch([2, 0, 1])
    assert again.metadata == [found.metadata[at] for at in (2, 0, 1)]
    assert copy.describe().schema == Schema(WIDTH, "cosine")
    before, after = (lancedb.connect(tmp_path).open_table(name).schema for name in ("docs", "copy"))
    assert [one for one in after if one.name != "embedding"] == [one for one in before if one.name != "embedding"]

    with pytest.raises(StoreError, match=r"id 0: 'many' does not fit into the column 'year' \(int16\)"):
        copy.write(Page([0], ["t"], [{"year": "many"}], np.asarray(vectors)[:1]))
    with pytest.raises(StoreError, match="id 0: no column for 'colour'"):
        copy.write(Page([0], ["t"], [{"colour": 1}], np.asarray(vectors)[:1]))
    assert copy.fetch([0]).metadata == [found.metadata[0]]


def test_other_columns_are_chosen_by_name(tmp_path: Path) -> None:
    vector = pa.list_(pa.float16(), 2)
    theirs(
        tmp_path,
        [{"key": "a", "text": "no", "title": "yes", "v1": [1, 2], "v2": [3, 4]}],
        key=pa.string(),
        text=pa.string(),
        title=pa.string(),
        v1=vector,
        v2=vector,
    )
    with pytest.raises(StoreError, match=r"no column 'id'; choose one by &id=: key, text"):
        opened(tmp_path).describe()
    with pytest.raises(StoreError, match="no column 'titel'"):
        opened(tmp_path, id="key", text="titel").describe()
    (found,) = opened(tmp_path, id="key", text="title", vector="v2").pages(5, vectors=True)
    assert (found.ids, found.texts, found.metadata) == (["a"], ["yes"], [{"text": "no", "v1": [1.0, 2.0]}])
    np.testing.assert_array_equal(found.vectors, [[3, 4]])


def test_metadata_of_any_form_comes_back_exactly(tmp_path: Path) -> None:
    store = opened(tmp_path, columns="title:string,year:int64,score:float32")
    store.create(Schema(WIDTH))
    given: list[dict[str, Any]] = [
        {"title": "T", "year": 3, "score": 0.5},
        {"title": None, "year": 3.0, "score": 0.1},
        {"title": 7, "year": True, "id": "mine", "text": "theirs", "metadata": {"a": [1, 2.0, None]}},
        {},
        {"naïve Ω": "猫", "year": 2**70},
    ]
    entries = page(len(given))
    store.write(Page(entries.ids, entries.texts, given, entries.vectors))
    found = store.fetch(entries.ids).metadata
    assert found == given
    assert [{key: type(value) for key, value in one.items()} for one in found] == [
        {key: type(value) for key, value in one.items()} for one in given
    ]
    table = lancedb.connect(tmp_path).open_table("docs")
    assert [one["id"] for one in table.search().where("year = 3").to_list()] == [entries.ids[0]]


def test_ids_with_quotes_and_the_later_of_two_equal_ones(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    names = ["it's", 'say "x"', "back\\slash\n", "it's", "猫"]
    entries = page(5)
    store.write(Page(names, entries.texts, entries.metadata, entries.vectors))
    assert store.count() == 4
    found = store.fetch([*names[:3], "猫"])
    assert found.ids == [*names[:3], "猫"]
    assert found.texts[0] == entries.texts[3]


def test_many_writes_are_joined_and_the_order_is_the_same_every_time(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    entries = page(300)
    for start in range(0, 300, 4):
        part = slice(start, start + 4)
        vectors = np.asarray(entries.vectors)[part]
        store.write(Page(entries.ids[part], entries.texts[part], entries.metadata[part], vectors))
    store.close()
    found = list(opened(tmp_path).pages(130))
    assert [len(one) for one in found] == [130, 130, 40]
    order = [name for one in found for name in one.ids]
    assert sorted(order) == sorted(entries.ids)
    assert [name for one in opened(tmp_path).pages(70) for name in one.ids] == order
    assert [name for one in opened(tmp_path).pages(70, after=order[200]) for name in one.ids] == order[201:]
    assert lancedb.connect(tmp_path).open_table("docs").stats()["fragment_stats"]["num_fragments"] == 1


@pytest.mark.parametrize(("index", "kind"), [("ivf_pq", "IVF_PQ"), ("hnsw", "IVF_HNSW_SQ")])
def test_an_index_is_built_when_asked_for(tmp_path: Path, index: str, kind: str) -> None:
    store = opened(tmp_path, index=index)
    store.create(Schema(16, "dot"))
    store.write(page(300, width=16))
    assert store.describe().notes == ("no index: searched exactly",)
    store.close()
    assert store.describe().notes == (f"index {kind}",)
    assert store.describe().schema == Schema(16, "dot")
    copy = opened(tmp_path, "copy")
    copy.create(Schema(16, "cosine"), like=store)
    copy.write(page(300, width=16))
    copy.close()
    assert copy.describe().notes == (f"index {kind}",)
    assert copy.describe().schema == Schema(16, "cosine")


def test_multi_vectors(tmp_path: Path) -> None:
    store = opened(tmp_path, idtype="int")
    with pytest.raises(StoreError, match="by cosine, not by dot"):
        store.create(Schema(4, "dot", "multi_vector"))
    store.create(Schema(4, "cosine", "multi_vector"))
    drawn = np.random.default_rng(0)
    vectors = [drawn.normal(size=(tokens, 4)).astype(np.float32) for tokens in (1, 3, 2)]
    store.write(Page([5, 6, 7], ["a", "b", None], [{}, {"x": 1}, {}], vectors))
    found = store.fetch([5, 6, 7])
    assert (found.texts, found.metadata) == (["a", "b", None], [{}, {"x": 1}, {}])
    assert isinstance(found.vectors, list)
    for one, other in zip(found.vectors, vectors, strict=True):
        np.testing.assert_array_equal(one, other)

    def unit(one: Any) -> Any:
        return one / np.linalg.norm(one, axis=-1, keepdims=True)

    scores = [float((unit(vectors[2]) @ unit(one).T).max(axis=1).sum()) for one in vectors]
    assert store.search([vectors[2]], 3) == [[[5, 6, 7][at] for at in np.argsort(scores)[::-1]]]
    assert store.describe().schema == Schema(4, "cosine", "multi_vector")


def test_addresses_that_are_none() -> None:
    for address, words in {
        "lancedb:data": "which table",
        "lancedb:?collection=docs": "which folder",
        "lancedb://host/data?collection=docs": "lancedb:FOLDER",
        "lancedb:data?collection=docs&index=lsh": "index is ivf_pq, hnsw or none",
        "lancedb:data?collection=docs&idtype=uuid": "str or int",
        "lancedb:data?collection=docs&metric=l2": "unknown option 'metric'",
    }.items():
        with pytest.raises(StoreError, match=words):
            open_store(address)


def test_what_is_no_folder_cannot_switch() -> None:
    store = open_store("lancedb:?uri=memory://&collection=docs")
    store.create(Schema(WIDTH))
    store.write(page(2))
    with pytest.raises(CannotSwitch, match="let the application open 'docs' instead of 'old'"):
        store.switch("old")


def test_a_switch_to_a_name_that_meant_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path, "new")
    store.create(Schema(WIDTH))
    store.write(page(3))
    assert store.switch("docs") is None
    assert opened(tmp_path).count() == 3
    with pytest.raises(StoreError, match="no such folder"):
        store.switch("other")


def test_lemni_notes_are_json_for_every_reader(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    entries = page(2)
    store.write(entries)
    rows = lancedb.connect(tmp_path).open_table("docs").to_arrow().sort_by("id").to_pylist()
    assert [json.loads(row["metadata"]) for row in rows] == entries.metadata
    assert [row["text"] for row in rows] == entries.texts


def test_a_killed_writer_leaves_whole_batches_and_is_resumed(tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from lemni.stores.base import Schema
from tests.stores.contract import page
from tests.stores.test_lancedb import opened
store = opened(Path({str(tmp_path)!r}))
store.create(Schema({WIDTH}))
for start in range(0, 100_000, 20):
    store.write(page(20, start=start))
    print(start, flush=True)
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 100:
                break
        writer.kill()
        said = max([100, *map(int, writer.stdout.read().split())])
    store = opened(tmp_path)
    count = store.count()
    assert count % 20 == 0
    assert count >= said + 20
    store.create(Schema(WIDTH))
    total = count + 40
    store.write(page(total))  # from the beginning: what is there already is overwritten
    store.close()
    entries = page(total)
    (found,) = store.pages(total + 1, vectors=True)
    assert sorted(found.ids) == sorted(entries.ids)
    again = store.fetch(entries.ids)
    assert (again.texts, again.metadata) == (entries.texts, entries.metadata)


def test_a_null_id_is_told(tmp_path: Path) -> None:
    theirs(
        tmp_path,
        [{"id": None, "vector": [1.0, 2.0]}, {"id": "a", "vector": None}],
        id=pa.string(),
        vector=pa.list_(pa.float32(), 2),
    )
    with pytest.raises(StoreError, match="there are rows whose 'id' is null"):
        next(opened(tmp_path).pages(5))
    with pytest.raises(StoreError, match="some of the vectors are null"):
        opened(tmp_path).fetch(["a"])
    assert opened(tmp_path).fetch(["a"], vectors=False).ids == ["a"]


def test_tables_of_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        place = "http://{}:{}".format(*server.get_host_and_port())
        for name, value in {
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "verysecret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": place,
            "AWS_ALLOW_HTTP": "true",
        }.items():
            monkeypatch.setenv(name, value)
        urllib.request.urlopen(urllib.request.Request(f"{place}/bucket", method="PUT")).close()
        store = open_store("lancedb:?uri=s3://bucket/data&collection=docs")
        store.create(Schema(WIDTH))
        store.write(page(5))
        store.write(page(5, start=3))
        assert [len(one) for one in store.pages(5)] == [5, 3]
        assert sorted(name for one in store.pages(5) for name in one.ids) == [str(number) for number in range(8)]
        with pytest.raises(StoreError, match="no such table; there are: docs") as caught:
            store.sibling("new").describe()
        assert "verysecret" not in str(caught.value)
        with pytest.raises(CannotSwitch):
            store.switch("live")
        store.drop()
        assert not store.exists()
    finally:
        server.stop()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lancedb", None)
    monkeypatch.delitem(sys.modules, "lemni.stores.lancedb", raising=False)
    with pytest.raises(MissingExtra, match=r"needs the package 'lancedb'.*pip install 'lemni\[lancedb\]'"):
        open_store("lancedb:data?collection=docs")
