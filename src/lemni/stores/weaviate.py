"""Weaviate from 1.27, by its official client (4.16 or later).

Address: `weaviate://host:8080?collection=Docs`; with `https=true` the port is 443.

Options:
    text: the property with the text. Without it the first text property of the collection among text, document,
        page_content, content and body; in a new collection that of the one it is made like, else `text`.
    vector: the name of the vector; without it the only one. A new collection has `default`, as the client names it.
    https: true for https and gRPC over TLS.
    grpc_port (50051, with https 443) and grpc_host (the address's): where its gRPC API is.

Environment: WEAVIATE_API_KEY; it may also stand in the address as a password (`weaviate://:KEY@host`).

Ids: UUIDs as they are. Every other one is hashed to a UUID, stands as JSON in the text property `_lemni_id`, and is
what comes back. The pages' order is by UUID. Collections' names begin with a capital letter; Weaviate makes it one.

Metadata are the other properties. A property that is not in the schema yet is added with the type of its values: text,
int, number, boolean, and lists of these. What Weaviate cannot keep exactly is refused with the entry's id: nested
values, whole numbers over 2^53, names that are not letters, digits and underscores or begin with a capital letter. Null
and an empty list are the same to it as no value, and are left out. Dates come as ISO 8601 texts.

Dense vectors only, and no vectorizer: a collection that is made like another has its properties, inverted index, index
settings, replication and sharding, and vectorizer none. Into a collection with several vectors nothing is written,
since Weaviate's batches would take the others away.

`switch` moves a collection alias (Weaviate 1.32), which is atomic. An alias cannot have the name of a collection: where
`name` is a collection it raises CannotSwitch, and the application has to be pointed to an alias once.

Checked against its client and documented API only: no package has the server. The tests answer the client's REST and
gRPC requests by the client's own protocol buffers.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lemni.errors import CannotSwitch, StoreError, missing_extra
from lemni.stores.base import Description, Id, Page, Schema, Store, VectorKind
from lemni.stores.place import Place
from lemni.stores.uuids import ORIGINAL, hashed, is_uuid
from lemni.stores.weaviate_properties import DISTANCES, FIELDS, METRICS, data_types, like_collection, plain, stored

_OBJECTS = 256  # in one request


@dataclass(frozen=True, slots=True)
class _Column:
    """One of a collection's vectors; `name` is None for the one of a collection without named ones."""

    name: str | None
    distance: str
    others: tuple[str, ...]

    @property
    def wanted(self) -> Any:
        return True if self.name is None else [self.name]


class Weaviate:
    """One collection; see the module."""

    kinds: tuple[VectorKind, ...] = ("dense",)
    id_type = "any"

    def __init__(self, place: Place) -> None:
        place.check_options("text", "vector", "https", "grpc_port", "grpc_host")
        if not place.host or not place.collection:
            raise StoreError(f"{place}: is written weaviate://HOST:PORT?collection=NAME")
        if place.option("https", "false") not in ("true", "false"):
            raise StoreError(f"{place}: https is true or false")
        self._place = place
        self.collection = _capital(place.collection)
        self.name = f"{replace(place, collection='', options={})}, collection {self.collection}"
        self._field = place.option("text")
        with self._asking():
            self._client: Any = _client(place)
        self._release = weakref.finalize(self, self._client.close)

    def exists(self) -> bool:
        with self._asking():
            return bool(self._client.collections.exists(self._real()))

    def describe(self) -> Description:
        with self._asking():
            config = self._config()
            column = self._column(config)
            count = self.count()
            found = self._use(config).query.fetch_objects(limit=1, include_vector=column.wanted).objects
        metric = METRICS.get(column.distance)
        vector = found[0].vector.get(column.name or "default") if found else None
        notes = []
        if column.others:
            notes.append(f"it has other vectors too: {', '.join(column.others)}")
        if metric is None:
            notes.append(f"it compares by {column.distance}, which no other store has")
        schema = Schema(len(vector), metric) if vector and metric else None
        alias = self.collection if config.name != self.collection else None
        return Description(config.name, count, schema, alias, tuple(notes))

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        with self._asking():
            config = self._config()
            column = self._column(config)
        last = None if after is None else _uuid(after)
        while True:
            with self._asking():
                query = self._use(config).query
                found = query.fetch_objects(limit=size, after=last, include_vector=column.wanted if vectors else False)
                page = self._page(found.objects, config, column if vectors else None)
            if not page:
                return
            yield page
            last = str(found.objects[-1].uuid)

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        wanted = list(dict.fromkeys(_uuid(one) for one in ids))
        with self._asking():
            config = self._config()
            column = self._column(config)
            query = self._use(config).query
            found = {}
            for at in range(0, len(wanted), _OBJECTS):
                part = wanted[at : at + _OBJECTS]
                answer = query.fetch_objects_by_ids(
                    part, limit=len(part), include_vector=column.wanted if vectors else False
                )
                found.update({str(one.uuid): one for one in answer.objects})
            objects = [found[one] for one in wanted if one in found]
            return self._page(objects, config, column if vectors else None)

    def sibling(self, collection: str) -> Store:
        return Weaviate(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind != "dense" or not schema.dimensions:
            raise StoreError(f"{self.name}: holds dense vectors here, not {schema.kind} ones")
        with self._asking():
            if self.exists():
                config = self._config()
                found, distance = self.describe().schema, self._column(config).distance
                had = (found.dimensions if found else schema.dimensions, distance)
                if had != (schema.dimensions, DISTANCES[schema.metric]):
                    raise StoreError(
                        f"{self.name}: exists with {had[0]} dimensions by {distance}, "
                        f"and {schema.dimensions} by {schema.metric} are wanted"
                    )
                return
            name = self._place.option("vector", "default")
            old = None
            if isinstance(like, Weaviate):
                model = like._config()
                old, name = model.to_dict(), self._place.option("vector") or like._column(model).name or ""
                self._field = self._field or like._text_field(model)
            text = self._field or "text"
            made = like_collection(old, self.collection, name, DISTANCES[schema.metric], (text, ORIGINAL))
            self._client.collections.create_from_dict(made)

    def write(self, page: Page) -> None:
        from weaviate.classes.data import DataObject

        vectors = np.asarray(page.vectors, np.float32)
        with self._asking():
            config = self._config()
            column = self._column(config)
            if column.others:
                raise StoreError(
                    f"{self.name}: has other vectors too ({', '.join(column.others)}), which Weaviate's batches would "
                    "take away: write to another collection"
                )
            found = self.describe().schema
            if vectors.ndim != 2 or (found and found.dimensions != vectors.shape[1]):
                raise StoreError(
                    f"{self.name}: takes vectors of {found.dimensions if found else 'some'} dimensions, "
                    f"and these are {vectors.shape}"
                )
            field = self._text_field(config)
            entries = [
                self._properties(name, text, data, field)
                for name, text, data in zip(page.ids, page.texts, page.metadata, strict=True)
            ]
            self._add(config, entries)
            collection = self._use(config)
            objects = [
                DataObject(
                    uuid=_uuid(name),
                    properties=data,
                    vector=row.tolist() if column.name is None else {column.name: row.tolist()},
                )
                for name, data, row in zip(page.ids, entries, vectors, strict=True)
            ]
            for at in range(0, len(objects), _OBJECTS):
                failed = collection.data.insert_many(objects[at : at + _OBJECTS]).errors
                for place, error in failed.items():
                    raise StoreError(
                        f"{self.name}: {len(failed)} entries were refused; {page.ids[at + place]!r:.100}: "
                        f"{error.message}"
                    )

    def count(self) -> int:
        with self._asking():
            return int(self._use(self._config()).aggregate.over_all(total_count=True).total_count or 0)

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        with self._asking():
            config = self._config()
            column = self._column(config)
            known = [ORIGINAL] if ORIGINAL in {one.name for one in config.properties} else []
            query = self._use(config).query
            answers = [
                query.near_vector(
                    np.asarray(one, np.float32).tolist(), limit=k, target_vector=column.name, return_properties=known
                )
                for one in vectors
            ]
        return [[_id(one) for one in answer.objects] for answer in answers]

    def switch(self, name: str) -> str | None:
        name = _capital(name)
        with self._asking():
            own, before = self._config().name, self._client.alias.get(alias_name=name)
            if own == name or (before and before.collection == own):
                return None
            if before is None and self._client.collections.exists(name):
                raise CannotSwitch(
                    f"{self.name}: {name!r} is a collection, and Weaviate's aliases cannot have a collection's name. "
                    "Switch an alias instead (such as 'Live'), and point the application to it once; with Lemni "
                    "?collection=ALIAS"
                )
            if before is None:
                self._client.alias.create(alias_name=name, target_collection=own)
            else:
                self._client.alias.update(alias_name=name, new_target_collection=own)
            return str(before.collection) if before else None

    def drop(self) -> None:
        with self._asking():
            if (real := self._real()) != self.collection:
                raise StoreError(f"{self.name}: is an alias; to remove the entries drop the collection {real}")
            self._client.collections.delete(real)

    def close(self) -> None:
        self._release()

    def _real(self) -> str:
        """Behind an alias, what it points to."""
        alias = self._client.alias.get(alias_name=self.collection)
        return str(alias.collection) if alias else self.collection

    def _config(self) -> Any:
        real = self._real()
        if not self._client.collections.exists(real):
            names = [*self._client.collections.list_all(), *self._client.alias.list_all()]
            shown = ", ".join(sorted(names)[:50])
            raise StoreError(f"{self.name}: there is no such collection; there are: {shown or 'none'}")
        return self._client.collections.export_config(real)

    def _use(self, config: Any) -> Any:
        return self._client.collections.use(config.name)

    def _column(self, config: Any) -> _Column:
        """The vector that is read and written."""
        named = config.vector_config
        if not named:
            return _Column(None, config.vector_index_config.distance_metric.value, ())
        name = self._place.option("vector") or (next(iter(named)) if len(named) == 1 else None)
        if name not in named:
            raise StoreError(f"{self.name}: has the vectors {', '.join(named)}; choose one: vector=NAME")
        distance = named[name].vector_index_config.distance_metric.value
        return _Column(name, distance, tuple(one for one in named if one != name))

    def _text_field(self, config: Any) -> str:
        texts = {one.name for one in config.properties if one.data_type.value == "text"}
        return self._field or next((one for one in FIELDS if one in texts), "text")

    def _properties(self, name: Id, text: str | None, data: dict[str, Any], field: str) -> dict[str, Any]:
        kept = stored(data, f"{self.name}: entry {name!r:.100}")
        if ORIGINAL in kept:
            raise StoreError(
                f"{self.name}: entry {name!r:.100} has metadata {ORIGINAL!r}, where Lemni keeps ids that are no UUIDs"
            )
        if text is None and isinstance(kept.get(field), str):
            raise StoreError(
                f"{self.name}: entry {name!r:.100} has no text, and its metadata {field!r} would be taken for it; "
                "choose another property: text=FIELD"
            )
        if text is not None:
            if field in kept:
                raise StoreError(
                    f"{self.name}: entry {name!r:.100} has metadata {field!r}, and its text would stand there; "
                    "choose another property: text=FIELD"
                )
            kept[field] = text
        if not is_uuid(name):
            kept[ORIGINAL] = json.dumps(name)
        return kept

    def _add(self, config: Any, entries: list[dict[str, Any]]) -> None:
        """Properties that are new, each with the type of its values, which Weaviate would guess (1 as a number)."""
        from weaviate.classes.config import DataType, Property

        there = {one.name for one in (*config.properties, *config.references)}
        for key, data_type in data_types(entries, self.name).items():
            if key not in there:
                self._client.collections.use(config.name).config.add_property(
                    Property(name=key, data_type=DataType(data_type))
                )

    def _page(self, objects: Seq[Any], config: Any, column: _Column | None) -> Page:
        field = self._text_field(config)
        texts, metadata, rows = [], [], []
        for one in objects:
            data = {key: plain(value) for key, value in one.properties.items() if value is not None and key != ORIGINAL}
            texts.append(data.pop(field) if isinstance(data.get(field), str) else None)
            metadata.append(data)
            if column is not None:
                rows.append(one.vector.get(column.name or "default"))
                if not rows[-1]:
                    raise StoreError(f"{self.name}: entry {_id(one)!r:.100} has no vector")
        vectors = None
        if column is not None:
            vectors = np.asarray(rows, np.float32) if rows else np.empty((0, 0), np.float32)
        return Page([_id(one) for one in objects], texts, metadata, vectors)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """The client's errors as StoreError."""
        try:
            import grpc
            import httpx
            from weaviate.exceptions import WeaviateBaseError
        except ImportError:
            raise missing_extra("weaviate-client", "weaviate", "The store Weaviate") from None
        try:
            yield
        except (WeaviateBaseError, httpx.HTTPError, grpc.RpcError, OSError, TypeError, ValueError) as error:
            raise StoreError(f"{self.name}: {str(error) or type(error).__name__}") from error


def _client(place: Place) -> Any:
    import weaviate
    from weaviate.classes.init import Auth

    https = place.option("https") == "true"
    key = os.environ.get("WEAVIATE_API_KEY") or place.password
    return weaviate.connect_to_custom(
        http_host=place.host,
        http_port=place.port or (443 if https else 8080),
        http_secure=https,
        grpc_host=place.option("grpc_host", place.host),
        grpc_port=int(place.option("grpc_port", "443" if https else "50051")),
        grpc_secure=https,
        auth_credentials=Auth.api_key(key) if key else None,
        skip_init_checks=True,  # one of them asks the package index for the client's newest version
    )


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _uuid(value: Id) -> str:
    return str(value) if is_uuid(value) else hashed(value)


def _id(found: Any) -> Id:
    original = found.properties.get(ORIGINAL)
    if original is None:
        return str(found.uuid)
    one: Id = json.loads(original)
    return one
