"""PostgreSQL with pgvector, the real server: the contract for both ways of migrating, and what only a database has."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import open_store
from lemni.stores.base import Page, Schema, Store
from lemni.types import SparseVector
from tests.stores.contract import WIDTH, StoreContract, by_id, page
from tests.stores.postgres_server import PostgresServer, postgres, running_postgres

__all__ = ["postgres"]
numbers = itertools.count()


@pytest.fixture
def opened(postgres: PostgresServer) -> Iterator[Callable[..., Store]]:
    stores: list[Store] = []

    def one(collection: str, **options: str) -> Store:
        stores.append(open_store(postgres.address(collection, **options)))
        return stores[-1]

    yield one
    for store in stores:
        store.close()


class TestText(StoreContract):
    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return opened


class TestWholeNumbers(StoreContract):
    names = staticmethod(lambda number: 7 * number)

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return lambda collection: opened(collection, idtype="bigint")


class TestUuidsInHalfPrecision(StoreContract):
    names = staticmethod(lambda number: f"00000000-0000-4000-8000-{number:012d}")
    atol = 5e-4

    @pytest.fixture
    def opened(self, opened: Callable[..., Store]) -> Callable[[str], Store]:
        return lambda collection: opened(collection, idtype="uuid", type="halfvec", schema="public")


def table(postgres: PostgresServer, *statements: str) -> str:
    """A table of its own: `{}` in the statements."""
    name = f"mine{next(numbers)}"
    for statement in statements:
        postgres.execute(statement.replace("{}", name))
    return name


def rows(count: int, *, seed: int = 3, names: Callable[[int], Any] = lambda number: number + 1) -> Page:
    return page(count, seed=seed, names=names)


EVERYTHING = """
CREATE TABLE {} (
    id bigserial PRIMARY KEY, content text, lang varchar(8) NOT NULL DEFAULT 'en', made timestamptz,
    price numeric(12,4), tags text[],
    numbers int[], extra jsonb, raw bytea, tiny real, ok bool, kind uuid, span tstzrange,
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', coalesce(content, ''))) STORED,
    embedding vector(4) NOT NULL, older halfvec(2), CHECK (price >= 0))
"""
FILL = """
INSERT INTO {} (content, lang, made, price, tags, numbers, extra, raw, tiny, ok, kind, span, embedding) SELECT
    'text ' || n, 'de', timestamptz '2024-02-29 12:34:56.789012+02' + n * interval '1 hour', n + 0.1250,
    ARRAY['a "q"', 'b,c', '\\', NULL], ARRAY[n, -1], jsonb_build_object('n', n, 's', 'ü'), decode('00ff', 'hex'), 0.1,
    n % 2 = 0, '6f2bb4a4-0000-4000-8000-000000000001', '[2024-01-01 00:00+00,infinity)', ARRAY[n, 1, 0, 0]::vector
FROM generate_series(1, 5) n
"""


def test_every_column_of_a_table_people_have_comes_along_exactly(
    postgres: PostgresServer, opened: Callable[..., Store]
) -> None:
    name = table(postgres, EVERYTHING, "CREATE INDEX ON {} (lang)", "CREATE INDEX ON {} USING gin (words)",
                 "CREATE INDEX ON {} USING hnsw (embedding vector_ip_ops) WITH (m = 8)", FILL)  # fmt: skip
    postgres.execute(f"CREATE ROLE reader_{name}; GRANT SELECT ON {name} TO reader_{name}")
    old = opened(name)
    assert old.id_type == "int"
    assert old.describe().schema == Schema(4, "dot")
    (found,) = old.pages(10, vectors=True)
    assert found.ids == [1, 2, 3, 4, 5]
    assert found.texts == [f"text {n}" for n in found.ids]
    assert found.metadata[1] == {
        "lang": "de", "made": "2024-02-29 12:34:56.789012+00", "price": "2.1250", "tags": ['a "q"', "b,c", "\\", None],
        "numbers": [2, -1], "extra": {"n": 2, "s": "ü"}, "raw": "\\x00ff", "tiny": 0.1, "ok": True,
        "kind": "6f2bb4a4-0000-4000-8000-000000000001", "span": '["2024-01-01 00:00:00+00",infinity)',
    }  # fmt: skip

    new = old.sibling(f"{name}_new")
    new.create(Schema(3, "cosine"), like=old)
    new.write(Page(found.ids, found.texts, found.metadata, np.eye(5, 3, dtype=np.float32) + 0.5))
    columns = "id, content, lang, made, price, tags, numbers, extra, raw, tiny, ok, kind, span, words"
    there = [
        postgres.execute(f"SELECT t::text FROM (SELECT {columns} FROM {one} ORDER BY id) t")
        for one in (name, f"{name}_new")
    ]
    assert there[0] == there[1]
    indexes = [
        {row[0].replace(f"{name}_new", name) for row in postgres.execute(
            f"SELECT indexdef FROM pg_indexes WHERE tablename = '{one}' AND indexdef !~ 'vector'")}
        for one in (name, f"{name}_new")
    ]  # fmt: skip
    assert indexes[0] == indexes[1]
    assert len(indexes[0]) == 3
    kept = new.switch(name)
    assert kept == f"{name}_old"
    ((index,),) = postgres.execute(f"SELECT indexdef FROM pg_indexes WHERE tablename = '{name}' AND indexdef ~ 'hnsw'")
    assert "vector_cosine_ops" in index
    assert "m='8'" in index
    # The application goes on: its user may read, and new rows get new ids, also when the old table is gone.
    postgres.execute(f"SET ROLE reader_{name}; SELECT count(*) FROM {name}")
    opened(kept).drop()
    ((id_,),) = postgres.execute(f"INSERT INTO {name} (content, embedding) VALUES ('x', '[1,2,3]') RETURNING id")
    assert id_ == 6


def test_an_identity_goes_on_behind_the_copied_rows(postgres: PostgresServer, opened: Callable[..., Store]) -> None:
    name = table(
        postgres,
        "CREATE TABLE {} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text, embedding vector(2))",
        "INSERT INTO {} (body) SELECT 'b' FROM generate_series(1, 3)",
    )
    old = opened(name)
    new = old.sibling(f"{name}_new")
    new.create(Schema(2), like=old)
    for found in old.pages(2):
        new.write(Page(found.ids, found.texts, found.metadata, np.ones((len(found), 2), np.float32)))
    new.switch(name)
    assert postgres.execute(f"INSERT INTO {name} (body) VALUES ('c') RETURNING id") == [(4,)]


def test_a_new_column_of_the_same_table(postgres: PostgresServer, opened: Callable[..., Store]) -> None:
    name = table(postgres, EVERYTHING, FILL)
    old = opened(name)
    new = old.sibling(f"{name}:embedding_new")
    assert not new.exists()
    with pytest.raises(StoreError, match="embedding_new"):
        new.describe()
    new.create(Schema(3))
    new.create(Schema(3))
    with pytest.raises(StoreError, match=r"3 dimensions.*5 dimensions"):
        new.create(Schema(5))
    assert (new.exists(), new.count(), old.count()) == (True, 0, 5)
    before = by_id(next(old.pages(9)))
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    new.write(Page([1, 2, 3], [None] * 3, [{}] * 3, vectors[:3]))
    assert (new.count(), next(new.pages(9)).ids) == (3, [1, 2, 3])
    with pytest.raises(StoreError, match=r"2 of 3 rows.*'77', '78'"):
        new.write(Page([4, 77, 78], [None] * 3, [{}] * 3, vectors[:3]))
    assert (new.count(), old.count()) == (3, 5)
    new.write(Page([3, 4, 5], [None] * 3, [{}] * 3, vectors[2:]))
    assert new.search(vectors[4:], 1) == [[5]]
    new.finish()  # type: ignore[attr-defined]
    assert new.search(vectors[4:], 1) == [[5]]
    assert len(postgres.execute(f"SELECT 1 FROM pg_indexes WHERE indexdef ~ '{name} USING hnsw .embedding_new '")) == 1

    old_vectors = np.asarray(old.fetch([1, 2, 3, 4, 5]).vectors)
    kept = new.switch(name)
    assert kept == f"{name}:embedding_old"
    served = opened(name)
    np.testing.assert_array_equal(served.fetch([1, 2, 3, 4, 5]).vectors, vectors)
    assert by_id(next(served.pages(9))) == before
    # Nobody fills the old column any more, so it may not ask for that; the new one does as it did.
    postgres.execute(f"INSERT INTO {name} (content, embedding) VALUES ('x', '[1,2,3]')")
    with pytest.raises(psycopg.errors.NotNullViolation, match=r'"embedding".*not-null'):
        postgres.execute(f"INSERT INTO {name} (content) VALUES ('x')")
    postgres.execute(f"DELETE FROM {name} WHERE content = 'x'")

    assert opened(kept).switch(f"{name}:embedding") == f"{name}:embedding_old2"
    np.testing.assert_array_equal(opened(name).fetch([1, 2, 3, 4, 5]).vectors, old_vectors)
    opened(f"{name}:embedding_old2").drop()
    assert (opened(name).count(), opened(f"{name}:embedding_old2").exists()) == (5, False)
    with pytest.raises(CannotSwitch):
        opened(f"{name}:embedding").switch(f"other_{name}")


def test_names_with_quotes_blanks_and_statements_in_them(
    postgres: PostgresServer, opened: Callable[..., Store]
) -> None:
    name = "a \"b'; DROP TABLE x; --%25s %7B%7D"  # as it stands in an address
    options = {"id": 'i"d', "vector": "v %25s", "text": "te'xt", "metadata": "me ta"}
    store = opened(name, **options)
    store.create(Schema(WIDTH))
    store.write(entries := rows(5, names=lambda number: f"x' OR 1=1 --{number}"))
    assert by_id(store.fetch(entries.ids)) == by_id(entries)
    assert store.search(np.asarray(entries.vectors)[:1], 1) == [entries.ids[:1]]
    other = store.sibling("c\";'d")
    other.create(Schema(WIDTH), like=store)
    other.write(entries)
    kept = other.switch("a \"b'; DROP TABLE x; --%s {}")
    assert kept == "a \"b'; DROP TABLE x; --%s {}_old"
    assert opened(name, **options).count() == 5
    column = opened(name, **options).sibling(f"{other.collection}:n\"'e w")
    column.create(Schema(2))
    column.write(Page(entries.ids, entries.texts, entries.metadata, np.ones((5, 2), np.float32)))
    assert column.count() == 5
    column.drop()
    store.sibling(kept).drop()


def test_langchains_table(postgres: PostgresServer, opened: Callable[..., Store]) -> None:
    one, two = ("00000000-0000-4000-8000-00000000000" + end for end in "12")
    name = table(
        postgres,
        "CREATE TABLE {} (id varchar PRIMARY KEY, collection_id uuid, embedding vector, document varchar, "
        "cmetadata jsonb)",
        f"INSERT INTO {{}} VALUES ('a', '{one}', '[1,2]', 'A', '{{\"x\": 1}}'), ('b', '{two}', '[1,2,3]', 'B', NULL)",
    )
    store = opened(name, metadata="cmetadata", only=f"collection_id:{one}")
    assert store.describe().schema == Schema(2, "cosine")
    (found,) = store.pages(5, vectors=True)
    assert (found.ids, found.texts, found.metadata) == (["a"], ["A"], [{"x": 1}])
    assert np.asarray(found.vectors).tolist() == [[1, 2]]
    assert (store.count(), store.search([[1, 2]], 5)) == (1, [["a"]])
    assert opened(name).fetch(["b"], vectors=False).metadata == [{"collection_id": two}]  # all but what is null


def test_sparse_vectors(opened: Callable[..., Store]) -> None:
    store = opened(f"sparse{next(numbers)}", terms="30522")
    store.create(Schema(None, "dot", "sparse"))
    vectors = [
        SparseVector(np.array(terms, np.int32), np.array(weights, np.float32))
        for terms, weights in (([0, 7], [1, 2]), ([7, 30521], [0.5, 3]), ([5], [1.5]))
    ]
    store.write(Page(["a", "b", "c"], ["A", None, "C"], [{}, {"x": 1}, {}], vectors))
    assert store.describe().schema == Schema(None, "dot", "sparse")
    found = store.fetch(["c", "a", "b"])
    assert found.vectors is not None
    for one, expected in zip(found.vectors, (vectors[2], vectors[0], vectors[1]), strict=True):
        np.testing.assert_array_equal(one.indices, expected.indices)
        np.testing.assert_array_equal(one.values, expected.values)
    assert store.search(vectors[:1], 2) == [["a", "b"]]
    with pytest.raises(StoreError, match="multi_vector"):
        store.sibling(f"sparse{next(numbers)}").create(Schema(4, kind="multi_vector"))


def test_an_index_built_last_and_none(postgres: PostgresServer, opened: Callable[..., Store]) -> None:
    def kinds(name: str) -> list[str]:
        return [row[0] for row in postgres.execute(
            f"SELECT amname FROM pg_am a JOIN pg_class c ON c.relam = a.oid JOIN pg_index i ON i.indexrelid = c.oid "
            f"WHERE i.indrelid = '{name}'::regclass AND amname <> 'btree'")]  # fmt: skip

    for index, after in (("hnsw", ["hnsw"]), ("ivfflat", ["ivfflat"]), ("none", [])):
        name = f"index{next(numbers)}"
        store = opened(f"{name}_new", index=index)
        store.create(Schema(WIDTH, "l2"))
        assert kinds(f"{name}_new") == []
        assert store.describe().schema == Schema(WIDTH, "l2")
        statement = f'CREATE INDEX ON "public"."{name}_new" USING hnsw ("embedding" vector_l2_ops)'
        assert statement in store.describe().notes[0]
        store.write(rows(20, names=str))
        assert store.switch(name) is None  # nothing had the name
        assert kinds(name) == after
        assert (store.collection, store.describe().schema) == (name, Schema(WIDTH, "l2"))
        postgres.execute(f"DROP INDEX IF EXISTS {name}_new_embedding_idx")
        store.finish()  # type: ignore[attr-defined]
        assert kinds(name) == []  # nobody's index is built twice
    wide = opened(f"wide{next(numbers)}")
    wide.create(Schema(2500))  # over what an index takes
    wide.finish()  # type: ignore[attr-defined]
    assert wide.describe().notes[0].endswith("read every row")


def test_a_search_for_more_than_hnsw_looks_at_by_itself(opened: Callable[..., Store]) -> None:
    store, entries = opened(f"many{next(numbers)}"), rows(600, names=str)
    store.create(Schema(WIDTH))
    store.write(entries)
    queries = np.asarray(entries.vectors)[:3]
    exact = store.search(queries, 300)
    store.finish()  # type: ignore[attr-defined]
    store._run("SET enable_seqscan = off")  # type: ignore[attr-defined]
    for found, expected in zip(store.search(queries, 300), exact, strict=True):
        assert len(found) == 300
        assert found[:10] == expected[:10]
        assert len(set(found) & set(expected)) > 285


def test_what_cannot_be_is_said(postgres: PostgresServer, opened: Callable[..., Store]) -> None:
    name = table(postgres, "CREATE TABLE {} (id text, body text, n int, embedding vector(8))",
                 "INSERT INTO {} VALUES ('a', 'A', 1, NULL), ('a', 'B', 2, NULL)")  # fmt: skip
    with pytest.raises(StoreError, match="no unique index"):
        next(opened(name).pages(5))
    with pytest.raises(StoreError, match="ON CONFLICT"):
        opened(name).write(Page(["c"], ["C"], [{"n": 1}], np.ones((1, 8), np.float32)))
    with pytest.raises(StoreError, match=r"metadata 'x'"):
        opened(name).write(Page(["c"], ["C"], [{"x": 1}], np.ones((1, 8), np.float32)))
    with pytest.raises(StoreError, match="'body' is a text, no vector"):
        opened(name, vector="body")
    postgres.execute(f"CREATE SCHEMA s_{name}; CREATE TABLE s_{name}.vectors (id int PRIMARY KEY, embedding vector(3))")
    with pytest.raises(StoreError, match=f"in schema s_{name}; those with vectors there: vectors"):
        opened("absent", schema=f"s_{name}").describe()
    assert opened("vectors", schema=f"s_{name}").describe().schema == Schema(3)
    with pytest.raises(StoreError, match="unknown option"):
        opened(name, colour="red")
    with pytest.raises(StoreError, match="63 bytes"):
        opened("x" * 64).create(Schema(2))
    store = opened(f"odd{next(numbers)}")
    store.create(Schema(8))
    with pytest.raises(StoreError, match=r"0x00.*line 2"):
        store.write(Page(["a", "b"], ["fine", "nul \0"], [{}, {}], np.ones((2, 8), np.float32)))
    with pytest.raises(StoreError, match="NaN"):
        store.write(Page(["a"], ["fine"], [{}], np.full((1, 8), np.nan, np.float32)))
    assert store.count() == 0


def test_no_password_is_ever_told(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGUSER", "postgres")
    with pytest.raises(StoreError) as failed:
        open_store("postgresql://me:s3cret@127.0.0.1:1/db?collection=docs")
    assert "s3cret" not in str(failed.value)
    assert "postgresql://me@127.0.0.1:1/db" in str(failed.value)
    store = open_store(f"pgvector:///postgres?host={postgres.folder}&port={postgres.port}&collection=x")  # by PGUSER
    store.close()
    store.close()


def test_the_extension_is_created_where_it_is_not(postgres: PostgresServer) -> None:
    postgres.execute("CREATE DATABASE bare")
    store, entries = open_store(postgres.address("docs", "bare")), rows(3, names=str)
    assert not store.exists()
    store.create(Schema(WIDTH))
    store.write(entries)
    np.testing.assert_array_equal(store.fetch(entries.ids).vectors, entries.vectors)
    store.close()


def test_a_server_killed_in_the_middle_loses_nothing_and_keeps_nothing_half() -> None:
    with running_postgres() as server:
        entries = rows(1200, names=lambda number: f"{number:04d}")
        vectors = np.asarray(entries.vectors)
        written = [0]

        def load(store: Store) -> None:
            for at in range(0, 1200, 20):
                part = slice(at, at + 20)
                store.write(Page(entries.ids[part], entries.texts[part], entries.metadata[part], vectors[part]))
                written.append(at + 20)

        def try_to_load(store: Store) -> None:
            with pytest.raises(StoreError, match="connection"):
                load(store)

        store = open_store(server.address("docs"))
        store.create(Schema(WIDTH))
        (writer := threading.Thread(target=try_to_load, args=(store,))).start()
        while len(written) < 5:
            time.sleep(0.001)
        server.kill()
        writer.join()
        store.close()
        server.start()
        store = open_store(server.address("docs"))
        assert store.count() in (written[-1], written[-1] + 20)  # the answer to the last one may have been lost
        load(store)
        (found,) = store.pages(5000, vectors=True)
        assert by_id(found) == by_id(entries)
        np.testing.assert_array_equal(found.vectors, vectors)
        store.close()


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
