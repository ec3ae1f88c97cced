"""PostgreSQL with the extension pgvector, over psycopg 3: `postgresql://user@host:5432/database?collection=TABLE`, or
`postgresql:///database?host=/run/postgresql&collection=TABLE` through a Unix socket. `postgres:` and `pgvector:` mean
the same.

**Collections.** `TABLE` is a table with a column of vectors. `TABLE:COLUMN` is one column of it: its entries are the
rows where that column is not null; `create` adds the column, and `write` fills it in rows that are there by their ids
(an id that is not there is an error, and nothing is inserted; texts and metadata stay as they are). So one database is
migrated in two ways: into another table (`docs` -> `docs_new`) or into another column of the same (`docs` ->
`docs:embedding_new`); the former is faster, as each updated row enters all indexes of its table anew. A table whose own
name has a colon is written with its column. Names of over 63 bytes are refused.

**Options**, `&NAME=VALUE`:

- `schema`: where the table is; the first of the search path.
- `id`, `vector`: columns, `id` and `embedding` if not named. `text`: the first of text, document, content and body.
- `metadata`: a json or jsonb column whose object is the metadata. Without it every other column is, by its name, but
  for other vectors and what the database computes; columns that are null are left out. In a table that has only one
  other column, `metadata jsonb`, that one is taken. Types that JSON lacks (times, numeric, uuid, bytea) come as
  PostgreSQL writes them, and go back exactly.
- `only=COLUMN:VALUE`: rows with this value alone are read, such as `only=collection_id:UUID` of LangChain's table
  `langchain_pg_embedding` (which has `id`, `document` and `embedding` as they are looked for).
- `idtype`: of a new table: text (as without it), bigint or uuid.
- `type`: of a new column: vector, or halfvec for 16 bit.
- `index`: of a new column: hnsw (as without it), ivfflat or none. `terms`: width of a new column of sparse vectors,
  1,000,000 if not given: queries must have the same.
- `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `connect_timeout`, `host`, `port`: libpq's own.

**Environment**: libpq's, as psycopg reads them: PGPASSWORD (or ~/.pgpass), PGUSER, PGHOST, PGSSLMODE ...

**Ids** are text, or whole numbers or UUIDs where the column holds those. Reading in pages needs a unique index on it.

**create** with `like`, a table of the same database, copies its columns, types, defaults, checks, comments, privileges
and indexes, without its vectors; foreign keys, triggers, row security and views stay with the old table. Otherwise the
table has an id, a text, `metadata jsonb` and the vector.

**The index** is built by `finish` or by `switch`, when the rows are there: 10,000 rows of 384 numbers were loaded at
26,000 a second and indexed at 3,200, into an index made before at 350. Until then searches are exact. Beside a live
application (`TABLE:COLUMN`) it is built with CONCURRENTLY. More memory makes it faster:
`PGOPTIONS='-c maintenance_work_mem=4GB'`.

**write** copies a page into a temporary table and from there inserts or overwrites, in one transaction. A text without
a column for it is not kept.

**switch** renames tables, or columns of one table, in one transaction; what had the name is called `NAME_old`. Between
columns NOT NULL goes along with the name if no row lacks the new vector. Views and foreign keys follow a table, not its
name: they keep showing the old one. The table `lemni_switches` notes what was done, so that the same call, made again
by who was killed before he had the answer, gives that answer.

**Limits**: dense vectors and sparse ones (sparsevec), no multi-vectors. HNSW and ivfflat take up to 2,000 dimensions,
4,000 of halfvec, and 1,000 terms per sparse vector; beyond that there is no index and searches are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

from lemni.errors import CannotSwitch, StoreError, missing_extra
from lemni.stores import as_id
from lemni.stores.base import Page, Schema, Store, VectorKind

try:
    import psycopg
    from pgvector.psycopg import register_vector
    from psycopg import sql
    from psycopg.adapt import Transformer
except ImportError as error:
    raise missing_extra("psycopg and pgvector", "pgvector", "PostgreSQL") from error

from lemni.stores import postgres_layout as tables
from lemni.stores.postgres_layout import Column, Layout
from lemni.stores.postgres_table import PostgresTable

_numbers = itertools.count()


class PgVector(PostgresTable):
    """One table of PostgreSQL, or one vector column of it (`Store`)."""

    kinds: tuple[VectorKind, ...] = ("dense", "sparse")

    def sibling(self, collection: str) -> Store:
        return PgVector(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind not in self.kinds:
            raise StoreError(f"{self.name}: PostgreSQL holds no {schema.kind} vectors")
        layout = self._layout()
        if layout is not None and layout.vector is not None:
            self._same(schema, layout)
            return
        if layout is None and self._is_column:
            raise StoreError(f"{self.name}: there is no table {self._table!r} to add a column to")
        if layout is not None and not self._is_column:
            raise StoreError(
                f"{self.name}: the table is there without a column {self._column!r} of vectors; to add it name the "
                f"collection {self._table}:{self._column}"
            )
        for name in (self._table, self._column):
            if len(name.encode()) > 63:
                raise StoreError(f"{self.name}: {name!r} has over 63 bytes, and PostgreSQL would cut it")
        with self._said():
            if not self._run("SELECT 1 FROM pg_extension WHERE extname = 'vector'"):
                self._run("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(self._connection)
            with self._connection.transaction():
                if layout is None:
                    self._make_table(like)
                self._add_column(schema, like)
        layout = self._found()
        self.id_type = layout.id_type

    def _same(self, schema: Schema, layout: Layout) -> None:
        """Raises StoreError if the collection that is there is another one."""
        found = self._schema_of(layout)
        if found is not None and found != schema:
            raise StoreError(f"{self.name}: it exists with {_words(found)}; asked for are {_words(schema)}")

    def _beside(self, other: PgVector) -> bool:
        """Whether it is in the same database."""
        one, two = self._connection.info, other._connection.info
        return (one.host, one.port, one.dbname) == (two.host, two.port, two.dbname)

    def _make_table(self, like: Store | None) -> None:
        option = self._place.option
        if isinstance(like, PgVector) and self._beside(like):
            source = like._found()
            self._run(
                sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(self._from, like._from),
            )
            for column in source.columns:
                if column.base in tables.VECTORS:
                    self._run(sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(self._from, column.quoted))
            if like._schema == self._schema:
                tables.copy_grants(self._connection, self._schema, like._table, self._table)
            return
        kind = {"int": "bigint", "uuid-or-int": "text"}.get(like.id_type if like else "", "text")
        self._run(
            sql.SQL("CREATE TABLE {} ({} {} PRIMARY KEY, {} text, {} jsonb NOT NULL DEFAULT '{{}}')").format(
                self._from,
                sql.Identifier(option("id", "id")),
                sql.SQL(option("idtype", kind)),
                sql.Identifier(option("text", "text")),
                sql.Identifier(option("metadata", "metadata")),
            )
        )

    def _add_column(self, schema: Schema, like: Store | None) -> None:
        kind = "sparsevec" if schema.kind == "sparse" else self._place.option("type", "vector")
        width = int(self._place.option("terms", "1000000")) if schema.kind == "sparse" else schema.dimensions
        name = sql.Identifier(self._column)
        self._run(
            sql.SQL("ALTER TABLE {} ADD COLUMN {} {}({})").format(self._from, name, sql.SQL(kind), sql.Literal(width))
        )
        index = self._place.option("index", "hnsw")
        if (schema.dimensions or 0) > tables.MOST.get(kind, 10**9):
            index = "none"
        settings: tuple[str, ...] = ()
        if isinstance(like, PgVector) and self._beside(like) and (source := like._found().vector):
            old = tables.index_of(like._connection, like._schema, like._table, source)
            settings = old.settings if old and old.kind == index else ()
        self._mark(tables.mark(schema.metric, index, settings))

    def _mark(self, comment: str) -> None:
        column = sql.Identifier(self._schema, self._table, self._column)
        self._run(sql.SQL("COMMENT ON COLUMN {} IS {}").format(column, sql.Literal(comment)))

    def finish(self) -> None:
        """All is written: build the index that `create` put off, if it is not there. Idempotent."""
        layout = self._found(True)
        assert layout.vector is not None
        with self._said():
            said = tables.marked(self._connection, self._schema, self._table, layout.vector)
            if said.get("index", "none") == "none":
                return
            if not tables.index_of(self._connection, self._schema, self._table, layout.vector):
                for left in tables.broken_indexes(self._connection, self._schema, self._table, layout.vector):
                    self._run(sql.SQL("DROP INDEX {}").format(left))
                operators = f"{layout.vector.base}_{tables.CLASSES[said['metric']]}_ops"
                self._run(
                    sql.SQL("CREATE INDEX {} ON {} USING {} ({} {}){}").format(
                        sql.SQL("CONCURRENTLY" if self._is_column else ""),  # the table of a column is in use
                        self._from,
                        sql.Identifier(said["index"]),
                        layout.vector.quoted,
                        sql.Identifier(operators),
                        # words and numbers, as the catalogue has them
                        sql.SQL(f" WITH ({said['settings']})" if said.get("settings") else ""),
                    )
                )
            self._mark(tables.mark(said["metric"], "none"))

    def write(self, page: Page) -> None:
        layout = self._found(True)
        column = layout.vector
        assert column is not None
        assert page.vectors is not None
        if len(page) == 0:
            return
        columns = [layout.id, column] if self._is_column else self._written(layout)
        arrived = sql.Identifier(f"lemni_page_{next(_numbers)}")
        names = [sql.Identifier(f"c{number}") for number in range(len(columns))]
        kinds = [one.type if one is column else "text" for one in columns]
        typed = [sql.SQL("{} {}").format(name, sql.SQL(kind)) for name, kind in zip(names, kinds, strict=True)]
        fields = sql.SQL(", ").join(typed)
        # Of two with one id the later: an INSERT touches a row once.
        rows = {str(row[0]): row for row in self._values(page, layout, columns)}
        with self._said(), self._connection.transaction():
            self._connection.execute(sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(arrived, fields))
            with (
                self._connection.cursor() as cursor,
                cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(arrived)) as copy,
            ):
                copy.set_types(kinds)
                for row in rows.values():
                    copy.write_row(row)
            cast = [
                name if one is column else sql.SQL("{}::{}").format(name, sql.SQL(one.type))
                for name, one in zip(names, columns, strict=True)
            ]
            if self._is_column:
                self._update(arrived, cast[0], layout.id, column, len(rows))
                return
            self._connection.execute(
                sql.SQL(
                    "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} ON CONFLICT ({}) DO UPDATE SET {}"
                ).format(
                    self._from,
                    sql.SQL(", ").join(one.quoted for one in columns),
                    sql.SQL(", ").join(cast),
                    arrived,
                    layout.id.quoted,
                    sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(one.quoted) for one in columns[1:]),
                )
            )

    def _update(self, arrived: sql.Identifier, key: sql.Composable, id_: Column, column: Column, count: int) -> None:
        """Raises StoreError, and so changes nothing, if a row is not there."""
        done = self._connection.execute(
            sql.SQL("UPDATE {} AS t SET {} = a.c1 FROM (SELECT {} AS key, c1 FROM {}) a WHERE t.{} = a.key").format(
                self._from, column.quoted, key, arrived, id_.quoted
            )
        )
        if done.rowcount < count:
            missing = self._run(
                sql.SQL(
                    "SELECT c0 FROM {} a WHERE NOT EXISTS (SELECT 1 FROM {} t WHERE t.{} = {}) ORDER BY c0 LIMIT 3"
                ).format(arrived, self._from, id_.quoted, key)
            )
            raise StoreError(
                f"{self.name}: {count - done.rowcount} of {count} rows to update are not in the table, such as "
                f"{', '.join(repr(row[0])[:100] for row in missing)}"
            )

    def _written(self, layout: Layout) -> list[Column]:
        assert layout.vector is not None
        data = [layout.metadata] if layout.metadata else layout.others
        return [layout.id, layout.vector, *([layout.text] if layout.text else []), *data]

    def _values(self, page: Page, layout: Layout, columns: Seq[Column]) -> Iterator[list[Any]]:
        """Rows for COPY, in the order of `columns`."""
        assert layout.vector is not None
        assert page.vectors is not None
        known = {column.name for column in columns}
        transformer = Transformer(self._connection)
        for id_, text, metadata, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True):
            if not self._is_column and layout.metadata is None and not metadata.keys() <= known:
                raise StoreError(
                    f"{self.name}: id {id_!r:.100} has metadata {min(metadata.keys() - known)!r}, which is no "
                    "column of the table; it needs one, or a jsonb column for all: metadata=COLUMN"
                )
            row: list[Any] = []
            for column in columns:
                if column is layout.vector:
                    row.append(self._given(vector, column))
                elif column is layout.id:
                    row.append(str(as_id(id_, self.id_type, self.name)))
                elif column is layout.text:
                    row.append(text)
                else:
                    value = metadata if column is layout.metadata else metadata.get(column.name)
                    try:
                        row.append(column.text(value, transformer))
                    except (TypeError, ValueError, psycopg.Error) as error:
                        raise StoreError(f"{self.name}: metadata of id {id_!r:.100}: {error}") from error
            yield row

    def switch(self, name: str) -> str | None:
        table, column, is_column = self._split(name)
        own = (self._table, self._column)
        if not self.exists() and (done := tables.switched(self._connection, self._schema, (table, column), own)):
            self._table, self._column = table, column
            self._said_as(name)
            return done[0]
        self._found(True)
        if table == self._table and column == self._column:
            return None
        if table != self._table and (is_column or self._is_column):
            raise CannotSwitch(
                f"{self.name}: a column can take the name of another one of its own table only, not {name!r}"
            )
        self.finish()
        with self._said(), self._connection.transaction():
            kept = self._rename_columns(column) if table == self._table else self._rename_tables(table)
            tables.note_switch(self._connection, self._schema, (table, column), own, kept)
        self._table, self._column = table, column
        self._said_as(name)
        return kept

    def _rename_tables(self, wanted: str) -> str | None:
        tables.advance_identities(self._connection, self._schema, self._table)
        taken = {row[0] for row in self._run("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace",
                                            (sql.Identifier(self._schema).as_string(self._connection),))}  # fmt: skip
        rename = sql.SQL("ALTER TABLE {} RENAME TO {}")
        kept = None
        if wanted in taken:
            kept = _free(wanted, taken)
            self._run(rename.format(tables.quoted(self._schema, wanted), sql.Identifier(kept)))
        self._run(rename.format(self._from, sql.Identifier(wanted)))
        return kept

    def _rename_columns(self, wanted: str) -> str | None:
        self._run(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(self._from))
        columns = {one.name: one for one in tables.read_columns(self._connection, self._schema, self._table)}
        alter = sql.SQL("ALTER TABLE {} ALTER COLUMN {} {} NOT NULL")
        rename = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}")
        own = sql.Identifier(self._column)
        kept = None
        if wanted in columns:
            kept = _free(wanted, columns)
            if columns[wanted].not_null:
                full = sql.SQL("SELECT 1 FROM {} WHERE {} IS NULL LIMIT 1").format(self._from, own)
                if not self._run(full):
                    self._run(alter.format(self._from, own, sql.SQL("SET")))
                self._run(alter.format(self._from, sql.Identifier(wanted), sql.SQL("DROP")))
            self._run(rename.format(self._from, sql.Identifier(wanted), sql.Identifier(kept)))
        self._run(rename.format(self._from, own, sql.Identifier(wanted)))
        return f"{self._table}:{kept}" if kept else None

    def drop(self) -> None:
        layout = self._layout()
        if layout is None or (self._is_column and layout.vector is None):
            return
        with self._said(), self._connection.transaction():
            if self._is_column:
                column = sql.Identifier(self._column)
                self._run(sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(self._from, column))
            else:
                tables.own_sequences(self._connection, self._schema, self._table)
                self._run(sql.SQL("DROP TABLE {}").format(self._from))


def _free(name: str, taken: Collection[str]) -> str:
    """`NAME_old`, or with a number behind it; of at most 63 bytes."""
    for number in itertools.count(1):
        end = "_old" if number == 1 else f"_old{number}"
        kept = name.encode()[: 63 - len(end)].decode(errors="ignore") + end
        if kept not in taken:
            return kept
    raise AssertionError("there is no last number")


def _words(schema: Schema) -> str:
    width = f"{schema.dimensions} dimensions, " if schema.dimensions else ""
    return f"{width}{schema.metric}, {schema.kind}"
