"""FAISS: an index with a docstore beside it, in a folder of this machine.

FAISS keeps vectors only. Lemni's own collections are folders `FOLDER/NAME` of two files, which any program can read:
`docstore.sqlite`, the truth (table `entries`: position, id, text, metadata as JSON, vector as float32), and
`index.faiss`, made from it: entry number `position` is the index's vector of that number. For metric cosine the index
holds vectors of length 1 and compares by inner product: a query must have length 1, too.

`faiss:FOLDER?collection=NAME`, or `faiss:FOLDER/NAME`. Read, too, but not written:
    LangChain's folders (`index.faiss` and `index.pkl`) at the same addresses. A pickle can hold code: it is read with
        `trust-pickle=1` only, and then nothing but LangChain's documents and docstore is made from it.
    A bare index, `faiss:PATH/NAME.faiss`, with its documents in `docstore=FILE` (`.parquet` or `.jsonl`), a row for
        each vector in the same order; for an IndexIDMap, rows with its numbers in the id column. Without a docstore
        the ids are FAISS's own numbers and there are no texts.

Options:
    factory: how to index, in the words of `faiss.index_factory`: `Flat` (default, exact), `HNSW32,Flat`,
        `IVF1024,PQ32` ... IVF and PQ are trained on vectors of the collection.
    nprobe: how many cells of an IVF index Lemni's own searches look into; default 16.
    docstore, id, text: of a bare index: its documents and their columns. Default `id` (else positions), and the first
        of `text`, `document`, `content`, `body`, `page_content`.
    trust-pickle: `1` reads a pickle.

Ids: texts and whole numbers of 64 bits. Read in the order in which they came first. Kinds: dense; cosine, dot, l2.

Written entries are on disk at once; `index.faiss` is built when the store is closed or switched or searched, as a whole
and in memory, as FAISS does: it needs room for all vectors there.

Switch: the folders change places in one step (Linux, macOS; elsewhere by two renames), what was before is kept as
`NAME_before_NEW`; an application that has the index in memory loads it again. LangChain's folders and bare indexes have
CannotSwitch: the application must read Lemni's two files instead.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from lemni.errors import CannotSwitch, LemniError, StoreError, missing_extra
from lemni.stores import folders
from lemni.stores.base import Description, Id, Metric, Page, Schema, Store, VectorKind
from lemni.stores.place import Place

try:
    import faiss as library

    from lemni.stores.faiss_files import Files, found_files
except ImportError:
    raise missing_extra("faiss-cpu", "faiss", "The store faiss") from None

DOCSTORE, INDEX = "docstore.sqlite", "index.faiss"
_TABLES = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE entries (position INTEGER PRIMARY KEY, id NOT NULL UNIQUE, text TEXT, metadata TEXT NOT NULL,
                      vector BLOB NOT NULL);
"""
_BATCH = 8192  # vectors that are added at once
_TRAINED_ON = 100_000  # vectors, or 40 for each cell if those are more
_FETCH = 500  # ids in one condition


class Faiss:
    kinds: tuple[VectorKind, ...] = ("dense",)
    id_type = "any"

    def __init__(self, place: Place) -> None:
        place.check_options("factory", "nprobe", "docstore", "id", "text", "trust-pickle")
        if place.host or not place.path:
            raise StoreError(f"{place}: write faiss:FOLDER?collection=NAME")
        if place.option("nprobe", "1").strip("0123456789"):
            raise StoreError(f"{place}: nprobe is a whole number")
        path = Path(place.path)
        self._place = place
        self._bare: Path | None = None
        if path.suffix == ".faiss" and place.collection in ("", path.stem):
            self._bare, self._base, self.collection = path, path.parent, path.stem
        elif path.suffix == ".faiss" or place.collection:
            self._base = path.parent if path.suffix == ".faiss" else path
            self.collection = place.collection
        else:
            self._base, self.collection = path.parent, path.name
        if Path(self.collection).name != self.collection:
            raise StoreError(f"{place}: {self.collection!r} is no name of a folder")
        self._folder = self._base / self.collection
        self.name = f"faiss:{self._bare or self._folder}, collection {self.collection}"
        self._mine = False
        self._index: tuple[Any, Any] | None = None  # what it was read from, and the index
        self._others: tuple[Any, Files] | None = None

    @contextmanager
    def _words(self) -> Iterator[None]:
        """FAISS's and SQLite's errors as StoreError, with their words."""
        try:
            yield
        except LemniError:
            raise
        except (RuntimeError, AssertionError, OSError, ValueError, OverflowError, sqlite3.Error) as error:
            raise StoreError(f"{self.name}: {str(error) or type(error).__name__:.500}") from error

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The docstore, for one transaction. Opened each time: a folder may have got another name."""
        if not self._docstore.exists():
            there = sorted(one.parent.name for one in self._base.glob(f"*/{INDEX}"))
            there = sorted({*there, *(one.parent.name for one in self._base.glob(f"*/{DOCSTORE}"))})
            raise StoreError(f"{self.name}: there is no such collection; there are: {', '.join(there[:20]) or 'none'}")
        with self._words(), closing(sqlite3.connect(self._docstore)) as database, database:
            yield database

    @property
    def _docstore(self) -> Path:
        return self._folder / DOCSTORE

    def _files(self) -> Files | None:
        """What others wrote there; what was read of it is kept while the file is the same."""
        index = self._bare or self._folder / INDEX
        if (self._bare is None and self._docstore.exists()) or not index.is_file():
            return None
        state = _state(index)
        if self._others is None or self._others[0] != state:
            self._others = (state, found_files(index, self._place, self.name))
        return self._others[1]

    def exists(self) -> bool:
        return self._files() is not None or bool(self._docstore.exists() and self._meta())

    def _meta(self) -> dict[str, Any]:
        with self._opened() as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                return {}
            return dict(database.execute("SELECT name, value FROM meta"))

    def describe(self) -> Description:
        if files := self._files():
            with self._words():
                return Description(self.collection, files.count, files.schema, notes=files.notes)
        meta = self._meta()
        stale = meta.get("written") != meta.get("built")
        notes = (f"{INDEX} is not of these entries yet: it is built when the store is closed",) if stale else ()
        return Description(self.collection, self.count(), self._schema(), notes=(f"index {meta['factory']}", *notes))

    def _schema(self) -> Schema:
        meta = self._meta()
        return Schema(int(meta["dimensions"]), cast(Metric, meta["metric"]))

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        if files := self._files():
            with self._words():
                yield from files.pages(size, vectors=vectors, after=after)
            return
        with self._opened() as database:
            last = -1
            if after is not None:
                found = database.execute("SELECT position FROM entries WHERE id = ?", (after,)).fetchone()
                if found is None:
                    raise StoreError(f"{self.name}: has no id {after!r:.100} to go on after")
                last = found[0]
        while True:
            with self._opened() as database:
                rows = database.execute(
                    f"SELECT id, text, metadata, {'vector' if vectors else 'NULL'}, position FROM entries "
                    "WHERE position > ? ORDER BY position LIMIT ?",
                    (last, size),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][-1]
            yield self._page(rows, vectors)

    def _page(self, rows: list[Any], vectors: bool) -> Page:
        found = _matrix([row[3] for row in rows], self._schema().dimensions) if vectors else None
        return Page([row[0] for row in rows], [row[1] for row in rows], [json.loads(row[2]) for row in rows], found)

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        wanted = list(dict.fromkeys(ids))
        if files := self._files():
            with self._words():
                return files.fetch(wanted, vectors)
        found: dict[Id, Any] = {}
        with self._opened() as database:
            for start in range(0, len(wanted), _FETCH):
                part = wanted[start : start + _FETCH]
                marks = ",".join("?" * len(part))
                rows = database.execute(f"SELECT id, text, metadata, vector FROM entries WHERE id IN ({marks})", part)
                found.update((row[0], row) for row in rows)
        return self._page([found[one] for one in wanted if one in found], vectors)

    def sibling(self, collection: str) -> Faiss:
        path = str(self._base) if self._bare is None else self._place.path
        return Faiss(replace(self._place, path=path, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind != "dense" or not schema.dimensions:
            raise StoreError(f"{self.name}: FAISS holds dense vectors, no {schema.kind} ones")
        if self.exists():
            self._refuse_files()
            if (there := self._schema()) != schema:
                raise StoreError(f"{self.name}: exists with {there}, asked for {schema}")
            self._mine = True
            return
        if self._bare:
            raise StoreError(f"{self.name}: a bare index is only read; write faiss:FOLDER?collection=NAME")
        factory = self._place.option("factory")
        if not factory and isinstance(like, Faiss) and like.exists() and like._files() is None:
            factory = str(like._meta()["factory"])
        factory = factory or "Flat"
        with self._words():
            _empty(factory, schema)
            self._folder.mkdir(parents=True, exist_ok=True)
            values = {"dimensions": schema.dimensions, "metric": schema.metric, "factory": factory, "written": 0}
            inserted = "".join(f"INSERT INTO meta VALUES ('{name}', {value!r});" for name, value in values.items())
            with closing(sqlite3.connect(self._docstore)) as database:
                database.executescript(f"BEGIN; {_TABLES} {inserted} COMMIT;")
        self._mine = True

    def _refuse_files(self) -> None:
        if files := self._files():
            raise StoreError(f"{self.name}: {files.kind} is only read; write another collection")

    def write(self, page: Page) -> None:
        self._refuse_files()
        width = self._schema().dimensions
        rows = []
        assert page.vectors is not None
        for name, text, metadata, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True):
            if np.shape(vector) != (width,):
                raise StoreError(f"{self.name}: id {name!r:.100}: a vector of {np.shape(vector)}, it has {width}")
            try:
                held = json.dumps(metadata, ensure_ascii=False)
            except TypeError as error:
                raise StoreError(f"{self.name}: id {name!r:.100}: metadata that is no JSON: {error}") from None
            rows.append((name, text, held, np.asarray(vector, "<f4").tobytes()))
        with self._opened() as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO entries (position, id, text, metadata, vector) "
                "VALUES ((SELECT coalesce(max(position) + 1, 0) FROM entries), ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET text = excluded.text, metadata = excluded.metadata, "
                "vector = excluded.vector",
                rows,
            )
            database.execute("UPDATE meta SET value = value + 1 WHERE name = 'written'")
        self._mine = True

    def count(self) -> int:
        if files := self._files():
            return files.count
        with self._opened() as database:
            return int(database.execute("SELECT count(*) FROM entries").fetchone()[0])

    def build(self) -> None:
        """Make `index.faiss` from the docstore, if that was written since."""
        meta, schema = self._meta(), self._schema()
        if meta["written"] == meta.get("built") and (self._folder / INDEX).exists():
            return
        with self._opened() as database:  # one transaction: what is written meanwhile waits, or comes with the next
            database.execute("BEGIN")
            (total,) = database.execute("SELECT count(*) FROM entries").fetchone()
            index = _empty(str(meta["factory"]), schema)
            if total and not index.is_trained:
                cells = getattr(library.try_extract_index_ivf(index), "nlist", 0)
                step = max(1, total // max(_TRAINED_ON, 40 * cells))
                rows = database.execute("SELECT vector FROM entries WHERE position % ? = 0", (step,)).fetchall()
                index.train(_comparable([row[0] for row in rows], schema))
            cursor = database.execute("SELECT vector FROM entries ORDER BY position")
            while part := cursor.fetchmany(_BATCH):
                index.add(_comparable([row[0] for row in part], schema))
        part_file = self._folder / f"{INDEX}.part"
        with self._words():
            library.write_index(index, str(part_file))
            with open(part_file, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(part_file, self._folder / INDEX)
        with self._opened() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES ('built', ?)", (meta["written"],))

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        queries = np.ascontiguousarray(vectors, np.float32)
        if files := self._files():
            with self._words():
                return files.search(queries, k)
        self.build()
        schema = self._schema()
        if schema.metric == "cosine":
            queries = queries.copy()
            library.normalize_L2(queries)
        with self._words():
            state = _state(self._folder / INDEX)
            if self._index is None or self._index[0] != state:
                index = library.read_index(str(self._folder / INDEX))
                ivf = library.try_extract_index_ivf(index)
                if ivf is not None:
                    ivf.nprobe = int(self._place.option("nprobe", "16"))
                self._index = (state, index)
            places = self._index[1].search(queries, k)[1]
        with self._opened() as database:
            name = "SELECT id FROM entries WHERE position = ?"
            return [[database.execute(name, (int(at),)).fetchone()[0] for at in row if at >= 0] for row in places]

    def switch(self, name: str) -> str | None:
        theirs = [self._bare, self._base / f"{name}.faiss"]
        theirs += [
            self._base / one / INDEX for one in (self.collection, name) if not (self._base / one / DOCSTORE).exists()
        ]
        for one in theirs:
            if one is not None and one.exists():
                raise CannotSwitch(
                    f"{self.name}: {one} is not of Lemni's form, and who reads it cannot read that: let the "
                    f"application take {self._folder / INDEX} and the entries of {self._docstore}"
                )
        if self._docstore.exists():
            self.build()
        with self._words():
            return folders.switch(self._base.joinpath, name, self.collection)

    def drop(self) -> None:
        """A bare index's file, or the folder, which must hold nothing else."""
        known = {DOCSTORE, f"{DOCSTORE}-journal", INDEX, f"{INDEX}.part", "index.pkl"}
        with self._words():
            if self._bare:
                self._bare.unlink(missing_ok=True)
            elif self._folder.is_dir():
                if others := sorted({one.name for one in self._folder.iterdir()} - known):
                    raise StoreError(f"{self.name}: is not removed: there is {others[0]!r} in its folder")
                shutil.rmtree(self._folder)
        self._mine = False

    def close(self) -> None:
        if self._mine and self._docstore.exists():
            self.build()
        self._mine, self._index, self._others = False, None, None


def _empty(factory: str, schema: Schema) -> Any:
    metric = library.METRIC_L2 if schema.metric == "l2" else library.METRIC_INNER_PRODUCT
    return library.index_factory(schema.dimensions or 0, factory, metric)


def _state(file: Path) -> tuple[int, int, int]:
    """Changes with the file."""
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _matrix(blobs: list[bytes], width: int | None) -> Any:
    return np.frombuffer(b"".join(blobs), "<f4").astype(np.float32, copy=False).reshape(len(blobs), width or 0)


def _comparable(blobs: list[bytes], schema: Schema) -> Any:
    """Vectors as the index takes them."""
    vectors = _matrix(blobs, schema.dimensions)
    if schema.metric == "cosine":
        vectors = vectors.copy()
        library.normalize_L2(vectors)
    return vectors
