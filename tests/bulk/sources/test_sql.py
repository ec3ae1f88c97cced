"""Queries: SQLite, and a real PostgreSQL started from its package."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from lemni.bulk.sources import Columns, open_source
from lemni.errors import InvalidRequest
from tests.bulk.sources.reading import Row, read, reason, rows_of
from tests.stores.postgres_server import PostgresServer, postgres  # noqa: F401 - a fixture


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute('create table docs (id integer, text, "odd name" text)')
        rows = [(20 - at, f"ü 100% :x {at}", f"o{at}") for at in range(20)]
        connection.executemany("insert into docs values (?, ?, ?)", rows)
        connection.execute("insert into docs values (30, null, 'n'), (31, 5, 'm'), (null, 'x', 'y')")
        connection.commit()
    return f"sqlite:///{path}"


def test_rows_of_a_query(database: str) -> None:
    found = read(database, query="select * from docs where id <= 20 -- all of them", rows=6)
    assert found == [
        Row(key, f"ü 100% :x {20 - key}", f"ü 100% :x {20 - key}", {"odd name": f"o{20 - key}"}) for key in range(1, 21)
    ]
    query = "select text body, id as \"the key\" from docs where text like '%x 1%' and ':a' <> '%s' "
    query += 'order by "the key" desc;'
    found = read(database, Columns("body", "the key"), query=query, rows=4)
    assert [row.id for row in found] == [19, *range(10, 0, -1)]
    found = read(database, query="with d as (select * from docs where id >= 30 or id is null) select id, text from d")
    assert [row.id for row in found] == [0, 30, 31]  # databases put null first or last; its row has its number
    assert reason(found[0]) == "its id is null, neither a text nor a whole number"
    assert found[1].item is None
    assert reason(found[2]) == "is a number, not a text"


def test_a_source_of_a_query(database: str) -> None:
    source = open_source([database], Columns(), query="select id, text from docs;")
    assert not source.random_access
    assert source.count() == 23
    assert source.identity()["query"] == "select id, text from docs"
    assert json.dumps(source.identity()).count("a.db") == 1
    assert len(rows_of(source, 5)) == 23
    assert len(rows_of(source, 50)) == 23


def test_what_is_wrong_with_a_query(database: str) -> None:
    for query, columns, message in (
        ("select * from missing_table", Columns(), "no such table: missing_table"),
        ("select id from docs", Columns(), "the query: has no column 'text'; it has 'id'"),
        ("select text from docs", Columns(), "the query has no column 'id'; name the one that is the id, of text"),
        ("select id, text from docs", Columns(id="key"), "has no column 'key'"),
        ("drop table docs", Columns(), "syntax error"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            read(database, columns, query=query)
    for place, message in (
        ("a.db", "by its URL, not of a.db"),
        ("nonsense://x", "nonsense"),
        ("sqlite:///nothing.db", r"nothing\.db: no such file"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            read(place, query="select 1")
    assert not Path("nothing.db").exists()
    with pytest.raises(InvalidRequest, match="a database needs a query"):
        read(database)
    with pytest.raises(InvalidRequest, match="one database"):
        read([database, database], query="select 1")
    assert len(read(database, query="select id, text from docs", rows=100)) == 23


def test_no_password_comes_out() -> None:
    place = "postgresql+psycopg://user:hunter2@127.0.0.1:1/docs?sslpassword=swordfish&connect_timeout=1"
    with pytest.raises(InvalidRequest) as caught:
        read(place, query="select 1")
    assert "127.0.0.1" in caught.value.message
    assert "hunter2" not in caught.value.message
    assert "swordfish" not in caught.value.message


def test_postgresql_with_a_cursor_on_the_server(postgres: PostgresServer) -> None:  # noqa: F811
    with psycopg.connect(postgres.connection) as connection:
        connection.execute(
            "create table source_docs (id uuid default gen_random_uuid(), body text, at timestamptz, n numeric)"
        )
        connection.execute(
            "insert into source_docs (body, at, n) select 'ü% :x ' || i, now(), i from generate_series(1, 5000) i"
        )
        reference = connection.execute("select id, body, n from source_docs order by id").fetchall()
    source = open_source(
        [f"postgresql://postgres@127.0.0.1:{postgres.port}/postgres"],
        Columns("body", carry=("n",)),
        query="select * from source_docs where body like '%x%'",
    )
    found = rows_of(source, 700)
    assert [(row.id, row.text, row.metadata["n"]) for row in found] == [
        (str(key), body, n) for key, body, n in reference
    ]
    shards = source.shards(10)
    next(shards)
    with psycopg.connect(postgres.connection) as connection:
        cursors = connection.execute(
            "select count(*) from pg_stat_activity where query ilike 'fetch forward%'"
        ).fetchone()
    assert cursors == (1,)  # the rows have not been sent yet
    shards.close()  # type: ignore[attr-defined]
