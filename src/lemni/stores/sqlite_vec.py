"""SQLite with the extension sqlite-vec: `sqlite-vec:./file.db?collection=TABLE` (`sqlite-vec:///absolute/file.db`).

**Collections** are vec0 virtual tables. Texts and metadata stand in one of three places:

- `TABLE_entries`, what is made here: a plain table of rowid, id, text and metadata (a JSON object), whose rows have the
  same rowid as their vectors: `SELECT e.text FROM docs v JOIN docs_entries e ON e.rowid = v.rowid
  WHERE v.embedding MATCH ? AND k = 10`.
- a table of the application, `entries=documents`, joined by rowid in the same way. It is never changed: `write` gives
  its rows vectors by their ids, an id that is not there is an error, and `create` and `switch` touch vec0 tables alone.
- columns of the vec0 table itself (metadata, partition keys, auxiliary columns). These are read, not written.

**Options**, `&NAME=VALUE`, for tables of others: `entries`, the table; `id`, the column of ids (`id`; in a vec0 table
its primary key, or the rowid); `text`, that of texts (the first of text, document, content and body); `metadata`, a
column with a JSON object, instead of all other columns by their names (those that are null, or bytes, are left out);
`vector`, that of vectors (the first one; of a new table `embedding`).

**Ids** are text and whole numbers, as they are, in the order in which they were added.

**write** is one transaction, on the disk when it returns: a new file is in WAL mode, with `synchronous=FULL`.

**switch** renames the tables in one transaction, with those in which sqlite-vec keeps a vec0 table (its own ALTER TABLE
forgets them); what had the name is called `TABLE_old`. Programs that have the file open go on with the new ones.
The table `lemni_switches` notes what was done, so that the same call, made again by who was killed before he had the
answer, gives that answer.

**Limits**: dense vectors, compared by cosine or L2 (sqlite-vec has no dot product); searches are exact, and give up to
4,096 entries. Vectors in int8 are read as whole numbers, bits are not read. The extension needs a Python whose sqlite3
can load extensions; where it cannot, the package pysqlite3 is taken, if it is installed. No environment variables.
"""

from __future__ import annotations

import itertools
import json
import re
import weakref
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import CannotSwitch, StoreError, missing_extra
from lemni.stores.base import Description, Id, Page, Schema, Store, VectorKind
from lemni.stores.place import Place
from lemni.stores.sqlite_layout import METRICS, Layout, lay_out, module, quoted

try:
    import sqlite_vec
except ImportError as error:
    raise missing_extra("sqlite-vec", "sqlite-vec", "SQLite as a vector store") from error

# Tables behind a vec0 table, behind its name.
_SHADOWS = re.compile(r"_(info|chunks|rowids|auxiliary|(vector_chunks|metadatachunks|metadatatext)\d\d)")


class SqliteVec:
    """One vec0 table and what stands beside it (`Store`)."""

    kinds: tuple[VectorKind, ...] = ("dense",)
    id_type = "any"

    def __init__(self, place: Place) -> None:
        place.check_options("entries", "id", "text", "metadata", "vector")
        self._place = place
        self._said_as(place.collection)
        if not place.collection or not place.path or place.host:
            raise StoreError(f"{place}: write sqlite-vec:FILE?collection=TABLE")
        self._sqlite = module()
        self._connection: Any = None
        self._end: Any = None
        self._open()

    def _said_as(self, collection: str) -> None:
        self.collection = collection
        self.name = f"{replace(self._place, collection='', options={})}, collection {collection}"

    def _open(self, create: bool = False) -> None:
        """Nothing is made by opening: no file, no connection, if not `create`."""
        if self._connection is not None or not (create or Path(self._place.path).exists()):
            return
        with self._said():
            connection = self._sqlite.connect(
                self._place.path, timeout=60, isolation_level=None, check_same_thread=False
            )
            self._end = weakref.finalize(self, connection.close)
            connection.enable_load_extension(True)
            sqlite_vec.load(connection)
            connection.enable_load_extension(False)
            connection.execute("PRAGMA synchronous=FULL")
        self._connection = connection

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What SQLite says, as a StoreError."""
        try:
            yield
        except (self._sqlite.Error, OverflowError, UnicodeError) as error:
            raise StoreError(f"{self.name}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            self._connection.rollback()
            raise

    def _run(self, statement: str, values: Seq[Any] = ()) -> list[Any]:
        with self._said():
            return list(self._connection.execute(statement, values))

    # --- what is there

    def _tables(self) -> dict[str, str]:
        """vec0 tables and how they were made."""
        if self._connection is None:
            return {}
        found = self._run(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql LIKE 'create virtual table%'"
        )
        return {name: sql for name, sql in found if re.search(r"\busing\s+vec0\b", sql, re.IGNORECASE)}

    def _columns(self, table: str) -> dict[str, bool]:
        """Those that are not hidden -> whether they are the primary key."""
        found = self._run("SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden = 0", (table,))
        return {name: bool(key) for name, key in found}

    def exists(self) -> bool:
        self._open()
        return self.collection in self._tables()

    def _found(self) -> Layout:
        self._open()
        tables = self._tables()
        if self.collection not in tables:
            raise StoreError(
                f"{self.name}: there is no such vec0 table; those there: {', '.join(sorted(tables)) or 'none'}"
            )
        return lay_out(self.name, self._place, self.collection, tables[self.collection], self._columns)

    def describe(self) -> Description:
        layout = self._found()
        notes = [] if layout.metric in METRICS else [f"it compares by {layout.metric}"]
        schema = Schema(layout.dimensions, METRICS.get(layout.metric, "l2"))
        return Description(self.collection, self.count(), schema, notes=tuple(notes))

    def count(self) -> int:
        layout = self._found()
        return int(self._run(f"SELECT count(*) FROM {self._from(layout, False)}")[0][0])

    def _from(self, layout: Layout, vectors: bool) -> str:
        """Rowids lead: vec0 finds a row by its rowid at once, but reads everything for a range of them."""
        rowids = quoted(f"{self.collection}_rowids")
        entries = f" JOIN {quoted(layout.entries)} e ON e.rowid = r.rowid" if layout.entries else ""
        whole = vectors or not layout.entries
        joined = f" CROSS JOIN {quoted(self.collection)} v ON v.{quoted(layout.key)} = r.{layout.key_of}"
        return f"{rowids} r{entries}{joined if whole else ''}"

    def _rows(self, layout: Layout, vectors: bool, rest: str, values: Seq[Any]) -> list[Any]:
        columns = [
            "r.rowid",
            layout.id,
            layout.text or "NULL",
            layout.metadata or "NULL",
            *layout.others.values(),
            *([f"v.{quoted(layout.vector)}"] if vectors else []),
        ]
        return self._run(f"SELECT {', '.join(columns)} FROM {self._from(layout, vectors)} {rest}", values)

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        layout = self._found()
        last = -(2**63)
        if after is not None:
            found = self._run(f"SELECT r.rowid FROM {self._from(layout, False)} WHERE {layout.id} = ?", (after,))
            if not found:
                raise StoreError(f"{self.name}: there is no id {after!r:.100} to go on behind")
            last = found[0][0]
        while True:
            rows = self._rows(layout, vectors, "WHERE r.rowid > ? ORDER BY r.rowid LIMIT ?", (last, size))
            if rows:
                last = rows[-1][0]
                yield self._page(layout, rows, vectors)
            if len(rows) < size:
                return

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        layout = self._found()
        wanted = dict.fromkeys(ids)
        rows = [row for one in wanted for row in self._rows(layout, vectors, f"WHERE {layout.id} = ?", (one,))]
        return self._page(layout, rows, vectors)

    def _page(self, layout: Layout, rows: Seq[Any], vectors: bool) -> Page:
        names = list(layout.others)
        metadata: list[dict[str, Any]] = []
        for row in rows:
            if layout.metadata:
                try:
                    held = json.loads(row[3]) if row[3] else {}
                except ValueError:
                    held = None
                if not isinstance(held, dict):
                    raise StoreError(f"{self.name}: the metadata of id {row[1]!r:.100} is no JSON object")
                metadata.append(held)
            else:
                values = zip(names, row[4 : 4 + len(names)], strict=True)
                metadata.append({name: one for name, one in values if one is not None and not isinstance(one, bytes)})
        found = None
        if vectors:
            found = np.empty((len(rows), layout.dimensions), np.float32)
            for at, row in enumerate(rows):
                found[at] = self._vector(layout, row[-1])
        return Page([row[1] for row in rows], [row[2] for row in rows], metadata, found)

    def _vector(self, layout: Layout, data: bytes) -> NDArray[Any]:
        if layout.kind == "bit":
            raise StoreError(f"{self.name}: its vectors are bits, which are not read")
        return np.frombuffer(data, np.int8 if layout.kind in ("int8", "i8") else "<f4")

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        layout = self._found()
        query = "vec_int8(?)" if layout.kind in ("int8", "i8") else "?"
        nearest = (
            f"WITH n AS MATERIALIZED (SELECT {quoted(layout.key)} AS key, distance FROM {quoted(self.collection)} "
            f"WHERE {quoted(layout.vector)} MATCH {query} AND k = ?) "
            f"SELECT {layout.id} FROM n CROSS JOIN {self._from(layout, False)} WHERE r.{layout.key_of} = n.key "
            "ORDER BY n.distance"
        )
        kind = np.int8 if layout.kind in ("int8", "i8") else "<f4"
        return [[row[0] for row in self._run(nearest, (np.asarray(one, kind).tobytes(), k))] for one in vectors]

    # --- what is made

    def sibling(self, collection: str) -> Store:
        return SqliteVec(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind != "dense" or schema.metric not in METRICS.values():
            raise StoreError(
                f"{self.name}: sqlite-vec compares dense vectors by cosine or L2, "
                f"not {schema.kind} ones by {schema.metric}"
            )
        self._open(create=True)
        if self.exists():
            found = self.describe().schema
            if found != schema:
                raise StoreError(f"{self.name}: it exists as {found}; asked for is {schema}")
            return
        self._run("PRAGMA journal_mode=WAL")
        column = self._place.option("vector", "embedding")
        if not re.fullmatch(r"[A-Za-z_]\w*", column, re.ASCII):
            raise StoreError(f"{self.name}: vec0 takes letters, digits and _ in the name of a column, not {column!r}")
        with self._transaction():
            self._run(
                f"CREATE VIRTUAL TABLE {quoted(self.collection)} USING "
                f"vec0({column} float[{schema.dimensions}] distance_metric={schema.metric})"
            )
            if not self._place.option("entries"):
                names = [quoted(self._place.option(name, name)) for name in ("id", "text", "metadata")]
                self._run(
                    f"CREATE TABLE {quoted(f'{self.collection}_entries')} (rowid INTEGER PRIMARY KEY AUTOINCREMENT, "
                    f"{names[0]} NOT NULL UNIQUE, {names[1]} TEXT, {names[2]} TEXT NOT NULL)"  # an id has no type
                )

    def write(self, page: Page) -> None:
        layout = self._found()
        assert page.vectors is not None
        shared = bool(self._place.option("entries"))
        if not layout.entries:
            raise StoreError(f"{self.name}: its entries are columns of the vec0 table itself, which is not written")
        if layout.kind not in ("float", "f32"):
            raise StoreError(f"{self.name}: its vectors are {layout.kind}, which is not written")
        entries, table, column = quoted(layout.entries), quoted(self.collection), quoted(layout.vector)
        with self._transaction():
            for id_, text, metadata, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True):
                found = self._run(f"SELECT rowid FROM {entries} e WHERE {layout.id} = ?", (id_,))
                if shared and not found:
                    raise StoreError(f"{self.name}: id {id_!r:.100} is not in the table {layout.entries}")
                if not shared:
                    found = self._put(layout, found, id_, text, metadata)
                place = (np.asarray(vector, "<f4").tobytes(), found[0][0])
                if self._run(f"SELECT 1 FROM {quoted(f'{self.collection}_rowids')} WHERE rowid = ?", place[1:]):
                    self._run(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", place)
                else:
                    self._run(f"INSERT INTO {table} ({column}, rowid) VALUES (?, ?)", place)

    def _put(self, layout: Layout, found: list[Any], id_: Id, text: str | None, metadata: dict[str, Any]) -> list[Any]:
        """The entry into its own table; its rowid."""
        try:
            data = json.dumps(metadata, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self.name}: the metadata of id {id_!r:.100} is no JSON: {error}") from error
        entries = quoted(layout.entries)
        names = [str(part).partition(".")[2] for part in (layout.text, layout.metadata, layout.id)]
        if found:
            self._run(f"UPDATE {entries} SET {names[0]} = ?, {names[1]} = ? WHERE {names[2]} = ?", (text, data, id_))
            return found
        return self._run(
            f"INSERT INTO {entries} ({', '.join(names)}) VALUES (?, ?, ?) RETURNING rowid", (text, data, id_)
        )

    def switch(self, name: str) -> str | None:
        if not self.exists() and self._connection is not None and (done := self._switched(name)):
            self._said_as(name)
            return done[0]
        layout = self._found()
        if name == self.collection:
            return None
        kept = None
        with self._transaction():
            taken = {row[0] for row in self._run("SELECT name FROM sqlite_master")}
            if name in taken:
                before = SqliteVec._found(self.sibling(name))  # type: ignore[arg-type]
                if bool(before.entries) != bool(layout.entries):
                    raise CannotSwitch(
                        f"{self.name}: texts and metadata of {name} are columns of the vec0 table itself, and programs "
                        f"look for them there; let them ask for {self.collection} and its table {layout.entries}"
                    )
                for number in itertools.count(1):
                    kept = f"{name}_old" if number == 1 else f"{name}_old{number}"
                    if not {kept, f"{kept}_entries"} & taken:
                        break
                self._rename(name, str(kept))
            self._rename(self.collection, name)
            self._run("CREATE TABLE IF NOT EXISTS lemni_switches (name TEXT PRIMARY KEY, was TEXT NOT NULL, kept TEXT)")
            self._run("INSERT OR REPLACE INTO lemni_switches VALUES (?, ?, ?)", (name, self.collection, kept))
        self._said_as(name)
        return kept

    def _switched(self, name: str) -> tuple[str | None] | None:
        """What the last switch of `name` kept the old one as, if it was the one that gave it to this collection."""
        if not self._run("SELECT 1 FROM sqlite_master WHERE name = 'lemni_switches'"):
            return None
        rows = self._run("SELECT kept FROM lemni_switches WHERE name = ? AND was = ?", (name, self.collection))
        return (rows[0][0],) if rows else None

    def _rename(self, old: str, new: str) -> None:
        for table in self._parts(old):
            self._run(f"ALTER TABLE {quoted(table)} RENAME TO {quoted(new + table.removeprefix(old))}")

    def _parts(self, name: str) -> list[str]:
        """The vec0 table, the tables behind it, and that of its entries if it was made for it."""
        tables = [row[0] for row in self._run("SELECT name FROM sqlite_master WHERE type = 'table'")]
        own = {name} if self._place.option("entries") else {name, f"{name}_entries"}
        return [
            table
            for table in tables
            if table in own or (table.startswith(name) and _SHADOWS.fullmatch(table.removeprefix(name)))
        ]

    def drop(self) -> None:
        if not self.exists():
            return
        with self._transaction():
            self._run(f"DROP TABLE {quoted(self.collection)}")
            if not self._place.option("entries"):
                self._run(f"DROP TABLE IF EXISTS {quoted(f'{self.collection}_entries')}")

    def close(self) -> None:
        if self._end is not None:
            self._end()
