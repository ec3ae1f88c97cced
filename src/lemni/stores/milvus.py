"""Milvus collections: a server, Zilliz Cloud, or Milvus Lite, a folder of this machine.

`milvus:FILE.db?collection=NAME` is Milvus Lite (its path must end in `.db`), `milvus://HOST[:19530]?collection=NAME` a
server. Who signs in stands in the environment variable MILVUS_TOKEN (`user:password`, or an API key), or in the
address.

Options:
    db: the database on a server; `default` without it.
    tls: `1` for https.
    text, vector: the fields' names. Without them: the first of `text`, `document`, `content`, `body`, `page_content`
        that there is; `vector`, else the first field of vectors. The id is the primary key.
    id: of a new collection, the primary key's name; default `id`.
    idtype: of a new collection: `str` (default) or `int`.

Ids: the primary key: VARCHAR (up to 512 bytes in a new collection) or INT64; longer ids are refused by name. Pages are
in the order of the ids, with strong consistency. A collection made like one whose keys the
server makes up (`auto_id`) takes the ids that it is given.

Texts have at most 65,535 bytes (VARCHAR), and metadata of one entry 65,536 as JSON; an entry with more is refused by
name. Metadata that has no field of its own is kept exactly in the dynamic field; a name that is already that of the
id, text or vector field is refused (choose other names by the options). All other fields are metadata, also further
vectors.

Kinds: dense (FLOAT_VECTOR; COSINE, IP, L2) and sparse (SPARSE_FLOAT_VECTOR; IP).

Switch: a name that is an alias is moved in one step. A name that is a collection is renamed to `NAME_before_NEW` and
becomes an alias: for a moment there is none, and if the program dies just then, the same call finishes it. Every later
switch of that name is one step. Milvus Lite can do all of that too.

Milvus Lite (3.x): one process at a time has the folder, until it ends; what was written outlives a killed process; it
reads whole collections into memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lemni.errors import LemniError, StoreError, missing_extra
from lemni.stores import as_id, milvus_lite
from lemni.stores.base import Description, Id, Page, Schema, Store, VectorKind
from lemni.stores.folders import kept_name
from lemni.stores.place import Place

try:
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    from lemni.stores import milvus_schema as layout
except ImportError:
    raise missing_extra("pymilvus", "milvus", "The store milvus") from None

_STRONG: dict[str, Any] = {"consistency_level": "Strong"}
_METADATA_BYTES = 65_536  # of the dynamic field
_REQUEST_BYTES = 8 << 20  # a server takes 64 MiB
_ANSWER_BYTES = 32 << 20
_BATCH = 16_384  # most rows of one answer
_FETCH = 500  # ids in one condition
_QUERIES = 100  # in one search
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})  # Lite knows no \u


class Milvus:
    kinds: tuple[VectorKind, ...] = ("dense", "sparse")

    def __init__(self, place: Place) -> None:
        place.check_options("db", "tls", "id", "text", "vector", "idtype")
        if not place.collection:
            raise StoreError(f"{place}: which collection? Add ?collection=NAME")
        if not place.host and not place.path.endswith(".db"):
            raise StoreError(f"{place}: write milvus://HOST, or milvus:FILE.db for Milvus Lite")
        if place.option("idtype", "str") not in ("str", "int"):
            raise StoreError(f"{place}: idtype is str or int")
        self._place = place
        self.collection = place.collection
        where = f"//{place.host}:{place.port or 19530}" if place.host else place.path
        self.name = f"milvus:{where}, collection {self.collection}"
        self._held: Any = None
        self._reach()

    def _reach(self) -> bool:
        """Whether there is a client. A folder that is not there is not made, as Lite would."""
        if self._held is None and (self._place.host or Path(self._place.path).exists()):
            self._connect()
        return self._held is not None

    def _connect(self) -> None:
        place = self._place
        if not place.host:
            milvus_lite.prepare(place.path, self.name)
        scheme = "https" if place.option("tls") == "1" else "http"
        uri = f"{scheme}://{place.host}:{place.port or 19530}" if place.host else place.path
        token = f"{place.user}:{place.password or ''}" if place.user else os.environ.get("MILVUS_TOKEN", "")
        try:
            with self._words():
                self._held = MilvusClient(uri, token=token if place.host else "", db_name=place.option("db"))
        except StoreError as error:
            if place.host:
                raise
            raise StoreError(
                f"{error.message} (does another process have it? Milvus Lite takes one at a time)"
            ) from error

    @contextmanager
    def _words(self) -> Iterator[None]:
        """Milvus' errors as StoreError, with its words."""
        try:
            yield
        except LemniError:
            raise
        except MilvusException as error:
            raise StoreError(f"{self.name}: {error.message:.500}") from error
        except Exception as error:  # gRPC's, and what pymilvus raises for values that it cannot send
            raise StoreError(f"{self.name}: {type(error).__name__}: {error!s:.500}") from error

    @property
    def _client(self) -> Any:
        if self._held is None:
            raise StoreError(f"{self.name}: there is no such collection; there is no {self._place.path}")
        return self._held

    @property
    def id_type(self) -> str:
        return self._fields().id_type if self.exists() else self._place.option("idtype", "str")

    def exists(self) -> bool:
        if not self._reach():
            return False
        with self._words():
            return bool(self._held.has_collection(self.collection))

    def _fields(self) -> layout.Fields:
        """Raises StoreError if there is no collection."""
        if not self.exists():
            with self._words():
                names = self._client.list_collections()
            known = ", ".join(sorted(names)[:20]) + (" …" if len(names) > 20 else "")
            raise StoreError(f"{self.name}: there is no such collection; there are: {known or 'none'}")
        option = self._place.option
        with self._words():
            found = self._client.describe_collection(self.collection)
            return layout.fields_of(found, option("text"), option("vector"))

    def _loaded(self) -> layout.Fields:
        """Ready to be read: Milvus reads only what is loaded."""
        fields = self._fields()
        with self._words():
            self._client.load_collection(self.collection)
        return fields

    def _target(self, name: str) -> str | None:
        """The collection behind an alias; None if it is none."""
        with self._words():
            if name in self._client.list_aliases()["aliases"]:
                return str(self._client.describe_alias(name)["collection_name"])
        return None

    def describe(self) -> Description:
        fields = self._fields()
        target = self._target(self.collection)
        alias = self.collection if target else None
        return Description(target or self.collection, self.count(), self._schema(fields), alias)

    def _schema(self, fields: layout.Fields) -> Schema:
        with self._words():
            index = layout.index_of(self._client, self.collection, fields.vector)
        return Schema(fields.dimensions, layout.metric_of(index), fields.kind)

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        fields = self._loaded()
        # Lite looks at every entry for each answer: the fewer, the better.
        batch = min(size, _BATCH) if self._place.host else _BATCH
        if vectors:
            batch = max(1, min(batch, _ANSWER_BYTES // (4 * (fields.dimensions or 256))))
        last = None if after is None else as_id(after, fields.id_type, self.name)
        waiting: list[dict[str, Any]] = []
        while found := self._next(fields, last, batch, vectors):
            last = found[-1][fields.id]
            waiting.extend(found)
            while len(waiting) >= size:
                yield self._page(fields, waiting[:size], vectors)
                waiting = waiting[size:]
        if waiting:
            yield self._page(fields, waiting, vectors)

    def _next(self, fields: layout.Fields, last: Id | None, count: int, vectors: bool) -> list[dict[str, Any]]:
        """The entries with the next ids after `last`. What pymilvus' query iterator asks for, which itself does not
        escape the ids that it stopped at."""
        if last is not None:
            condition = f"{fields.id} > {_literal(last)}"
        else:
            condition = f'{fields.id} >= ""' if fields.id_type == "str" else f"{fields.id} > {-(2**63) + 1}"
        with self._words():
            found = self._client.query(
                self.collection,
                filter=condition,
                output_fields=fields.output(vectors),
                limit=count,
                iterator="True",  # in the order of the keys
                reduce_stop_for_best="True",
                **_STRONG,
            )
        return list(found)

    def _page(self, fields: layout.Fields, rows: list[dict[str, Any]], vectors: bool) -> Page:
        used = (fields.id, fields.text, fields.vector)
        found: Any = None
        if vectors and fields.kind == "dense":
            found = np.array([row[fields.vector] for row in rows], np.float32).reshape(
                len(rows), fields.dimensions or 0
            )
        elif vectors:
            found = [layout.sparse(row[fields.vector]) for row in rows]
        return Page(
            [row[fields.id] for row in rows],
            [row.get(fields.text) if fields.text else None for row in rows],
            [{name: layout.plain(value) for name, value in row.items() if name not in used} for row in rows],
            found,
        )

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        fields = self._loaded()
        wanted = list(dict.fromkeys(as_id(one, fields.id_type, self.name) for one in ids))
        found: dict[Any, dict[str, Any]] = {}
        with self._words():
            for start in range(0, len(wanted), _FETCH):
                listed = ", ".join(_literal(one) for one in wanted[start : start + _FETCH])
                rows = self._client.query(
                    self.collection,
                    filter=f"{fields.id} in [{listed}]",
                    output_fields=fields.output(vectors),
                    **_STRONG,
                )
                found.update((row[fields.id], row) for row in rows)
        return self._page(fields, [found[one] for one in wanted if one in found], vectors)

    def sibling(self, collection: str) -> Milvus:
        return Milvus(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind not in self.kinds or (schema.kind == "dense") != bool(schema.dimensions):
            raise StoreError(f"{self.name}: Milvus holds {' and '.join(self.kinds)} vectors here, not {schema}")
        if schema.kind == "sparse" and schema.metric != "dot":
            raise StoreError(f"{self.name}: Milvus compares sparse vectors by dot, not by {schema.metric}")
        if self.exists():
            if (there := self._schema(self._fields())) != schema:
                raise StoreError(f"{self.name}: exists with {there}, asked for {schema}")
            return
        if self._held is None:
            self._connect()
        with self._words():
            if isinstance(like, Milvus) and like.exists():
                how = layout.alike(like._client, like.collection, like._fields(), schema)
            else:
                option = self._place.option
                how = layout.fresh(
                    schema,
                    id=option("id") or "id",
                    id_type=option("idtype", "str"),
                    text=option("text") or "text",
                    vector=option("vector") or "vector",
                )
            self._client.create_collection(self.collection, **how)

    def write(self, page: Page) -> None:
        fields = self._fields()
        rows: dict[Id, tuple[dict[str, Any], int]] = {}
        assert page.vectors is not None
        for name, text, metadata, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True):
            key = as_id(name, fields.id_type, self.name)
            rows.pop(key, None)  # of two with one id the later
            with self._words():
                rows[key] = self._row(fields, key, text, metadata, vector)
        with self._words():
            batch: list[dict[str, Any]] = []
            filled = 0
            for row, size in rows.values():
                if batch and filled + size > _REQUEST_BYTES:
                    self._client.upsert(self.collection, batch)
                    batch, filled = [], 0
                batch.append(row)
                filled += size
            if batch:
                self._client.upsert(self.collection, batch)

    def _row(
        self, fields: layout.Fields, key: Id, text: str | None, metadata: dict[str, Any], vector: Any
    ) -> tuple[dict[str, Any], int]:
        """What is sent of an entry, and about how many bytes it has."""

        def refused(why: str) -> StoreError:
            return StoreError(f"{self.name}: id {key!r:.100}: {why}")

        row: dict[str, Any] = {fields.id: key}
        if isinstance(key, str) and fields.id_bytes and len(key.encode()) > fields.id_bytes:
            raise refused(f"has {len(key.encode())} bytes, the primary key at most {fields.id_bytes}")
        if fields.text:
            if text is not None and len(text.encode()) > fields.text_bytes:
                raise refused(f"its text has {len(text.encode())} bytes, the field at most {fields.text_bytes}")
            row[fields.text] = text
        elif text is not None:
            raise refused("the collection has no field for texts; choose one by &text=")
        if fields.kind == "sparse":
            row[fields.vector] = {int(at): float(weight) for at, weight in zip(*vector, strict=True)}
            size = 16 * len(vector[0])
        else:
            row[fields.vector] = np.asarray(vector, np.float32)
            size = 4 * len(vector)
            if len(vector) != fields.dimensions:
                raise refused(f"a vector of {len(vector)}, the collection has {fields.dimensions}")
        for name, value in metadata.items():
            if name in row:
                raise refused(f"its metadata has {name!r}, which is the name of a field; choose others by &id=, &text=")
            if name not in fields.others and not fields.dynamic:
                raise refused(f"the collection has no field for {name!r}, and no dynamic field")
            row[name] = value
        dynamic = {name: value for name, value in metadata.items() if name not in fields.others}
        try:
            held = len(json.dumps(dynamic, ensure_ascii=False, allow_nan=False).encode()) if dynamic else 0
        except (TypeError, ValueError) as error:
            raise refused(f"metadata that is no JSON: {error}") from None
        if held > _METADATA_BYTES:
            raise refused(f"its metadata has {held} bytes, the dynamic field at most {_METADATA_BYTES}")
        return row, size + held + len((text or "").encode()) + 100

    def count(self) -> int:
        self._loaded()
        with self._words():
            (found,) = self._client.query(self.collection, filter="", output_fields=["count(*)"], **_STRONG)
        return int(found["count(*)"])

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        fields = self._loaded()
        queries = [
            {int(at): float(weight) for at, weight in zip(*one, strict=True)}
            if fields.kind == "sparse"
            else np.asarray(one, np.float32)
            for one in vectors
        ]
        found: list[list[Id]] = []
        with self._words():
            for start in range(0, len(queries), _QUERIES):
                hits = self._client.search(
                    self.collection,
                    data=queries[start : start + _QUERIES],
                    anns_field=fields.vector,
                    limit=k,
                    output_fields=[fields.id],
                    **_STRONG,
                )
                found += [[hit[fields.id] if fields.id in hit else hit["id"] for hit in one] for one in hits]
        return found

    def switch(self, name: str) -> str | None:
        self._fields()
        mine = self._target(self.collection) or self.collection
        if mine == name:
            return None
        before, kept = self._target(name), kept_name(name, mine)
        with self._words():
            if before is not None:
                self._client.alter_alias(mine, name)
                if before != mine:
                    return before
            elif self._client.has_collection(name):
                self._client.rename_collection(name, kept)
                self._client.create_alias(mine, name)
            else:
                self._client.create_alias(mine, name)
            return kept if self._client.has_collection(kept) else None

    def drop(self) -> None:
        if not self.exists():
            return
        if target := self._target(self.collection):
            raise StoreError(f"{self.name}: is an alias; to remove the entries drop the collection {target}")
        with self._words():
            self._client.drop_collection(self.collection)

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _literal(value: Id) -> str:
    """As it stands in a condition."""
    return str(value) if isinstance(value, int) else f'"{value.translate(_ESCAPES)}"'
