"""LanceDB tables: a folder of this machine, an object store, or LanceDB's cloud.

`lancedb:FOLDER?collection=TABLE`, such as `lancedb:./data?collection=docs`; anything else that `lancedb.connect` takes
is given by the option `uri`: `lancedb:?uri=s3://bucket/path&collection=docs`.

Options:
    uri: what to connect to instead of a folder: `s3://…`, `gs://…`, `az://…`, `db://…`. Credentials are those of the
        environment (AWS_ACCESS_KEY_ID and so on; LANCEDB_API_KEY for `db://`).
    id, text, vector: the columns' names. Without them: `id`; the first of `text`, `document`, `content`, `body` that
        there is; `vector` or else the first column of vectors.
    columns: of a new table, real columns for some of the metadata: `columns=title:string,year:int64` (names of Arrow
        types). What has no column of its own, or does not fit into it exactly, stands as JSON in the column `metadata`.
    idtype: of a new table: `str` (default) or `int`.
    index: `ivf_pq`, `hnsw` or `none`, built when the store is closed or switched. Default: what `like` had; else none
        below 100,000 rows, where LanceDB searches exactly, and IVF-PQ from there on.

Ids: strings or whole numbers, as the id column has them; it must be unique. Read in the order in which LanceDB keeps
them. Every other column of a table that people made is metadata, structs and lists included; a null is None there.
Lemni's own tables give back exactly the keys that were written.

Kinds: dense and multi-vector (list of vectors; LanceDB compares those by cosine only). Metric: the index's; without
an index what Lemni wrote into the table's schema (`lemni.metric`), else LanceDB's default, l2. An application searching
a table without an index must name the metric: `table.search(vector).distance_type("cosine")`.

Switch: of a local folder the two tables change places in one step (Linux, macOS; elsewhere by two renames), and the
table before is kept as `NAME_before_NEW`. An application opens the table again (`open_table`) to see it. With
`uri` there is CannotSwitch: open-source LanceDB does not rename tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from lemni.errors import CannotSwitch, LemniError, StoreError, missing_extra
from lemni.stores import as_id, folders
from lemni.stores.base import Description, Id, Metric, Page, Schema, Store, VectorKind
from lemni.stores.place import Place

try:
    import lancedb as client
    import pyarrow as pa

    from lemni.stores import lancedb_columns as columns
except ImportError:
    raise missing_extra("lancedb", "lancedb", "The store lancedb") from None

_TEXTS = ("text", "document", "content", "body")
_INDEXES = {"ivf_pq": "IVF_PQ", "hnsw": "IVF_HNSW_SQ"}
_CONFIGS = {  # of `lancedb.index`, by what its statistics call them
    "IVF_FLAT": "IvfFlat",
    "IVF_SQ": "IvfSq",
    "IVF_PQ": "IvfPq",
    "IVF_RQ": "IvfRq",
    "IVF_HNSW_FLAT": "HnswFlat",
    "IVF_HNSW_SQ": "HnswSq",
    "IVF_HNSW_PQ": "HnswPq",
}
_INDEX_FROM = 100_000  # rows, from which on there is an index without being asked for
_PQ_NEEDS = 256  # rows, to train its codes
_OPTIMIZE_EVERY = 64  # writes: each leaves a file, and looking for ids reads them all
_METRIC, _INDEX = b"lemni.metric", b"lemni.index"
_FETCH = 500  # ids in one condition


class LanceDB:
    kinds: tuple[VectorKind, ...] = ("dense", "multi_vector")

    def __init__(self, place: Place) -> None:
        place.check_options("uri", "id", "text", "vector", "columns", "idtype", "index")
        if place.host:
            raise StoreError(f"{place}: a folder is written lancedb:FOLDER, anything else lancedb:?uri=…")
        if not place.collection:
            raise StoreError(f"{place}: which table? Add ?collection=NAME")
        if place.option("index", "none") not in (*_INDEXES, "none"):
            raise StoreError(f"{place}: index is {', '.join(_INDEXES)} or none")
        if place.option("idtype", "str") not in ("str", "int"):
            raise StoreError(f"{place}: idtype is str or int")
        uri = place.option("uri") or place.path
        if not uri:
            raise StoreError(f"{place}: which folder? Write lancedb:FOLDER?collection=NAME")
        self._place = place
        self._folder = None if "://" in uri else Path(uri)
        self.collection = place.collection
        self.name = f"lancedb:{uri}, table {self.collection}"
        self._mine, self._writes = False, 0  # whether this object wrote: then `close` ends what that has begun
        with self._words():
            # Connecting makes the folder; opening must not.
            self._connection = None if self._folder and not self._folder.is_dir() else client.connect(uri)
        self._uri = uri

    @property
    def id_type(self) -> str:
        table = self._table()
        if table is None:
            return self._place.option("idtype", "str")
        return self._id_type(table)

    def _id_type(self, table: Any) -> str:
        return "int" if pa.types.is_integer(table.schema.field(self._columns(table)[0]).type) else "str"

    @contextmanager
    def _words(self) -> Iterator[None]:
        """LanceDB's errors as StoreError, with its words."""
        try:
            yield
        except LemniError:
            raise
        except Exception as error:  # its Rust core raises ValueError, RuntimeError, OSError and its own
            raise StoreError(f"{self.name}: {str(error) or type(error).__name__:.500}") from error

    def _table(self) -> Any:
        """As it is now; None if there is none."""
        if self._connection is None and self._folder and self._folder.is_dir():
            self._connection = client.connect(self._uri)
        if self._connection is None:
            return None
        if self._folder and not self._path(self.collection).is_dir():
            return None
        with self._words():
            try:
                return self._connection.open_table(self.collection)
            except ValueError as error:
                if "was not found" in str(error):
                    return None
                raise

    def _there(self) -> Any:
        table = self._table()
        if table is None:
            names = self._names()
            known = ", ".join(names[:20]) + (" …" if len(names) > 20 else "")
            raise StoreError(f"{self.name}: there is no such table; there are: {known or 'none'}")
        return table

    def _names(self) -> list[str]:
        with self._words():
            return list(self._connection.list_tables(limit=1000).tables) if self._connection else []

    def _path(self, collection: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{collection}.lance"

    def _columns(self, table: Any) -> tuple[str, str | None, str]:
        """Names of the columns of ids, texts and vectors."""
        schema, option = table.schema, self._place.option
        for chosen in (option("id"), option("text"), option("vector")):
            if chosen and chosen not in schema.names:
                raise StoreError(f"{self.name}: has no column {chosen!r}; it has {', '.join(schema.names)}")
        name = option("id") or "id"
        if name not in schema.names:
            raise StoreError(f"{self.name}: has no column 'id'; choose one by &id=: {', '.join(schema.names)}")
        strings = [one.name for one in schema if pa.types.is_string(one.type) or pa.types.is_large_string(one.type)]
        text = option("text") or next((one for one in _TEXTS if one in strings and one != name), None)
        vectors = [one.name for one in schema if columns.width(one.type)]
        vector = option("vector") or ("vector" if "vector" in vectors else next(iter(vectors), ""))
        if vector not in vectors:
            raise StoreError(f"{self.name}: has no column of vectors of one length; it has {', '.join(schema.names)}")
        return name, text, vector

    def exists(self) -> bool:
        return self._table() is not None

    def describe(self) -> Description:
        table = self._there()
        with self._words():
            return Description(self.collection, table.count_rows(), self._schema(table), notes=self._notes(table))

    def _schema(self, table: Any) -> Schema:
        field = table.schema.field(self._columns(table)[2])
        kind: VectorKind = "dense" if pa.types.is_fixed_size_list(field.type) else "multi_vector"
        index = self._index(table)
        metric = index[1] if index else (table.schema.metadata or {}).get(_METRIC, b"l2").decode()
        return Schema(columns.width(field.type), cast(Metric, metric), kind)

    def _index(self, table: Any) -> tuple[str, str] | None:
        """Kind and metric of the vectors' index."""
        vector = self._columns(table)[2]
        with self._words():
            for one in table.list_indices():
                if list(one.columns) == [vector]:
                    found = table.index_stats(one.name)
                    return found.index_type, found.distance_type
        return None

    def _notes(self, table: Any) -> tuple[str, ...]:
        index = self._index(table)
        if index:
            return (f"index {index[0]}",)
        if _METRIC in (table.schema.metadata or {}):
            return ("no index: searched exactly",)
        return ("no index and no metric noted: LanceDB's default is l2",)

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        table = self._there()
        total = table.count_rows()
        skipped = 0 if after is None else self._place_of(table, after) + 1
        if skipped >= total:
            return
        with self._words():
            reader = self._query(table, vectors).offset(skipped).limit(total).to_batches(size)
            waiting: list[Any] = []
            for batch in reader:
                waiting.append(batch)
                while (rows := sum(map(len, waiting))) >= size:
                    joined = pa.Table.from_batches(waiting)
                    yield self._page(table, joined.slice(0, size), vectors)
                    waiting = joined.slice(size).to_batches() if rows > size else []
            if waiting:
                yield self._page(table, pa.Table.from_batches(waiting), vectors)

    def _place_of(self, table: Any, wanted: Id) -> int:
        column, passed = self._columns(table)[0], 0
        with self._words():
            for batch in table.search().select([column]).limit(table.count_rows()).to_batches(65_536):
                found = pa.compute.index(batch[column], pa.scalar(wanted, batch[column].type)).as_py()
                if found >= 0:
                    return passed + int(found)
                passed += len(batch)
        raise StoreError(f"{self.name}: has no id {wanted!r:.100} to go on after")

    def _query(self, table: Any, vectors: bool) -> Any:
        """Of all rows, without the vectors if they are not asked for."""
        vector = self._columns(table)[2]
        return table.search().select([one for one in table.schema.names if vectors or one != vector])

    def _page(self, table: Any, rows: Any, vectors: bool) -> Page:
        name, text, vector = self._columns(table)
        metadata = columns.metadata_from(rows, table.schema, (name, text, vector))
        if rows[name].null_count:
            raise StoreError(f"{self.name}: there are rows whose {name!r} is null")
        texts = rows[text].to_pylist() if text else [None] * len(rows)
        return Page(rows[name].to_pylist(), texts, metadata, columns.vectors_from(rows[vector]) if vectors else None)

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        table = self._there()
        column, kind = self._columns(table)[0], self._id_type(table)
        wanted = list(dict.fromkeys(as_id(one, kind, self.name) for one in ids))
        parts = []
        with self._words():
            for start in range(0, len(wanted), _FETCH):
                listed = ", ".join(_sql(one) for one in wanted[start : start + _FETCH])
                parts.append(self._query(table, vectors).where(f"`{column}` IN ({listed})").to_arrow())
            if not parts:
                parts.append(self._query(table, vectors).limit(1).to_arrow().slice(0, 0))
            rows = pa.concat_tables(parts)
            at = {one: place for place, one in enumerate(rows[column].to_pylist())}
            places = pa.array([at[one] for one in wanted if one in at], pa.int64())  # of none no type is guessed
            return self._page(table, rows.take(places), vectors)

    def sibling(self, collection: str) -> LanceDB:
        return LanceDB(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind not in self.kinds or not schema.dimensions:
            raise StoreError(f"{self.name}: LanceDB holds {' and '.join(self.kinds)} vectors, no {schema.kind} ones")
        if schema.kind == "multi_vector" and schema.metric != "cosine":
            raise StoreError(f"{self.name}: LanceDB compares multi-vectors by cosine, not by {schema.metric}")
        table = self._table()
        if table is not None:
            if (there := self._schema(table)) != schema:
                raise StoreError(f"{self.name}: exists with {there}, asked for {schema}")
            self._mine = True
            return
        vectors = pa.list_(pa.float32(), schema.dimensions)
        vectors = vectors if schema.kind == "dense" else pa.list_(vectors)
        notes = {_METRIC: schema.metric.encode()}
        model = like._table() if isinstance(like, LanceDB) else None
        if isinstance(like, LanceDB) and model is not None:
            name, text, vector = like._columns(model)
            mine = self._place.option("vector") or vector
            fields = [one if one.name != vector else pa.field(mine, vectors) for one in model.schema]
            index = like._index(model)
            notes = {**(model.schema.metadata or {}), **notes}
            if index:
                notes[_INDEX] = index[0].encode()
            for option, column in (("id", name), ("text", text)):
                if self._place.option(option) not in ("", column):
                    raise StoreError(f"{self.name}: made like {like.name}, where {option} is the column {column!r}")
        else:
            fields = self._new_fields(vectors)
            notes[columns.REST] = b"metadata"
        with self._words():
            if self._connection is None:
                self._connection = client.connect(self._uri)
            self._connection.create_table(self.collection, schema=pa.schema(fields, metadata=notes))

    def _new_fields(self, vectors: Any) -> list[Any]:
        option, extra = self._place.option, []
        for one in filter(None, option("columns").split(",")):
            name, _, kind = one.partition(":")
            try:
                extra.append(pa.field(name, pa.type_for_alias(kind or "string")))
            except ValueError:
                raise StoreError(f"{self.name}: columns={one}: Arrow has no type {kind!r}") from None
        fields = [
            pa.field(option("id") or "id", pa.int64() if option("idtype") == "int" else pa.string()),
            pa.field(option("text") or "text", pa.string()),
            pa.field(option("vector") or "vector", vectors),
            *extra,
            pa.field("metadata", pa.string()),
        ]
        if len({one.name for one in fields}) < len(fields):
            raise StoreError(f"{self.name}: two columns of one name: {', '.join(one.name for one in fields)}")
        return fields

    def write(self, page: Page) -> None:
        table = self._there()
        schema = table.schema
        name, text, vector = self._columns(table)
        width, kind = columns.width(schema.field(vector).type), self._id_type(table)
        ids = [as_id(one, kind, self.name) for one in page.ids]
        assert page.vectors is not None
        if not ids:
            return
        for one, row in zip(ids, page.vectors, strict=True):
            if (own := np.shape(row)[-1]) != width:
                raise StoreError(f"{self.name}: id {one!r:.100}: a vector of {own}, the table has {width}")
        last = list({one: at for at, one in enumerate(ids)}.values())  # of two with one id the later
        values = {
            name: [ids[at] for at in last],
            vector: columns.vectors_to([page.vectors[at] for at in last], schema.field(vector).type),
        }
        texts = [page.texts[at] for at in last]
        if text:
            values[text] = texts
        elif any(one is not None for one in texts):
            raise StoreError(f"{self.name}: has no column for texts; choose one by &text=: {', '.join(schema.names)}")
        with self._words():
            values |= columns.of_metadata(schema, [page.metadata[at] for at in last], tuple(values), values[name])
            arrays = [pa.array(values[one.name], one.type) for one in schema]
            rows = pa.Table.from_arrays(arrays, schema=schema)
            merge = table.merge_insert(name).when_matched_update_all().when_not_matched_insert_all()
            merge.execute(rows)
            self._mine = True
            self._writes += 1
            if self._writes % _OPTIMIZE_EVERY == 0:
                table.optimize()

    def count(self) -> int:
        table = self._there()
        with self._words():
            return int(table.count_rows())

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        table = self._there()
        name, _, vector = self._columns(table)
        metric = self._schema(table).metric
        found = []
        with self._words():
            for one in vectors:
                query = table.search(np.asarray(one, np.float32), vector_column_name=vector).distance_type(metric)
                found.append(query.limit(k).select([name, "_distance"]).to_arrow()[name].to_pylist())
        return found

    def switch(self, name: str) -> str | None:
        if self._folder is None:
            self._there()
            raise CannotSwitch(
                f"{self.name}: LanceDB does not rename tables there; let the application open {self.collection!r} "
                f"instead of {name!r}"
            )
        self._end_writes()
        with self._words():
            return folders.switch(self._path, name, self.collection)

    def _end_writes(self) -> None:
        """Join the files that the writes left, and build the index that there is to be."""
        table = self._table() if self._mine else None
        self._mine = False
        if table is None:
            return
        with self._words():
            table.optimize()
            rows, default = table.count_rows(), (table.schema.metadata or {}).get(_INDEX, b"").decode()
            default = default or ("IVF_PQ" if rows >= _INDEX_FROM else "")
            kind = _INDEXES.get(self._place.option("index"), "" if self._place.option("index") else default)
            if kind and rows >= _PQ_NEEDS and self._index(table) is None:
                schema, vector = self._schema(table), self._columns(table)[2]
                config = getattr(client.index, _CONFIGS[kind])(distance_type=schema.metric)
                table.create_index(vector, config=config)

    def drop(self) -> None:
        if self._table() is not None and self._connection is not None:
            with self._words():
                self._connection.drop_table(self.collection)

    def close(self) -> None:
        self._end_writes()


def _sql(value: Id) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
