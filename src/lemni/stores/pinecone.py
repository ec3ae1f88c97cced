"""Pinecone: `pinecone://INDEX?collection=NAMESPACE`, its serverless indexes of plain vectors.

Checked against its official client (10, API 2026-07) and documented API only; no server could be run.

The key comes from PINECONE_API_KEY. Options: `text`, the metadata field with the text (by default "text"); `host`,
another control plane than api.pinecone.io, such as http://localhost:5080 of Pinecone Local; `cloud` and `region` (by
default aws, us-east-1), where an index is made.

A collection is a namespace of the index ("__default__" if the address has none), or `INDEX/NAMESPACE`: dimensions and
metric belong to the index, so vectors of another width need another index, and `sibling("docs-384/all")` is how to
name one. `create` makes the index if it is not there; `drop` removes the namespace and leaves the index, which costs
nothing empty.

Ids come in their order as bytes. The service cannot list from an id on, so pages `after` one list the ids before it,
too (a hundred a request, without their vectors). There are no aliases and nothing is renamed: `switch` always raises
CannotSwitch. The service keeps numbers as 64-bit floats, so whole numbers come back as floats, and larger ones than
2^53 are refused. What was written is seen later: reads wait until the service says that it has got to the last write
of this object.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import orjson

from lemni.errors import CannotSwitch, StoreError, missing_extra
from lemni.stores import as_id
from lemni.stores.base import Description, Id, Metric, Page, Schema, Store, VectorKind
from lemni.stores.checks import as_sparse, dense_rows, sparse_rows
from lemni.stores.pinecone_limits import (
    LIST,
    TERMS,
    TOP_K,
    UPSERT_BYTES,
    UPSERT_VECTORS,
    checked_id,
    checked_metadata,
    short,
)
from lemni.stores.place import Place
from lemni.types import SparseVector

_METRICS: dict[Metric, str] = {"cosine": "cosine", "dot": "dotproduct", "l2": "euclidean"}
_DEFAULT = "__default__"
_WAIT_S = 120.0  # for the service to see what it has confirmed


class Pinecone:
    """A `Store`: a namespace of an index. Making one asks the service for nothing."""

    kinds: tuple[VectorKind, ...] = ("dense", "sparse")
    id_type = "str"

    def __init__(self, place: Place) -> None:
        try:
            import pinecone
        except ImportError:
            raise missing_extra("pinecone", "pinecone", "Pinecone as a vector store") from None
        place.check_options("text", "host", "cloud", "region")
        if not place.host or place.path or place.port:
            raise StoreError(f"{place}: is not pinecone://INDEX?collection=NAMESPACE")
        self.place = place
        self.collection = place.collection or _DEFAULT
        index, slash, namespace = self.collection.partition("/")
        self.index, self.namespace = (index, namespace or _DEFAULT) if slash else (place.host, self.collection)
        self.name = f"pinecone://{self.index}, namespace {self.namespace}"
        self.text_field = place.option("text", "text")
        self.failures = (pinecone.PineconeError,)
        with self._asking():
            self.client = pinecone.Pinecone(api_key=place.password, host=place.option("host") or None)
        self._open: Any = None
        self._kept: Schema | None = None
        self._there = False  # whether the namespace was there when last asked
        self._written: tuple[str, int] | None = (
            None  # id and place in the service's log of the last write, if not yet seen
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self.failures as error:
            raise StoreError(f"{self.name}: {error}") from error

    def sibling(self, collection: str) -> Store:
        """A namespace of this index, or `INDEX/NAMESPACE`."""
        return Pinecone(replace(self.place, host=self.index, collection=collection))

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        self.client.close()

    # The index and the namespace

    def _model(self) -> Any:
        """The service's description of the index; None if there is no such index."""
        import pinecone

        with self._asking():
            try:
                return self.client.indexes.describe(self.index)
            except pinecone.NotFoundError:
                return None

    def _data(self) -> Any:
        """The client of the index's own host. Raises StoreError if there is no such index."""
        if self._open is None:
            model = self._model()
            if model is None:
                with self._asking():
                    there = sorted(one.name for one in self.client.indexes.list())
                raise StoreError(
                    f"{self.name}: there is no index {self.index} for {self.collection}; there are: "
                    f"{', '.join(there) or 'none'}"
                )
            host = model.host or ""
            if self.place.option("host").startswith("http:"):  # Pinecone Local names hosts without a scheme
                host = f"http://{host.removeprefix('https://')}"
            with self._asking():
                self._open = self.client.index(host=host)
        return self._open

    def _schema(self) -> Schema:
        """Of the index; asked for once, since an index keeps it. Raises StoreError if there is no such index."""
        from pinecone.models.indexes.schema import DenseVectorField, SparseVectorField

        if self._kept is None:
            self._data()
            for field in self._model().schema.fields.values():
                if isinstance(field, SparseVectorField):
                    self._kept = Schema(None, "dot", "sparse")
                elif isinstance(field, DenseVectorField):
                    theirs = str(field.metric).lower()
                    self._kept = Schema(field.dimension, next(name for name, one in _METRICS.items() if one == theirs))
        if self._kept is None:
            raise StoreError(f"{self.name}: is an index of documents, not of plain vectors")
        return self._kept

    def _found(self) -> Any:
        """The service's description of the namespace; None if there is no such namespace, or no such index."""
        import pinecone

        if self._model() is None:
            return None
        data = self._read()
        with self._asking():
            try:
                return data.describe_namespace(name=self.namespace)
            except pinecone.NotFoundError:
                return None

    def exists(self) -> bool:
        self._there = self._found() is not None
        return self._there

    def describe(self) -> Description:
        data = self._data()
        found = self._found()
        if found is None:
            with self._asking():
                there = sorted(one.name for page in data.list_namespaces() for one in page.namespaces)
            raise StoreError(
                f"{self.name}: there is no such namespace; there are: {', '.join(there[:20]) or 'none'}"
                f"{' ...' if len(there) > 20 else ''}"
            )
        notes = ("the service's count of entries may lag behind what others write",)
        return Description(self.collection, found.record_count, self._schema(), notes=notes)

    def create(self, schema: Schema, like: Store | None = None) -> None:
        import pinecone

        if schema.kind not in self.kinds:
            raise StoreError(f"{self.name}: holds no {schema.kind} vectors, only {' and '.join(self.kinds)}")
        model = self._model()
        if model is None:
            where = {"cloud": self.place.option("cloud", "aws"), "region": self.place.option("region", "us-east-1")}
            old = like._model() if isinstance(like, Pinecone) else None
            if old is not None and hasattr(old.deployment, "region") and not self.place.options.keys() & where.keys():
                where = {"cloud": old.deployment.cloud, "region": old.deployment.region}
            dense = {"dimension": schema.dimensions, "metric": _METRICS[schema.metric]}
            how: dict[str, Any] = dense if schema.kind == "dense" else {"vector_type": "sparse"}
            with self._asking():
                self.client.indexes.create(name=self.index, spec=pinecone.ServerlessSpec(**where), timeout=300, **how)
        elif (found := self._schema()) != schema:
            raise StoreError(
                f"{self.name}: the index is there with another schema: {found}, not {schema}. Another width or "
                f"metric need an index of their own: name one as INDEX/NAMESPACE"
            )
        if self.namespace == _DEFAULT:
            return
        with self._asking():
            try:
                self._data().create_namespace(name=self.namespace)
            except pinecone.ConflictError:
                return

    def drop(self) -> None:
        if not self.exists():
            return
        with self._asking():
            if self.namespace == _DEFAULT:
                self._data().delete(delete_all=True, namespace="")
            else:
                self._data().delete_namespace(name=self.namespace)
        self._there = False

    def switch(self, name: str) -> str | None:
        raise CannotSwitch(
            f"{self.name}: Pinecone has neither aliases nor renaming. Tell the application to ask for the namespace "
            f"{self.namespace} of the index {self.index} instead of {name}, and drop {name} when nobody asks for it"
        )

    # Entries

    @property
    def _space(self) -> str:
        return "" if self.namespace == _DEFAULT else self.namespace

    def _read(self) -> Any:
        """The client, when the service shows the last write: https://docs.pinecone.io/guides/index-data/check-data-freshness

        Only answers to queries say how far it has got.
        """
        end, pause = time.monotonic() + _WAIT_S, 0.05
        while self._written is not None:
            name, number = self._written
            with self._asking():
                reply = self._data().query(id=name, top_k=1, namespace=self._space)
            seen = reply.response_info.lsn_reconciled if reply.response_info else None
            if seen is None or seen >= number:  # indexes without such numbers, or up to date
                self._written = None
            elif time.monotonic() > end:
                raise StoreError(f"{self.name}: has confirmed a write and not shown it for {_WAIT_S:.0f} s")
            else:
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
        return self._data()

    def _ids(self) -> Iterator[str]:
        """All ids in the order of their bytes."""
        data, token = self._read(), None
        while True:
            with self._asking():
                found = data.list_paginated(limit=LIST, pagination_token=token, namespace=self._space)
            yield from (item.id for item in found.vectors)
            token = found.pagination.next if found.pagination else None
            if not token:
                return

    def count(self) -> int:
        """By listing the ids, a hundred a request: the service's own counts lag behind what was written."""
        return sum(1 for _ in self._ids())

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        waiting: list[Id] = []
        for one in self._ids():
            if after is not None and one <= str(after):
                continue
            waiting.append(one)
            if len(waiting) == size:
                yield self.fetch(waiting, vectors=vectors)
                waiting = []
        if waiting:
            yield self.fetch(waiting, vectors=vectors)

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        names = list(dict.fromkeys(str(as_id(one, self.id_type, self.name)) for one in ids))
        found: dict[str, Any] = {}
        data = self._read()
        for some in short(names):
            with self._asking():
                found.update(data.fetch(ids=some, namespace=self._space).vectors)
        there = [found[name] for name in names if name in found]
        texts: list[str | None] = []
        metadata = []
        for entry in there:
            kept = dict(entry.metadata or {})
            texts.append(kept.pop(self.text_field) if isinstance(kept.get(self.text_field), str) else None)
            metadata.append(kept)
        return Page([entry.id for entry in there], texts, metadata, self._vectors(there) if vectors else None)

    def _vectors(self, entries: list[Any]) -> Any:
        schema = self._schema()
        if schema.kind == "dense":
            rows = np.asarray([entry.values for entry in entries], dtype=np.float32)
            return rows.reshape(len(entries), schema.dimensions or 0)
        found = []
        for entry in entries:
            weights = dict(zip(entry.sparse_values.indices, entry.sparse_values.values, strict=True))
            try:
                found.append(as_sparse(weights))
            except ValueError as error:
                raise StoreError(f"{self.name}: id {entry.id!r}: {error}") from None
        return found

    def write(self, page: Page) -> None:
        if not page.ids:
            return
        if not self._there and not self.exists():
            raise StoreError(f"{self.name}: there is no such namespace; create it first")
        parts = self._parts(page)
        batch: list[dict[str, Any]] = []
        used = 0
        batches = []
        for one, text, data, part in zip(page.ids, page.texts, page.metadata, parts, strict=True):
            entry = {
                "id": checked_id(self.name, one),
                **part,
                "metadata": checked_metadata(self.name, one, self.text_field, text, data),
            }
            size = len(orjson.dumps(entry)) + 16  # a comma, and `sparse_values` may have a longer name
            if batch and (len(batch) == UPSERT_VECTORS or used + size > UPSERT_BYTES - 1_000):
                batches.append(batch)
                batch, used = [], 0
            batch.append(entry)
            used += size
        for some in [*batches, batch]:  # all were checked before the first is sent
            if some:
                with self._asking():
                    reply = self._data().upsert(vectors=some, namespace=self._space)
                if reply.upserted_count not in (len(some), len({entry["id"] for entry in some})):
                    raise StoreError(f"{self.name}: took {reply.upserted_count} of {len(some)} entries")
                number = reply.response_info.lsn_committed if reply.response_info else None
                self._written = None if number is None else (some[-1]["id"], number)

    def _parts(self, page: Page) -> list[dict[str, Any]]:
        """The vectors as the client takes them."""
        schema = self._schema()
        if schema.kind == "dense":
            return [{"values": row} for row in dense_rows(page, schema, self.name, zeros=False).tolist()]
        return [
            {"sparse_values": {"indices": one.indices.tolist(), "values": one.values.tolist()}}
            for one in sparse_rows(page, self.name, most=TERMS)
        ]

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        if k > TOP_K:
            raise StoreError(f"{self.name}: finds at most {TOP_K} entries a query, not {k}")
        found: list[list[Id]] = []
        data = self._read()
        for one in vectors:
            asked: dict[str, Any]
            if isinstance(one, SparseVector):
                asked = {"sparse_vector": {"indices": one.indices.tolist(), "values": one.values.tolist()}}
            else:
                asked = {"vector": np.asarray(one, dtype=np.float32).tolist()}
            with self._asking():
                found.append([match.id for match in data.query(top_k=k, namespace=self._space, **asked).matches])
        return found
