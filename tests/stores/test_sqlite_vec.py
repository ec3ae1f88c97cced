"""SQLite with sqlite-vec: its own tables, those of applications, and a writer that is killed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlite_vec

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.stores.sqlite_layout import module
from tests.stores.contract import WIDTH, StoreContract, by_id, page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def one(collection: str, **options: str) -> Store:
        more = "".join(f"&{name}={value}" for name, value in options.items())
        stores.append(open_store(f"sqlite-vec:{path}?collection={collection}{more}"))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


@pytest.fixture
def database(path: Path) -> Iterator[Any]:
    """What an application has open."""
    connection = module().connect(path, isolation_level=None)
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    yield connection
    connection.close()


class TestContract(StoreContract):
    metrics = ("cosine", "l2")

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return opened


class TestWholeNumbers(TestContract):
    names = staticmethod(lambda number: 1000 - 7 * number)  # not in the order of the rows


def rows(count: int, names: Callable[[int], Any] = str) -> Page:
    return page(count, names=names)


def test_opening_makes_nothing(path: Path, opened: Callable[..., Store]) -> None:
    store = opened("docs")
    assert not store.exists()
    store.drop()
    with pytest.raises(StoreError, match="those there: none"):
        store.describe()
    assert not path.exists()
    store.create(Schema(WIDTH))
    assert path.exists()


def test_ids_of_both_kinds_stay_what_they_are(opened: Callable[..., Store]) -> None:
    store = opened("docs")
    store.create(Schema(WIDTH))
    ids: list[Any] = [7, "7", "a", -1, 2**62, "007"]
    store.write(Page(ids, list("abcdef"), [{}] * 6, np.eye(6, WIDTH, dtype=np.float32)))
    (found,) = store.pages(10)
    assert found.ids == ids
    assert store.fetch(["7", 7], vectors=False).texts == ["b", "a"]
    with pytest.raises(StoreError, match="too large"):
        store.write(Page([2**63], ["x"], [{}], np.ones((1, WIDTH), np.float32)))
    assert store.count() == 6


def test_names_with_quotes_and_blanks(opened: Callable[..., Store]) -> None:
    name = "a \"b'; DROP TABLE x; --"
    store = opened(name)
    entries = rows(5, names=lambda number: f"x' OR 1=1 --{number}")
    for one in (store, store.sibling(f"{name} new")):
        one.create(Schema(WIDTH))
        one.write(entries)
    assert by_id(store.fetch(entries.ids)) == by_id(entries)
    assert store.search(np.asarray(entries.vectors)[:1], 1) == [entries.ids[:1]]
    assert store.sibling(f"{name} new").switch(name) == f"{name}_old"
    assert (opened(name).count(), opened(f"{name}_old").count()) == (5, 5)


def test_a_program_that_has_the_file_open_sees_the_switch(opened: Callable[..., Store], database: Any) -> None:
    old, new = opened("docs"), opened("docs_new")
    for number, one in enumerate((old, new)):
        one.create(Schema(3 + number))
        one.write(Page([1, 2], ["a", "b"], [{}, {}], np.eye(2, 3 + number, dtype=np.float32)))
    statement = (
        "SELECT e.id, vec_length(v.embedding) FROM docs v JOIN docs_entries e ON e.rowid = v.rowid "
        "WHERE v.embedding MATCH ? AND k = 1"
    )
    assert list(database.execute(statement, (np.eye(1, 3, dtype=np.float32).tobytes(),))) == [(1, 3)]
    new.switch("docs")
    assert list(database.execute(statement, (np.eye(1, 4, dtype=np.float32).tobytes(),))) == [(1, 4)]
    new.write(Page([3], ["c"], [{}], np.ones((1, 4), np.float32)))  # the store follows its table
    assert (new.collection, new.count(), opened("docs_old").count()) == ("docs", 3, 2)
    opened("docs_old").drop()
    assert list(database.execute("PRAGMA integrity_check")) == [("ok",)]
    assert [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE name LIKE 'docs_old%'")] == []


def test_vectors_beside_a_table_of_the_application(opened: Callable[..., Store], database: Any) -> None:
    database.execute("CREATE TABLE documents (id TEXT PRIMARY KEY, body TEXT, year INT, raw BLOB, tags TEXT)")
    database.execute("CREATE VIRTUAL TABLE vec_documents USING vec0(embedding float[4])")
    vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for number in range(3):
        values = (f"d{number}", f"body {number}", 1900 + number, b"x", None)
        (rowid,) = database.execute("INSERT INTO documents VALUES (?,?,?,?,?) RETURNING rowid", values).fetchone()
        database.execute(
            "INSERT INTO vec_documents (rowid, embedding) VALUES (?,?)", (rowid, vectors[number].tobytes())
        )
    old = opened("vec_documents", entries="documents")
    assert old.describe().schema == Schema(4, "l2")
    (found,) = old.pages(5, vectors=True)
    assert (found.ids, found.texts) == (["d0", "d1", "d2"], ["body 0", "body 1", "body 2"])
    assert found.metadata == [{"year": 1900}, {"year": 1901}, {"year": 1902}]
    np.testing.assert_array_equal(found.vectors, vectors)

    new = old.sibling("vec_documents_new")
    new.create(Schema(2))
    newer = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    with pytest.raises(StoreError, match="'d9' is not in the table documents"):
        new.write(Page(["d0", "d9"], [None, None], [{}, {}], newer[:2]))
    assert new.count() == 0
    new.write(Page(found.ids, found.texts, found.metadata, newer))
    new.write(Page(found.ids[:1], found.texts[:1], found.metadata[:1], newer[:1]))
    assert new.switch("vec_documents") == "vec_documents_old"
    served = opened("vec_documents", entries="documents")
    np.testing.assert_array_equal(served.fetch(["d2", "d0"]).vectors, newer[[2, 0]])
    assert served.search(newer[:1], 1) == [["d0"]]
    opened("vec_documents_old", entries="documents").drop()
    assert list(database.execute("SELECT count(*) FROM documents")) == [(3,)]


def test_entries_in_the_vec0_table_itself(opened: Callable[..., Store], database: Any) -> None:
    database.execute(
        "CREATE VIRTUAL TABLE books USING vec0(isbn text primary key, shelf integer partition key, genre text, "
        "+contents text, cover float[2], Summary FLOAT[4] distance_metric=cosine, small int8[4])"
    )
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    for number in range(5):
        database.execute(
            "INSERT INTO books (isbn, shelf, genre, contents, cover, summary, small) VALUES (?,?,?,?,?,?,vec_int8(?))",
            (
                f"i{number}",
                number % 2,
                "g",
                f"c{number}",
                bytes(8),
                vectors[number].tobytes(),
                bytes([number, 255, 1, 2]),
            ),
        )
    store = opened("books", vector="Summary", text="contents")
    assert store.describe().schema == Schema(4)
    pages = list(store.pages(2, vectors=True))
    assert [one for part in pages for one in part.ids] == [f"i{number}" for number in range(5)]
    assert (pages[1].texts, pages[1].metadata[0]) == (["c2", "c3"], {"shelf": 0, "genre": "g"})
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in pages]), vectors)
    assert [part.ids for part in store.pages(9, after="i3")] == [["i4"]]
    assert store.search(vectors[2:3], 1) == [["i2"]]
    small = opened("books", vector="small")
    assert np.asarray(small.fetch(["i3"]).vectors).tolist() == [[3, -1, 1, 2]]
    with pytest.raises(StoreError, match="not written"):
        store.write(pages[0])
    new = opened("books_new")
    new.create(Schema(4))
    with pytest.raises(CannotSwitch, match="columns of the vec0 table itself"):
        new.switch("books")
    assert (store.count(), new.count()) == (5, 0)
    database.execute("CREATE VIRTUAL TABLE bare USING vec0(v float[2])")
    database.execute("INSERT INTO bare (rowid, v) VALUES (5, ?)", (bytes(8),))
    assert opened("bare").fetch([5]).ids == [5]


def test_what_cannot_be_is_said(opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    store = opened("docs")
    with pytest.raises(StoreError, match="not dense ones by dot"):
        store.create(Schema(WIDTH, "dot"))
    store.create(Schema(WIDTH))
    with pytest.raises(StoreError, match="'a' is no JSON"):
        store.write(Page(["a"], ["t"], [{"x": object()}], np.ones((1, WIDTH), np.float32)))
    store.write(rows(1))
    with pytest.raises(StoreError, match="4096"):
        store.search(np.ones((1, WIDTH)), 5000)
    with pytest.raises(StoreError, match="those there: docs"):
        opened("absent").describe()
    with pytest.raises(StoreError, match="no table 'absent'"):
        opened("docs", entries="absent").count()
    with pytest.raises(StoreError, match="no id 'x'"):
        next(store.pages(5, after="x"))
    path.with_name("text.db").write_text("no database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite-vec:{path.with_name('text.db')}?collection=docs")
    import sqlite3

    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        monkeypatch.setitem(sys.modules, "pysqlite3", None)
        with pytest.raises(StoreError, match="pip install pysqlite3"):
            opened("docs")


def test_a_killed_writer_loses_nothing_and_leaves_nothing_half(path: Path, opened: Callable[..., Store]) -> None:
    program = textwrap.dedent(
        f"""
        from lemni.stores import open_store
        from lemni.stores.base import Schema
        from tests.stores.test_sqlite_vec import rows
        import numpy as np
        store = open_store("sqlite-vec:{path}?collection=docs")
        store.create(Schema(8))
        entries = rows(20_000)
        for at in range(0, 20_000, 50):
            part = [column[at : at + 50] for column in (entries.ids, entries.texts, entries.metadata, entries.vectors)]
            store.write(type(entries)(*part))
            print(at + 50, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(next(writer.stdout)) for _ in range(7)]
        writer.kill()
        said += [int(line) for line in writer.stdout if line.endswith("\n")]
    store = opened("docs")
    count = store.count()
    assert count in (said[-1], said[-1] + 50)
    entries = rows(count)
    found = store.fetch(entries.ids)
    assert by_id(found) == by_id(entries)
    np.testing.assert_array_equal(found.vectors, entries.vectors)


def test_a_switch_asked_for_again_gives_the_same_answer(opened: Callable[..., Store]) -> None:
    vectors = np.eye(2, 4, dtype=np.float32)
    for name, had in (("taken", True), ("free", False)):
        old, new = opened(name), opened(f"{name}_new")
        for number, one in enumerate((old, new) if had else (new,)):
            one.create(Schema(4))
            one.write(Page([str(number)], ["t"], [{}], vectors[number : number + 1]))
        kept = new.switch(name)
        assert (kept is not None) == had
        again = opened(f"{name}_new")  # the one who asked was killed, and asks again
        assert again.switch(name) == kept
        assert again.collection == name
        assert [found.ids for found in opened(name).pages(5)] == [["1" if had else "0"]]
        with pytest.raises(StoreError, match=f"{name}_new"):
            opened(f"{name}_new").switch(f"{name}_other")
        if kept:
            opened(kept).switch(name)
            with pytest.raises(StoreError, match=f"{name}_new"):
                opened(f"{name}_new").switch(name)  # that one is undone
