"""FAISS and SQLite in a folder: the real libraries."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import sqlite3
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from langchain_core.documents import Document

from lemni.errors import CannotSwitch, MissingExtra, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from tests.stores.contract import WIDTH, StoreContract, page


class TestFaiss(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Callable[[str], Store]:
        return lambda collection: open_store(f"faiss:{tmp_path}?collection={collection}")


def opened(folder: Path, collection: str = "docs", **options: str) -> Store:
    more = "".join(f"&{name.replace('_', '-')}={value}" for name, value in options.items())
    return open_store(f"faiss:{folder}?collection={collection}{more}")


def test_opening_makes_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path / "data")
    assert not store.exists()
    with pytest.raises(StoreError, match="no such collection"):
        store.count()
    assert list(tmp_path.iterdir()) == []


def test_without_lemni_the_two_files_can_be_read(tmp_path: Path) -> None:
    store = open_store(f"faiss:{tmp_path}/docs")
    assert store.collection == "docs"
    store.create(Schema(WIDTH, "cosine"))
    entries = page(30)
    lengths = np.arange(1, 31, dtype=np.float32)[:, None]  # cosine does not look at them, and they are kept
    store.write(Page(entries.ids, entries.texts, entries.metadata, np.asarray(entries.vectors) * lengths))
    assert "is not of these entries yet" in store.describe().notes[1]
    store.close()
    assert store.describe().notes == ("index Flat",)
    index = faiss.read_index(f"{tmp_path}/docs/index.faiss")
    np.testing.assert_allclose(index.reconstruct_n(0, 30), np.asarray(entries.vectors), atol=1e-6)
    scores, places = index.search(np.asarray(entries.vectors)[4:5], 1)
    assert scores[0, 0] == pytest.approx(1, abs=1e-6)
    database = sqlite3.connect(tmp_path / "docs/docstore.sqlite")
    found = database.execute(
        "SELECT id, text, metadata FROM entries WHERE position = ?", (int(places[0, 0]),)
    ).fetchone()
    database.close()
    assert (found[0], found[1], json.loads(found[2])) == (entries.ids[4], entries.texts[4], entries.metadata[4])
    kept = store.fetch(entries.ids).vectors
    np.testing.assert_array_equal(kept, np.asarray(entries.vectors) * lengths)


def test_an_overwritten_entry_keeps_its_place(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    store.write(page(10))
    store.close()
    newer = page(3, start=4, seed=9)
    store.write(newer)
    assert store.search(newer.vectors, 1) == [["4"], ["5"], ["6"]]
    assert [name for part in store.pages(3) for name in part.ids] == [str(number) for number in range(10)]
    index = faiss.read_index(f"{tmp_path}/docs/index.faiss")
    np.testing.assert_allclose(index.reconstruct_n(4, 3), np.asarray(newer.vectors), atol=1e-6)
    assert index.ntotal == 10


def test_ids_are_texts_or_numbers_and_metadata_comes_back_exactly(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    names: list[str | int] = ["1", 1, "", 'it\'s "x"\n', 2**63 - 1, "1"]
    given: list[dict[str, Any]] = [
        {"a": 1},
        {"a": 1.0, "b": [None, {"c": True}]},
        {},
        {"naïve Ω": "猫"},
        {"n": None},
        {"x": 0.1},
    ]
    entries = page(6)
    store.write(Page(names, entries.texts, given, entries.vectors))
    assert store.count() == 5
    found = store.fetch([1, "1", 2**63 - 1, "", 'it\'s "x"\n'])
    assert found.ids == [1, "1", 2**63 - 1, "", 'it\'s "x"\n']
    assert found.metadata == [given[1], given[5], given[4], {}, given[3]]
    assert type(found.metadata[0]["a"]) is float
    (all_of_them,) = store.pages(9)
    assert all_of_them.ids == ["1", 1, "", 'it\'s "x"\n', 2**63 - 1]
    with pytest.raises(StoreError, match="too large"):
        store.write(Page([2**63], ["t"], [{}], np.asarray(entries.vectors)[:1]))
    with pytest.raises(StoreError, match="id 'd': metadata that is no JSON"):
        store.write(Page(["d"], ["t"], [{"when": datetime.date(2024, 1, 1)}], np.asarray(entries.vectors)[:1]))
    assert store.count() == 5


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "IVF8,Flat"])
def test_other_indexes(tmp_path: Path, factory: str) -> None:
    store = opened(tmp_path, factory=factory, nprobe="8")
    store.create(Schema(WIDTH, "l2"))
    entries = page(400)
    store.write(entries)
    assert store.search(np.asarray(entries.vectors)[:20], 1) == [[name] for name in entries.ids[:20]]
    copy = opened(tmp_path, "copy")
    copy.create(Schema(16, "dot"), like=store)
    copy.write(page(400, width=16))
    copy.close()
    made = faiss.read_index(f"{tmp_path}/copy/index.faiss")
    expected = faiss.index_factory(16, factory, faiss.METRIC_INNER_PRODUCT)
    assert (type(made), made.ntotal, made.metric_type) == (type(expected), 400, faiss.METRIC_INNER_PRODUCT)


def test_what_faiss_says_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="could not parse index string Nope"):
        opened(tmp_path, factory="Nope").create(Schema(WIDTH))
    store = opened(tmp_path, factory="IVF64,Flat")
    store.create(Schema(WIDTH))
    store.write(page(10))
    with pytest.raises(StoreError, match="training points"):
        store.close()
    assert store.count() == 10


def test_a_killed_process_loses_nothing_and_the_index_is_the_same(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from lemni.stores.base import Schema
from tests.stores.contract import page
from tests.stores.test_faiss import opened
store = opened(Path({str(tmp_path)!r}))
store.create(Schema({WIDTH}))
store.write(page(300))
store.close()
store.write(page(200, start=300))
os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr[-1000:]
    store, whole = opened(tmp_path), opened(tmp_path, "whole")
    assert store.count() == 500
    assert len(store.describe().notes) == 2
    for one, starts in ((store, (200,)), (whole, (0, 200))):  # what a job does again after it was killed
        one.create(Schema(WIDTH))
        for start in starts:
            one.write(page(200 if start == 0 else 300, start=start))
        one.close()
    docs, expected = ((tmp_path / name / "index.faiss").read_bytes() for name in ("docs", "whole"))
    assert docs == expected
    (all_of_them,) = store.pages(1000)
    assert all_of_them.texts == page(500).texts


def langchain(monkeypatch: pytest.MonkeyPatch, folder: Path, documents: dict[str, Document], vectors: Any) -> None:
    """A folder as LangChain's `FAISS.save_local` writes it."""
    module = types.ModuleType("langchain_community.docstore.in_memory")

    class InMemoryDocstore:
        def __init__(self, kept: dict[str, Document]) -> None:
            self._dict = kept

    InMemoryDocstore.__module__, InMemoryDocstore.__qualname__ = module.__name__, "InMemoryDocstore"
    module.InMemoryDocstore = InMemoryDocstore  # type: ignore[attr-defined]
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    folder.mkdir()
    faiss.write_index(index, str(folder / "index.faiss"))
    with monkeypatch.context() as patched:
        for name in ("langchain_community", "langchain_community.docstore"):
            patched.setitem(sys.modules, name, types.ModuleType(name))
        patched.setitem(sys.modules, module.__name__, module)
        written = pickle.dumps((InMemoryDocstore(documents), dict(enumerate(documents))))
    (folder / "index.pkl").write_bytes(written)


def test_langchains_folder_is_read_when_its_pickle_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = page(12)
    metadata = [{**one, "when": datetime.datetime(2024, 1, at + 1)} for at, one in enumerate(entries.metadata)]
    documents = {
        f"uuid-{at}": Document(page_content=str(text), metadata=data, id=f"uuid-{at}")
        for at, (text, data) in enumerate(zip(entries.texts, metadata, strict=True))
    }
    langchain(monkeypatch, tmp_path / "docs", documents, np.asarray(entries.vectors))
    with pytest.raises(StoreError, match=r"index\.pkl is a pickle, which can hold code; say &trust-pickle=1"):
        opened(tmp_path).describe()
    for store in (opened(tmp_path, trust_pickle="1"), open_store(f"faiss:{tmp_path}/docs?trust-pickle=1")):
        pages = list(store.pages(5, vectors=True))
        assert [len(one) for one in pages] == [5, 5, 2]
        assert [name for one in pages for name in one.ids] == list(documents)
        assert [text for one in pages for text in one.texts] == entries.texts
        assert [data for one in pages for data in one.metadata] == metadata
        np.testing.assert_array_equal(np.concatenate([one.vectors for one in pages]), np.asarray(entries.vectors))
        assert store.describe().schema == Schema(WIDTH, "l2")
        assert (store.count(), store.fetch(["uuid-7", "no", "uuid-2"]).ids) == (12, ["uuid-7", "uuid-2"])
        assert [name for one in store.pages(5, after="uuid-9") for name in one.ids] == ["uuid-10", "uuid-11"]
        assert store.search(np.asarray(entries.vectors)[3:5], 1) == [["uuid-3"], ["uuid-4"]]
        with pytest.raises(StoreError, match="LangChain's folder is only read"):
            store.write(entries)
    new = opened(tmp_path, "new")
    new.create(Schema(WIDTH), like=store)
    new.write(page(2))
    with pytest.raises(CannotSwitch, match=r"let the application take .*new/index\.faiss"):
        new.switch("docs")
    assert store.count() == 12


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documents = {"a": Document(page_content="x", metadata={"bad": Evil()})}
    langchain(monkeypatch, tmp_path / "docs", documents, np.ones((1, 4), np.float32))
    with pytest.raises(StoreError, match=r"wants to make a posix\.mkdir"):
        next(opened(tmp_path, trust_pickle="1").pages(5))
    assert not (tmp_path / "pwned").exists()
    (tmp_path / "docs/index.pkl").write_bytes(b"\x80\x04nothing")
    with pytest.raises(StoreError, match="is no docstore of LangChain"):
        next(opened(tmp_path, trust_pickle="1").pages(5))


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8,Flat"])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_bare_index_and_its_documents(tmp_path: Path, factory: str, suffix: str) -> None:
    entries = page(200)
    vectors = np.asarray(entries.vectors)
    index = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, f"{tmp_path}/mine.faiss")
    rows = [
        {"key": name, "body": text, **data}
        for name, text, data in zip(entries.ids, entries.texts, entries.metadata, strict=True)
    ]
    documents = tmp_path / f"mine.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), documents, row_group_size=70)
    else:
        documents.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = open_store(f"faiss:{tmp_path}/mine.faiss?docstore={documents}&id=key")
    pages = list(store.pages(64, vectors=True))
    assert [name for one in pages for name in one.ids] == entries.ids
    assert [text for one in pages for text in one.texts] == entries.texts
    assert [data for one in pages for data in one.metadata] == entries.metadata
    np.testing.assert_array_equal(np.concatenate([one.vectors for one in pages]), vectors)
    assert store.describe().schema == Schema(WIDTH, "dot")
    assert store.fetch(["77", "5"]).texts == [entries.texts[77], entries.texts[5]]
    assert [name for one in store.pages(64, after="150") for name in one.ids] == entries.ids[151:]
    with pytest.raises(StoreError, match="has no 'titel'; it has key, body"):
        next(open_store(f"faiss:{tmp_path}/mine.faiss?docstore={documents}&text=titel").pages(3))
    new = store.sibling("new")
    new.create(Schema(WIDTH))
    assert (tmp_path / "new/docstore.sqlite").exists()
    with pytest.raises(CannotSwitch, match=r"mine\.faiss is not of Lemni's form"):
        new.switch("mine")


def test_a_bare_index_without_documents_and_one_with_numbers(tmp_path: Path) -> None:
    vectors = np.asarray(page(4).vectors)
    index = faiss.IndexIDMap2(faiss.IndexFlatL2(WIDTH))
    index.add_with_ids(vectors, np.array([40, 10, 30, 20]))
    faiss.write_index(index, f"{tmp_path}/mine.faiss")
    store = open_store(f"faiss:{tmp_path}/mine.faiss")
    (found,) = store.pages(9, vectors=True)
    assert (found.ids, found.texts) == ([40, 10, 30, 20], [None] * 4)
    np.testing.assert_array_equal(found.vectors, vectors)
    assert store.search(vectors[2:3], 1) == [[30]]
    documents = tmp_path / "mine.jsonl"
    documents.write_text("".join(json.dumps({"id": one, "text": f"t{one}"}) + "\n" for one in (10, 20, 30, 40)))
    (joined,) = open_store(f"faiss:{tmp_path}/mine.faiss?docstore={documents}").pages(9, vectors=True)
    assert (joined.ids, joined.texts) == ([10, 20, 30, 40], ["t10", "t20", "t30", "t40"])
    np.testing.assert_array_equal(joined.vectors, vectors[[1, 3, 2, 0]])
    for text, words in (
        ('{"id": 10}\n', "1 rows of documents for 4 vectors"),
        ('{"id": 11}\n', "no vector with the number 11"),
        ("[]\n", "jsonl:1: is no JSON object"),
        ("{\n", "jsonl:1: is no JSON: "),
        ('{"id": null}\n', "row 0 has no id"),
        ('{"id": 10, "text": 5}\n', "'text' of row 0 is no text: 5"),
    ):
        documents.write_text(text)
        with pytest.raises(StoreError, match=words):
            list(open_store(f"faiss:{tmp_path}/mine.faiss?docstore={documents}").pages(9))


def test_a_folder_with_something_else_is_not_removed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    store.create(Schema(WIDTH))
    (tmp_path / "docs/thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        store.drop()
    (tmp_path / "docs/thesis.txt").unlink()
    store.drop()
    assert list(tmp_path.iterdir()) == []


def test_addresses_that_are_none() -> None:
    for address, words in {
        "faiss:?collection=docs": "faiss:FOLDER",
        "faiss://host/data?collection=docs": "faiss:FOLDER",
        "faiss:data?collection=../docs": "is no name of a folder",
        "faiss:data?collection=docs&nprobe=x": "whole number",
        "faiss:data?collection=docs&metric=l2": "unknown option 'metric'",
    }.items():
        with pytest.raises(StoreError, match=words):
            open_store(address)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.delitem(sys.modules, "lemni.stores.faiss", raising=False)
    with pytest.raises(MissingExtra, match=r"needs the package 'faiss-cpu'.*pip install 'lemni\[faiss\]'"):
        open_store("faiss:data?collection=docs")
