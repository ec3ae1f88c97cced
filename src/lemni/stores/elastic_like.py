"""What Elasticsearch and OpenSearch have in common; each one's own file has its client, its vector fields and its
queries.

An entry is a document: its `_id`, the text in one field of its `_source` (option `text`, by default "text"), the
vector in another (option `vector`, by default "vector"), and the metadata is the rest of the `_source`, exactly.
Sparse vectors are objects with term ids as keys: {"1037": 0.5}.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from lemni.errors import CannotSwitch, StoreError
from lemni.stores import as_id
from lemni.stores.base import Description, Id, Page, Schema, Store, VectorKind
from lemni.stores.checks import as_sparse, dense_rows, sparse_rows, terms
from lemni.stores.elastic_pages import WINDOW, in_order
from lemni.stores.place import Place

# What an index is called: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-indices-create
_NAME = re.compile(r"(?![-_+])(?!\.{1,2}$)[^\\/*?\"<>|\s,#:]+")
_KEPT_SETTINGS = ("number_of_shards", "number_of_replicas", "analysis", "similarity", "mapping")
_READ = 1_000  # documents a request
BULK_BYTES = 20 << 20  # a request; the servers take 100 MB


class ElasticLike(ABC):
    """A `Store`: an index, or an alias of one. Making one asks the server for nothing."""

    scheme: ClassVar[str]
    own_options: ClassVar[tuple[str, ...]] = ()
    kinds: tuple[VectorKind, ...] = ("dense", "sparse")
    id_type = "str"

    def __init__(self, place: Place) -> None:
        place.check_options("text", "vector", "https", "ca_certs", *self.own_options)
        self.place = place
        self.host, self.port = place.host or "localhost", place.port or 9200
        self.collection = place.collection
        self.name = f"{self.scheme}://{self.host}:{self.port}, index {self.collection}"
        self._check_name(self.collection)
        self.text_field, self.vector_field = place.option("text", "text"), place.option("vector", "vector")
        if "." in self.text_field + self.vector_field or self.text_field == self.vector_field:
            raise StoreError(f"{self.name}: text and vector are two top-level fields, without dots")
        self._schema: Schema | None = None
        if (certificates := place.option("ca_certs")) and not os.path.isfile(certificates):
            raise StoreError(f"{self.name}: ca_certs={certificates} is no file")
        self.client = self._connect(self._url())

    # What the two differ in

    @abstractmethod
    def _connect(self, url: str) -> Any:
        """The official client for one server."""

    @abstractmethod
    def _failures(self) -> tuple[type[Exception], ...]:
        """Everything that the client raises."""

    @abstractmethod
    def _mapping(self, schema: Schema, like: dict[str, Any]) -> dict[str, Any]:
        """The mapping of a vector field, with the index settings of `like`, one of the same kind or {}."""

    @abstractmethod
    def _schema_of(self, mapping: dict[str, Any]) -> Schema | None:
        """What a field with this mapping holds; None if it is no vector field."""

    @abstractmethod
    def _nearest(self, vector: Any, k: int) -> dict[str, Any]:
        """The body of a search for the entries nearest to a float32 [dimensions] or `SparseVector`."""

    @abstractmethod
    def _open_pit(self) -> str: ...

    @abstractmethod
    def _close_pit(self, pit: str) -> None: ...

    @abstractmethod
    def _bulk(self, actions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Index them, and wait until they are searchable; returns the errors."""

    index_settings: ClassVar[dict[str, Any]] = {}
    vectors_by_fields: ClassVar[bool]  # whether the vector is asked for with `fields`, not as a part of `_source`

    # The place

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name) or len(name.encode()) > 255:
            raise StoreError(
                f"{self.name}: {name!r} is no name of an index or an alias: such a name has none of "
                r'\ / * ? " < > | , # : and no space, at most 255 bytes, and does not begin with - _ +'
            )

    def _url(self) -> str:
        https = self.place.option("https", "true" if self.port == 443 or self.place.option("ca_certs") else "false")
        if https not in ("true", "false"):
            raise StoreError(f"{self.name}: https={https!r:.20} is neither true nor false")
        path = f"/{self.place.path}" if self.place.path else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if https == 'true' else ''}://{host}:{self.port}{path}"

    def _login(self, variable: str) -> tuple[str, str] | None:
        """User and password: of the address, or the password from an environment variable."""
        if not self.place.user:
            return None
        return self.place.user, self.place.password or os.environ.get(variable, "")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except UnicodeError as error:  # not the server's word: asking again is of no use
            raise StoreError(f"{self.name}: {error}") from None
        except self._failures() as error:
            raise StoreError(f"{self.name}: {error}") from error

    def sibling(self, collection: str) -> Store:
        return type(self)(replace(self.place, collection=collection))

    def close(self) -> None:
        self.client.close()

    # The index

    def exists(self) -> bool:
        with self._asking():
            return bool(self.client.indices.exists(index=self.collection))

    def _state(self) -> tuple[str, dict[str, Any]]:
        """The index's own name, and its aliases, mappings and settings."""
        if not self.exists():
            with self._asking():
                there = sorted(_body(self.client.indices.get_alias(index="*")))
            names = ", ".join(there[:20]) + (" ..." if len(there) > 20 else "") if there else "none"
            raise StoreError(f"{self.name}: there is no such index; there are: {names}")
        with self._asking():
            found = _body(self.client.indices.get(index=self.collection))
        if len(found) > 1:
            raise StoreError(
                f"{self.name}: is an alias of several indices: {', '.join(sorted(found))}. Name one of them"
            )
        ((real, state),) = found.items()
        return real, state

    def _known_schema(self) -> Schema:
        """Raises StoreError if there is no such index or no such vector field."""
        if self._schema is None:
            _, state = self._state()
            fields = state["mappings"].get("properties", {})
            self._schema = self._schema_of(fields.get(self.vector_field, {}))
            if self._schema is None:
                others = [name for name, mapping in fields.items() if self._schema_of(mapping)]
                hint = f"it has {', '.join(others)}: name one with &vector=" if others else "it has no other"
                raise StoreError(f"{self.name}: has no vector field {self.vector_field!r}; {hint}")
        return self._schema

    def describe(self) -> Description:
        real, state = self._state()
        fields = state["mappings"].get("properties", {})
        schema = self._schema_of(fields.get(self.vector_field, {}))
        others = [name for name, mapping in fields.items() if name != self.vector_field and self._schema_of(mapping)]
        notes = [f"has the vector fields {', '.join(others)}, too"] if others else []
        if schema is None:
            notes.append(f"has no vector field {self.vector_field!r}")
        alias = self.collection if real != self.collection else None
        return Description(real, self.count(), schema, alias, tuple(notes))

    def count(self) -> int:
        with self._asking():
            reply = _body(self.client.count(index=self.collection))
        if reply["_shards"]["failed"]:
            raise StoreError(f"{self.name}: {reply['_shards']['failed']} of its shards did not answer")
        return int(reply["count"])

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind not in self.kinds:
            raise StoreError(f"{self.name}: holds no {schema.kind} vectors, only {' and '.join(self.kinds)}")
        if self.exists():
            self._schema = None
            if (found := self._known_schema()) != schema:
                raise StoreError(f"{self.name}: is there with another schema: {found}, not {schema}")
            return
        # Without date_detection the first text that looks like a date would forbid every other text in that field.
        mappings: dict[str, Any] = {"date_detection": False}
        settings: dict[str, Any] = {}
        old: dict[str, Any] = {}
        if isinstance(like, type(self)):
            _, state = like._state()
            mappings = dict(state["mappings"])
            settings = {key: state["settings"]["index"].get(key) for key in _KEPT_SETTINGS}
            old = mappings.get("properties", {}).get(like.vector_field, {})
            mappings["properties"] = {
                name: one for name, one in mappings.get("properties", {}).items() if name != like.vector_field
            }
        fields = {
            self.text_field: {"type": "text"},
            **mappings.get("properties", {}),
            self.vector_field: self._mapping(schema, old),
        }
        index = {**self.index_settings, **{key: value for key, value in settings.items() if value is not None}}
        body = {"settings": {"index": index}, "mappings": {**mappings, "properties": fields}}
        with self._asking():
            self.client.indices.create(index=self.collection, body=body)
        self._schema = None

    def drop(self) -> None:
        if not self.exists():
            return
        real, _ = self._state()
        if real != self.collection:
            raise StoreError(f"{self.name}: is an alias; to remove the entries drop the index {real}")
        with self._asking():
            self.client.indices.delete(index=real)
        self._schema = None

    def switch(self, name: str) -> str | None:
        self._check_name(name)
        real, _ = self._state()
        if name == real:
            return None
        with self._asking():
            if not self.client.indices.exists_alias(name=name):
                if self.client.indices.exists(index=name):
                    raise CannotSwitch(
                        f"{self.name}: {name} is an index, and an alias cannot take its name while it is. Let the "
                        f"application ask for an alias, such as {name}-current: make it point to {name} first, then "
                        f"switch it"
                    )
                old, how = None, {}
            else:
                behind = _body(self.client.indices.get_alias(name=name))
                if len(behind) > 1:
                    raise CannotSwitch(
                        f"{self.name}: {name} is an alias of several indices: {', '.join(sorted(behind))}"
                    )
                ((old, state),) = behind.items()
                how = state["aliases"][name]  # a filter, routing: they stay
            if old == real:
                return None
            # One request of several actions is carried out as a whole or not at all.
            actions: list[dict[str, Any]] = [{"add": {"index": real, "alias": name, **how}}]
            if old:
                actions.insert(0, {"remove": {"index": old, "alias": name, "must_exist": True}})
            self.client.indices.update_aliases(body={"actions": actions})
        return old

    # Entries

    def write(self, page: Page) -> None:
        if not page.ids:
            return
        actions = []
        for one, text, data, vector in zip(page.ids, page.texts, page.metadata, self._rows(page), strict=True):
            name = as_id(one, self.id_type, self.name)
            if not 0 < len(str(name).encode()) <= 512:
                raise StoreError(
                    f"{self.name}: id {name!r:.60} has {len(str(name).encode())} bytes; 1 to 512 are possible"
                )
            if taken := {self.text_field, self.vector_field} & data.keys():
                raise StoreError(
                    f"{self.name}: id {name!r}: metadata {taken.pop()!r} has the name of the text or vector"
                )
            source = {**data, self.vector_field: vector}
            if text is not None:
                source[self.text_field] = text
            actions.append({"_op_type": "index", "_index": self.collection, "_id": name, "_source": source})
        with self._asking():
            errors = self._bulk(actions)
        if errors:
            ((_, first),) = errors[0].items()
            raise StoreError(
                f"{self.name}: {len(errors)} of {len(actions)} entries were not written, such as id {first['_id']!r}: "
                f"{_reason(first['error'])}"
            )

    def _rows(self, page: Page) -> list[Any]:
        """The vectors as JSON has them."""
        schema = self._known_schema()
        if schema.kind == "sparse":
            return [terms(vector) for vector in sparse_rows(page, self.name)]
        rows: list[Any] = dense_rows(page, schema, self.name, zeros=schema.metric != "cosine").tolist()
        return rows

    def _search(self, body: dict[str, Any], index: str | None = None) -> list[dict[str, Any]]:
        """The hits; all shards must answer. `index` is None with a point in time."""
        with self._asking():
            reply = self.client.search(
                body=body, allow_partial_search_results=False, **({"index": index} if index else {})
            )
        hits: list[dict[str, Any]] = _body(reply)["hits"]["hits"]
        return hits

    def _wanted(self, vectors: bool) -> dict[str, Any]:
        if vectors and not self.vectors_by_fields:
            return {"_source": True}
        asked: dict[str, Any] = {"_source": {"excludes": [self.vector_field]}}
        return {**asked, "fields": [self.vector_field]} if vectors else asked

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        self._state()
        with self._asking():
            pit = self._open_pit()
        try:
            waiting: list[dict[str, Any]] = []
            begin = None if after is None else str(after)
            for hit in in_order(self.name, self._search, pit, self._wanted(vectors), min(size, _READ), begin):
                waiting.append(hit)
                if len(waiting) == size:
                    yield self._page(waiting, vectors)
                    waiting = []
            if waiting:
                yield self._page(waiting, vectors)
        finally:
            with self._asking():
                self._close_pit(pit)

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        names = list(dict.fromkeys(str(as_id(one, self.id_type, self.name)) for one in ids))
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(names), _READ):
            some = names[start : start + _READ]
            body = {**self._wanted(vectors), "size": len(some), "query": {"ids": {"values": some}}}
            found.update((hit["_id"], hit) for hit in self._search(body, self.collection))
        return self._page([found[name] for name in names if name in found], vectors)

    def _page(self, hits: list[dict[str, Any]], vectors: bool) -> Page:
        texts: list[str | None] = []
        metadata = []
        rows: list[Any] = []
        for hit in hits:
            data = dict(hit.get("_source") or {})
            vector = data.pop(self.vector_field, None)
            if vectors:
                if self.vectors_by_fields:
                    vector = hit.get("fields", {}).get(self.vector_field)
                if vector is None:
                    raise StoreError(f"{self.name}: id {hit['_id']!r} has no vector in its field {self.vector_field!r}")
                rows.append(vector)
            texts.append(data.pop(self.text_field) if isinstance(data.get(self.text_field), str) else None)
            metadata.append(data)
        ids: list[Id] = [hit["_id"] for hit in hits]
        return Page(ids, texts, metadata, self._vectors(rows) if vectors else None)

    def _vectors(self, rows: list[Any]) -> Any:
        schema = self._known_schema()
        if schema.kind == "sparse":
            try:
                return [as_sparse(row[0] if isinstance(row, list) else row) for row in rows]
            except ValueError as error:
                raise StoreError(f"{self.name}: the keys of its sparse vectors are no term ids: {error}") from None
        return np.asarray(rows, dtype=np.float32).reshape(len(rows), schema.dimensions or 0)

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        if k > WINDOW:
            raise StoreError(f"{self.name}: finds at most {WINDOW} entries a query, not {k}")
        return [
            [
                hit["_id"]
                for hit in self._search({**self._nearest(one, k), "size": k, "_source": False}, self.collection)
            ]
            for one in vectors
        ]


def _body(reply: Any) -> Any:
    """Elasticsearch's client wraps its replies, OpenSearch's does not."""
    return getattr(reply, "body", reply)


def _reason(error: Any) -> str:
    """The innermost of the server's reasons, with the outermost before it."""
    if not isinstance(error, dict):
        return str(error)
    cause = error.get("caused_by")
    reason = str(error.get("reason", error.get("type")))
    return f"{reason}: {_reason(cause)}" if cause else reason
