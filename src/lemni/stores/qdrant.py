"""Qdrant, in this process or behind its server, by its official client.

Addresses:
    `qdrant:./folder?collection=docs`: a folder, as `QdrantClient(path=...)` keeps it: all in memory, one process at a
        time.
    `qdrant://host:6333?collection=docs`: a server; `qdrant://host/prefix` behind a proxy.

Options:
    text: the payload field with the text. Without it the first of text, document, page_content (LangChain), content,
        body and _node_content (LlamaIndex: the "text" in its JSON) that one of the first entries has. A new collection
        takes that of the one it is made like, else `text`.
    vector: the name of the vector; without it the unnamed one or the only one, of several the only dense one.
    https: true or false; without it https where there is a key.
    prefer_grpc: true to send entries over gRPC, at the port `grpc_port` (6334).

Environment: QDRANT_API_KEY; it may also stand in the address as a password (`qdrant://:KEY@host`).

Ids: whole numbers from 0 and UUIDs as they are. Every other one is hashed to a UUID, stands in the payload field
`_lemni_id`, and is what comes back. The pages' order is by Qdrant's own ids, numbers before UUIDs. Metadata is the rest
of the payload, of any JSON. Dense vectors, named sparse ones (`sparse` if no other name is given), and multi-vectors
compared by MaxSim. A cosine collection gives vectors back normalised.

A collection that is made like another has its payload indexes, quantization, index and storage settings, shards and
replicas (but not custom shard keys), and of its vectors the one; `describe` notes others. Where entries are
overwritten, their other vectors stay.

`switch` moves an alias, which is atomic. An alias cannot have the name of a collection: where `name` is a collection it
raises CannotSwitch, and the application has to be pointed to an alias once.

The server's protocol is tested through the client against an HTTP stand-in over local mode, not against a server.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lemni.errors import CannotSwitch, StoreError
from lemni.stores.base import Description, Id, Page, Schema, Store, VectorKind
from lemni.stores.place import Place
from lemni.stores.qdrant_connection import asking, connect, disconnect
from lemni.stores.qdrant_points import ENTRIES, FIELDS, payload, plain, point_id, requests, split
from lemni.stores.qdrant_settings import METRICS, dense_params, settings_of
from lemni.stores.uuids import ORIGINAL
from lemni.types import SparseVector

_LOOKED_AT = 32  # entries, for the text's field


@dataclass(frozen=True, slots=True)
class _Column:
    """One of a collection's vectors. `schema` is None for a distance that only Qdrant has."""

    name: str
    schema: Schema | None
    params: Any
    others: tuple[str, ...]


class Qdrant:
    """One collection; see the module."""

    kinds: tuple[VectorKind, ...] = ("dense", "sparse", "multi_vector")
    id_type = "any"

    def __init__(self, place: Place) -> None:
        place.check_options("text", "vector", "https", "prefer_grpc", "grpc_port")
        if not place.collection:
            raise StoreError(f"{place}: say which collection: ?collection=NAME")
        for option in ("https", "prefer_grpc"):
            if place.option(option, "false") not in ("true", "false"):
                raise StoreError(f"{place}: {option} is true or false")
        self._place = place
        self.collection = place.collection
        self.name = f"{replace(place, collection='', options={})}, collection {place.collection}"
        self._field = place.option("text")
        self._client: Any = None
        self._release: Any = None
        self._reach()

    def exists(self) -> bool:
        with asking(self.name):
            return self._reach() and bool(self._client.collection_exists(self.collection))

    def describe(self) -> Description:
        with asking(self.name):
            info, aliases = self._info(), self._aliases()
            column = self._column(info)
            count = self.count()
        notes = []
        if str(getattr(info.status, "value", info.status)) != "green":
            notes.append(f"Qdrant is still building its indexes or waits to (status {info.status.value})")
        if column.others:
            notes.append(f"it has other vectors, which stay as they are: {', '.join(map(repr, column.others))}")
        if column.schema is None:
            notes.append(f"it compares by {column.params.distance.value}, which no other store has")
        name = aliases.get(self.collection)
        return Description(
            name or self.collection, count, column.schema, self.collection if name else None, tuple(notes)
        )

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        with asking(self.name):
            column = self._column(self._info())
            start = None
            if after is not None:
                point = point_id(after)
                found, _ = self._client.scroll(self.collection, limit=2, offset=point, with_payload=False)
                found = [one.id for one in found if one.id != point]
                if not found:
                    return
                start = found[0]
        while True:
            with asking(self.name):
                points, start = self._client.scroll(
                    self.collection,
                    limit=size,
                    offset=start,
                    with_payload=True,
                    with_vectors=vectors and (not column.others or [column.name]),
                )
                page = self._page(points, column if vectors else None)
            if page:
                yield page
            if start is None:
                return

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        wanted = list(dict.fromkeys(point_id(one) for one in ids))
        with asking(self.name):
            column = self._column(self._info())
            found = {}
            for at in range(0, len(wanted), ENTRIES):
                points = self._client.retrieve(
                    self.collection,
                    wanted[at : at + ENTRIES],
                    with_payload=True,
                    with_vectors=vectors and (not column.others or [column.name]),
                )
                found.update({one.id: one for one in points})
            return self._page([found[one] for one in wanted if one in found], column if vectors else None)

    def sibling(self, collection: str) -> Store:
        return Qdrant(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind not in self.kinds or (schema.kind != "sparse" and not schema.dimensions):
            raise StoreError(f"{self.name}: cannot hold {schema.kind} vectors of {schema.dimensions} dimensions")
        with asking(self.name):
            self._connect()
            model = like._info() if isinstance(like, Qdrant) else None
            column = like._column(model) if isinstance(like, Qdrant) else None
            if not self._field and isinstance(like, Qdrant):
                self._field = like._text_field()
            if self._client.collection_exists(self.collection):
                self._check(schema)
            else:
                self._make(schema, column, settings_of(model) if model else {})
            if model:
                there = self._info().payload_schema
                for field, index in model.payload_schema.items():
                    if field not in there:
                        how = index.params or index.data_type
                        self._client.create_payload_index(self.collection, field, field_schema=how, wait=True)

    def _make(self, schema: Schema, like: _Column | None, settings: dict[str, Any]) -> None:
        """With the name and the parameters of `like`, where that is as sparse."""
        from qdrant_client import models

        sparse = schema.kind == "sparse"
        same = like if like and sparse == isinstance(like.params, models.SparseVectorParams) else None
        name = self._place.option("vector") or (same.name if same else "sparse" if sparse else "")
        vectors: Any = {}
        if sparse:
            settings["sparse_vectors_config"] = {name: same.params if same else models.SparseVectorParams()}
        else:
            params = dense_params(schema, same.params if same else None)
            vectors = {name: params} if name else params
        self._client.create_collection(self.collection, vectors_config=vectors, **settings)

    def write(self, page: Page) -> None:
        from qdrant_client import models

        if page.vectors is None:
            raise StoreError(f"{self.name}: there are no vectors to write")
        with asking(self.name):
            column = self._column(self._info())
            field = self._text_field()
            rows = zip(page.ids, page.texts, page.metadata, self._vectors(page, column), strict=True)
            points = [
                models.PointStruct(id=point_id(name), vector=vector, payload=payload(name, text, data, field))
                for name, text, data, vector in rows
            ]
            for part in requests(page.vectors):
                self._overwrite(points[part], column)

    def count(self) -> int:
        with asking(self.name):
            self._check_it_is_there()
            return int(self._client.count(self.collection, exact=True).count)

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        from qdrant_client import models

        answers: list[list[Id]] = []
        with asking(self.name):
            column = self._column(self._info())
            for at in range(0, len(vectors), 64):
                asked = [
                    models.QueryRequest(query=plain(one), using=column.name or None, limit=k, with_payload=[ORIGINAL])
                    for one in vectors[at : at + 64]
                ]
                for answer in self._client.query_batch_points(self.collection, asked):
                    answers.append([(point.payload or {}).get(ORIGINAL, point.id) for point in answer.points])
        return answers

    def switch(self, name: str) -> str | None:
        from qdrant_client import models

        with asking(self.name):
            self._check_it_is_there()
            aliases = self._aliases()
            own, before = aliases.get(self.collection, self.collection), aliases.get(name)
            if own in (name, before):
                return None
            if before is None and self._client.collection_exists(name):
                raise CannotSwitch(
                    f"{self.name}: {name!r} is a collection, and Qdrant's aliases cannot have a collection's name. "
                    "Switch an alias instead (such as 'live'), and point the application to it once; with Lemni "
                    "?collection=ALIAS"
                )
            changes: list[Any] = [
                models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=own, alias_name=name))
            ]
            if before is not None:
                changes.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name)))
            self._client.update_collection_aliases(changes)
            return before

    def drop(self) -> None:
        if self.exists():
            with asking(self.name):
                if real := self._aliases().get(self.collection):
                    raise StoreError(f"{self.name}: is an alias; to remove the entries drop the collection {real}")
                self._client.delete_collection(self.collection)

    def close(self) -> None:
        self._client = None
        if self._release is not None:
            self._release()

    def _reach(self) -> bool:
        """Whether there is a client. A folder that is not there is not made, as a client would."""
        if self._place.host or (Path(self._place.path) / "meta.json").exists():
            self._connect()
        return self._client is not None

    def _connect(self) -> None:
        if self._client is None:
            with asking(self.name):
                self._client = connect(self._place)
            self._release = weakref.finalize(self, disconnect, self._place, self._client)

    def _aliases(self) -> dict[str, str]:
        return {one.alias_name: one.collection_name for one in self._client.get_aliases().aliases}

    def _check_it_is_there(self) -> None:
        if not self.exists():
            names = [] if self._client is None else [one.name for one in self._client.get_collections().collections]
            names += [] if self._client is None else self._aliases()
            shown = ", ".join(sorted(names)[:50])
            raise StoreError(f"{self.name}: there is no such collection; there are: {shown or 'none'}")

    def _info(self) -> Any:
        self._check_it_is_there()
        return self._client.get_collection(self.collection)

    def _column(self, info: Any) -> _Column:
        """The vector that is read and written."""
        from qdrant_client import models

        params = info.config.params
        dense = {"": params.vectors} if isinstance(params.vectors, models.VectorParams) else dict(params.vectors or {})
        every = {**dense, **(params.sparse_vectors or {})}
        name = self._place.option("vector") or ("" if "" in every else None)
        if name is None and 1 in (len(every), len(dense)):
            name = next(iter(every if len(every) == 1 else dense))
        if name is None or name not in every:
            raise StoreError(
                f"{self.name}: has the vectors {', '.join(map(repr, every)) or 'none'}; choose one: vector=NAME"
            )
        others = tuple(one for one in every if one != name)
        if name not in dense:
            return _Column(name, Schema(None, "dot", "sparse"), every[name], others)
        metric = METRICS.get(dense[name].distance.value)
        kind: VectorKind = "multi_vector" if dense[name].multivector_config else "dense"
        return _Column(name, Schema(dense[name].size, metric, kind) if metric else None, dense[name], others)

    def _check(self, schema: Schema) -> None:
        found = self._column(self._info()).schema
        if found is not None and schema.kind == "sparse" == found.kind:
            return
        if found != schema:
            had = f"{found.kind} vectors of {found.dimensions} dimensions by {found.metric}" if found else "others"
            raise StoreError(
                f"{self.name}: exists for {had}, and {schema.kind} ones of {schema.dimensions} dimensions by "
                f"{schema.metric} are wanted"
            )

    def _text_field(self) -> str:
        if not self._field:
            points, _ = self._client.scroll(self.collection, limit=_LOOKED_AT, with_payload=True)
            for field in FIELDS:
                if any(split(one.payload or {}, field)[0] is not None for one in points):
                    self._field = field
                    break
        return self._field or "text"

    def _page(self, points: Seq[Any], column: _Column | None) -> Page:
        field = self._text_field()
        divided = [split(one.payload or {}, field) for one in points]
        ids = [(one.payload or {}).get(ORIGINAL, one.id) for one in points]
        vectors: Any = None
        if column is not None:
            vectors = []
            for name, one in zip(ids, points, strict=True):
                found = one.vector.get(column.name) if isinstance(one.vector, dict) else one.vector
                if found is None:
                    raise StoreError(f"{self.name}: entry {name!r:.100} has no vector {column.name!r}")
                vectors.append(
                    SparseVector(np.asarray(found.indices, np.int32), np.asarray(found.values, np.float32))
                    if hasattr(found, "indices")
                    else np.asarray(found, np.float32)
                )
            if getattr(column.params, "size", None) and not column.params.multivector_config:
                vectors = np.stack(vectors) if vectors else np.empty((0, column.params.size), np.float32)
        return Page(ids, [text for text, _ in divided], [data for _, data in divided], vectors)

    def _vectors(self, page: Page, column: _Column) -> list[Any]:
        """As points have them; raises StoreError for one that does not fit, before any is written."""
        size = getattr(column.params, "size", None)
        rows: list[Any] = []
        for name, row in zip(page.ids, page.vectors, strict=True):  # type: ignore[arg-type]
            if isinstance(row, SparseVector) != (size is None) or (size and np.shape(row)[-1:] != (size,)):
                shape = "a sparse vector" if isinstance(row, SparseVector) else f"a vector of shape {np.shape(row)}"
                raise StoreError(
                    f"{self.name}: entry {name!r:.100} has {shape}; "
                    f"wanted are {f'{size} dimensions' if size else 'sparse vectors'}"
                )
            vector = plain(row)
            rows.append({column.name: vector} if column.name else vector)
        return rows

    def _overwrite(self, points: list[Any], column: _Column) -> None:
        """Qdrant's own `upsert` takes away all vectors that the newer point does not have."""
        from qdrant_client import models

        there: set[Any] = set()
        if column.others:
            found = self._client.retrieve(self.collection, [one.id for one in points], with_payload=False)
            there = {one.id for one in found}
        if new := [one for one in points if one.id not in there]:
            self._client.upsert(self.collection, new, wait=True)
        if old := [one for one in points if one.id in there]:
            vectors = [
                models.PointVectors(id=one.id, vector=one.vector if column.name else {"": one.vector}) for one in old
            ]
            self._client.update_vectors(self.collection, vectors, wait=True)
            operations: list[Any] = [
                models.OverwritePayloadOperation(
                    overwrite_payload=models.SetPayload(payload=one.payload or {}, points=[one.id])
                )
                for one in old
            ]
            self._client.batch_update_points(self.collection, operations, wait=True)
