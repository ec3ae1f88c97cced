"""One table of PostgreSQL with a column of vectors: the connection, and everything that is read from it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pgvector
import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from lemni.errors import StoreError
from lemni.stores import as_id
from lemni.stores import postgres_layout as tables
from lemni.stores.base import Description, Id, Page, Schema
from lemni.stores.place import Place
from lemni.stores.postgres_layout import Column, Layout
from lemni.types import SparseVector

_LIBPQ = ("sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "host", "port")
_OWN = ("schema", "id", "vector", "text", "metadata", "only", "idtype", "type", "index", "terms")


class PostgresTable:
    """The half of the store that reads (`Store`); options are told in `pgvector.py`.

    Attributes:
        _column: of its vectors.
        _is_column: whether the collection is that column, `TABLE:COLUMN`, and not the table.
    """

    def __init__(self, place: Place) -> None:
        place.check_options(*_OWN, *_LIBPQ)
        self._place = place
        self.collection = place.collection
        self._said_as(place.collection)
        if not place.collection:
            raise StoreError(f"{self.name}: name a table: ?collection=TABLE")
        for option, known in (
            ("idtype", ("text", "bigint", "uuid")),
            ("type", ("vector", "halfvec")),
            ("index", ("hnsw", "ivfflat", "none")),
        ):
            if (value := place.option(option, known[0])) not in known:
                raise StoreError(f"{self.name}: {option}={value}: choose {', '.join(known)}")
        if not place.option("terms", "1").isdigit():
            raise StoreError(f"{self.name}: terms={place.option('terms')} is no number")
        self._table, self._column, self._is_column = self._split(place.collection)
        given = {
            "host": place.host or None,
            "port": place.port,
            "user": place.user,
            "password": place.password,
            "dbname": place.path.removeprefix("/") or None,
            **{name: place.options[name] for name in _LIBPQ if name in place.options},
        }
        with self._said():  # what is None is left to libpq and its environment
            self._connection = psycopg.connect(**given, autocommit=True)
        self._end = weakref.finalize(self, self._connection.close)  # also if nobody calls it
        self._schema = place.option("schema") or self._run("SELECT current_schema()")[0][0] or "public"
        if self._run("SELECT 1 FROM pg_type WHERE typname = 'vector'"):
            with self._said():
                register_vector(self._connection)
        layout = self._layout()
        new = {"bigint": "int", "uuid": "uuid-or-int"}.get(place.option("idtype"), "str")
        self.id_type: str = layout.id_type if layout else new

    def _said_as(self, collection: str) -> None:
        self.collection = collection
        self.name = f"{replace(self._place, collection='', options={})}, collection {collection}"

    def _split(self, collection: str) -> tuple[str, str, bool]:
        """Table, column, whether the column was named."""
        table, colon, column = collection.rpartition(":")
        return (table, column, True) if colon else (collection, self._place.option("vector", "embedding"), False)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What PostgreSQL or its client says, as a StoreError."""
        try:
            yield
        except UnicodeError as error:  # not the server's word: asking again is of no use
            raise StoreError(f"{self.name}: {error}") from None
        except psycopg.Error as error:
            found = error.diag
            parts = [
                found.message_primary or str(error).strip(),
                found.message_detail,
                found.message_hint,
                found.context,
            ]
            raise StoreError(f"{self.name}: {'; '.join(part for part in parts if part)}") from error

    def _run(self, query: Any, values: Seq[Any] = ()) -> list[Any]:
        """The rows of an answer, if it has any. A query with `values` has no names in it, as they may have a %."""
        with self._said(), self._connection.cursor(binary=True) as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall()) if cursor.description else []

    @property
    def _from(self) -> sql.Identifier:
        return tables.quoted(self._schema, self._table)

    def _layout(self) -> Layout | None:
        """None if there is no such table."""
        with self._said():
            columns = tables.read_columns(self._connection, self._schema, self._table)
        if not columns:
            return None
        option = self._place.option
        return tables.lay_out(
            columns,
            self.name,
            name=option("id", "id"),
            vector=self._column,
            text=option("text") or None,
            metadata=option("metadata") or None,
        )

    def _found(self, vectors: bool = False) -> Layout:
        """Raises StoreError if the table, or with `vectors` its column of them, is not there."""
        layout = self._layout()
        if layout is None:
            there = self._run(
                "SELECT DISTINCT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
                "JOIN pg_type t ON t.oid = a.atttypid WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) "
                "AND c.relkind IN ('r', 'p') AND t.typname IN ('vector', 'halfvec', 'sparsevec') "
                "AND NOT a.attisdropped ORDER BY 1 LIMIT 20",
                (self._schema,),
            )
            names = ", ".join(row[0] for row in there) or "none"
            raise StoreError(f"{self.name}: no such table in schema {self._schema}; those with vectors there: {names}")
        if layout.vector is None and (vectors or self._is_column):
            there = [one.name for one in layout.columns if one.base in tables.VECTORS]
            raise StoreError(
                f"{self.name}: the table has no column {self._column!r} of vectors; it has "
                f"{', '.join(there) or 'none'}: say which by vector=COLUMN"
            )
        return layout

    def _where(self, layout: Layout, *conditions: sql.Composable) -> sql.Composable:
        """A WHERE of these and of what this collection is limited to, or nothing."""
        parts = list(conditions)
        if self._is_column and layout.vector:
            parts.append(sql.SQL("{} IS NOT NULL").format(layout.vector.quoted))
        if only := self._place.option("only"):
            column, colon, value = only.partition(":")
            if not colon:
                raise StoreError(f"{self.name}: only={only}: write only=COLUMN:VALUE")
            parts.append(sql.SQL("{}::text = {}").format(sql.Identifier(column), sql.Literal(value)))
        return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(parts) if parts else sql.SQL("")

    def _select(self, layout: Layout, vectors: bool) -> sql.Composable:
        data = [layout.metadata] if layout.metadata else layout.others
        columns = [
            layout.id.read,
            layout.text.read if layout.text else sql.SQL("NULL"),
            *(one.read for one in data),
            *([layout.vector.quoted] if vectors and layout.vector else []),
        ]
        return sql.SQL("SELECT {} FROM {}").format(sql.SQL(", ").join(columns), self._from)

    def _page(self, rows: Seq[Any], layout: Layout, vectors: bool) -> Page:
        if layout.metadata:
            metadata = [row[2] if isinstance(row[2], dict) else {} for row in rows]
        else:
            names = [one.name for one in layout.others]
            metadata = [
                {name: value for name, value in zip(names, row[2 : 2 + len(names)], strict=True) if value is not None}
                for row in rows
            ]
        found = self._taken([row[-1] for row in rows], layout.vector) if vectors and layout.vector else None
        return Page([row[0] for row in rows], [row[1] for row in rows], metadata, found)

    @staticmethod
    def _taken(values: Seq[Any], column: Column) -> Any:
        """As `Page` has them; NaN, or no terms, for a row without a vector."""
        if column.base == "sparsevec":
            return [
                SparseVector(
                    np.array(one.indices() if one else [], np.int32), np.array(one.values() if one else [], np.float32)
                )
                for one in values
            ]
        width = column.dimensions or next((one.dimensions() for one in values if one is not None), 0)
        found = np.full((len(values), width), np.nan, np.float32)
        for at, one in enumerate(values):
            if one is not None:
                found[at] = one.to_numpy()
        return found

    def _given(self, vector: Any, column: Column) -> Any:
        """A vector as pgvector's client takes it."""
        if column.base == "sparsevec":
            terms = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
            width = column.dimensions or int(self._place.option("terms", "1000000"))
            return pgvector.SparseVector(terms, width)
        return (pgvector.HalfVector if column.base == "halfvec" else pgvector.Vector)(np.asarray(vector, np.float32))

    def _schema_of(self, layout: Layout) -> Schema | None:
        column = layout.vector
        if column is None:
            return None
        with self._said():
            index = tables.index_of(self._connection, self._schema, self._table, column)
            said = tables.marked(self._connection, self._schema, self._table, column)
        metric = (index.metric if index else said.get("metric")) or "cosine"
        if column.base == "sparsevec":
            return Schema(None, metric, "sparse")  # type: ignore[arg-type]
        width = column.dimensions
        if width is None:
            where = self._where(layout, sql.SQL("{} IS NOT NULL").format(column.quoted))
            row = self._run(
                sql.SQL("SELECT vector_dims({}) FROM {}{} LIMIT 1").format(column.quoted, self._from, where)
            )
            if not row:
                return None
            width = row[0][0]
        return Schema(width, metric)  # type: ignore[arg-type]

    def exists(self) -> bool:
        layout = self._layout()
        return layout is not None and (layout.vector is not None or not self._is_column)

    def describe(self) -> Description:
        layout = self._found()
        schema = self._schema_of(layout)
        notes = []
        with self._said():
            if layout.vector and tables.index_of(self._connection, self._schema, self._table, layout.vector) is None:
                note = f"the column {layout.vector.name} has no index, so that searches are exact and read every row"
                if schema and (schema.dimensions or 0) <= tables.MOST.get(layout.vector.base, 10**9):
                    operators = sql.SQL(f"{layout.vector.base}_{tables.CLASSES[schema.metric]}_ops")
                    made = sql.SQL("CREATE INDEX ON {} USING hnsw ({} {})").format(
                        self._from, layout.vector.quoted, operators
                    )
                    note += f"; {made.as_string(self._connection)} makes one"
                notes.append(note)
            if layout.text is None:
                notes.append(f"no column is called {', '.join(tables.TEXTS)}: it holds no texts")
            if not tables.unique_id(self._connection, self._schema, self._table, layout.id):
                notes.append(f"the column {layout.id.name} has no unique index: it cannot be read in pages")
        if layout.vector is None:
            notes.append(f"it has no column {self._column} of vectors")
        return Description(self.collection, self.count(), schema, notes=tuple(notes))

    def count(self) -> int:
        layout = self._found()
        return int(self._run(sql.SQL("SELECT count(*) FROM {}{}").format(self._from, self._where(layout)))[0][0])

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        layout = self._found(vectors)
        with self._said():
            if not tables.unique_id(self._connection, self._schema, self._table, layout.id):
                raise StoreError(
                    f"{self.name}: its column {layout.id.name!r} has no unique index, so that a page might lose rows "
                    "of one id: name another by id=COLUMN, or make one"
                )
        key, kind = layout.id.quoted, sql.SQL(layout.id.type)
        while True:
            behind = sql.SQL("{} > {}::{}").format(key, sql.Literal(str(after)), kind)
            where = self._where(layout, *([] if after is None else [behind]))
            rows = self._run(
                sql.SQL("{}{} ORDER BY {} LIMIT {}").format(self._select(layout, vectors), where, key, size)
            )
            if rows:
                page = self._page(rows, layout, vectors)
                after = page.ids[-1]
                yield page
            if len(rows) < size:
                return

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        layout = self._found(vectors)
        wanted = list(dict.fromkeys(as_id(one, self.id_type, self.name) for one in ids))
        asked = sql.SQL("{} = ANY({}::{}[])").format(
            layout.id.quoted, sql.Literal([str(one) for one in wanted]), sql.SQL(layout.id.type)
        )
        rows = self._run(sql.SQL("{}{}").format(self._select(layout, vectors), self._where(layout, asked)))
        found = {row[0]: row for row in rows}
        return self._page([found[one] for one in wanted if one in found], layout, vectors)

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        layout = self._found(True)
        column = layout.vector
        assert column is not None
        schema = self._schema_of(layout)
        operator = tables.OPERATORS[schema.metric if schema else "cosine"]
        where = self._where(layout, sql.SQL("{} IS NOT NULL").format(column.quoted))
        query = sql.SQL("SELECT {} FROM {}{} ORDER BY {} {} {} LIMIT {}")
        found = []
        with self._said(), self._connection.transaction():
            self._widen(k)
            for vector in vectors:
                given = sql.Literal(self._given(vector, column))
                order = (column.quoted, sql.SQL(operator), given)
                rows = self._run(query.format(layout.id.read, self._from, where, *order, k))
                found.append([row[0] for row in rows])
        return found

    def _widen(self, k: int) -> None:
        """An index gives at least `k` entries: HNSW looks at 40 if it is not told to look at more."""
        version = self._connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        self._connection.execute(f"SET LOCAL hnsw.ef_search = {min(1000, max(100, 2 * k))}")
        if version and tuple(int(part) for part in version[0].split(".")[:2]) >= (0, 8):
            self._connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            self._connection.execute("SET LOCAL ivfflat.iterative_scan = relaxed_order")

    def close(self) -> None:
        self._end()
