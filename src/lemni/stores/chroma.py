"""Chroma, in this process or behind its server, by its official client.

Addresses:
    `chroma:./folder?collection=docs`: a folder, as `chromadb.PersistentClient` keeps it.
    `chroma://host:8000?collection=docs`: a server (`chroma run`); the port is 8000, with `ssl=true` 443.
    `chroma://user:password@host?collection=docs`: the same with basic authentication.

Options: `tenant` and `database` (Chroma's defaults otherwise); `ssl=true` for https.

Environment: CHROMA_API_KEY is sent as `X-Chroma-Token`, as Chroma Cloud and proxies before a server take it. Chroma's
own variables (CHROMA_CLIENT_AUTH_PROVIDER, CHROMA_CLIENT_AUTH_CREDENTIALS ...) work too.

Ids are texts; numbers become texts. The text is Chroma's `document`; an entry's `uri` is metadata under "chroma:uri".
Metadata are texts, whole numbers of 64 bits, finite numbers, booleans, and lists of one of these: anything else is
refused with the entry's id, but a None or an empty list, which Chroma has no way to keep, is left out.

The pages' order is that in which entries came into the collection; one that is overwritten keeps its place, unless it
loses its text. To go on behind an id, the ids before it are read once.

No embedding function is ever run or built: a collection is made without one, and one with an embedding function is
opened without it. `describe` names it in a note, since applications that ask with texts use it.

Chroma has no aliases, and `switch` renames: first the collection that has the name, to NAME-before-NEW, then this one.
Between the two, a moment, nobody has the name. A switch that was killed there is finished by calling it again. Undoing
gives both their names back. Applications see the new collection when they next call `get_collection`; an open one stays
with its entries.

The width of an empty collection is not known to Chroma: it comes with the first entry. Chroma keeps the vectors of a
cosine collection normalised beside their norms, so that they come back to within a rounding.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lemni.errors import StoreError, missing_extra
from lemni.stores.base import Description, Id, Metric, Page, Schema, Store, VectorKind
from lemni.stores.place import Place

_SPACES: dict[Metric, str] = {"cosine": "cosine", "dot": "ip", "l2": "l2"}
_METRICS: dict[str, Metric] = {space: metric for metric, space in _SPACES.items()}
_URI = "chroma:uri"


class Chroma:
    """One collection; see the module."""

    kinds: tuple[VectorKind, ...] = ("dense",)
    id_type = "str"

    def __init__(self, place: Place) -> None:
        place.check_options("tenant", "database", "ssl")
        if not place.collection:
            raise StoreError(f"{place}: say which collection: ?collection=NAME")
        if place.option("ssl", "false") not in ("true", "false"):
            raise StoreError(f"{place}: ssl is true or false")
        self._place = place
        self._rename(place.collection)
        self._client: Any = None
        self._reach()

    def exists(self) -> bool:
        return self._find(self.collection) is not None

    def describe(self) -> Description:
        with self._asking():
            collection = self._opened()
            count = collection.count()
            dimensions, metric = _shape(collection)
            function = (collection.configuration_json.get("embedding_function") or {}).get("name")
        notes = (f"applications that ask with texts embed them by its stored embedding function: {function}",)
        schema = Schema(dimensions, metric) if dimensions else None
        return Description(self.collection, count, schema, notes=notes if function else ())

    def pages(self, size: int, *, vectors: bool = False, after: Id | None = None) -> Iterator[Page]:
        with self._asking():
            collection = self._opened()
            at = 0 if after is None else self._behind(collection, str(after))
        while True:
            with self._asking():
                page = _page(collection.get(limit=size, offset=at, include=_wanted(vectors)), vectors)
            if not page:
                return
            yield page
            at += len(page)

    def fetch(self, ids: Seq[Id], *, vectors: bool = True) -> Page:
        names = list(dict.fromkeys(str(one) for one in ids))
        found: dict[str, tuple[Any, ...]] = {}
        with self._asking():
            collection = self._opened()
            for part in self._parts(len(names)):
                page = _page(
                    collection.get(ids=names[part], include=_wanted(vectors)),
                    vectors,
                )
                columns = (page.texts, page.metadata, page.vectors if vectors else page.ids)
                found.update(zip(page.ids, zip(*columns, strict=True), strict=True))  # type: ignore[arg-type]
        there = [name for name in names if name in found]
        texts, metadata, rows = zip(*(found[name] for name in there), strict=True) if there else ((), (), ())
        matrix = (np.stack(rows) if rows else np.empty((0, 0), np.float32)) if vectors else None
        return Page(list(there), list(texts), list(metadata), matrix)

    def sibling(self, collection: str) -> Store:
        return Chroma(replace(self._place, collection=collection))

    def create(self, schema: Schema, like: Store | None = None) -> None:
        if schema.kind != "dense" or not schema.dimensions:
            raise StoreError(f"{self.name}: Chroma's collections hold dense vectors, not {schema.kind} ones")
        with self._asking():
            self._connect()
            if (collection := self._find(self.collection)) is not None:
                dimensions, metric = _shape(collection)
                if (dimensions or schema.dimensions, metric) != (schema.dimensions, schema.metric):
                    raise StoreError(
                        f"{self.name}: exists with {dimensions or 'any'} dimensions by {metric}, "
                        f"and {schema.dimensions} by {schema.metric} are wanted"
                    )
                return
            index, settings, metadata = _settings(like._opened()) if isinstance(like, Chroma) else ("hnsw", {}, None)
            self._client.create_collection(
                self.collection,
                configuration={index: {**settings, "space": _SPACES[schema.metric]}},
                metadata=metadata,
                embedding_function=None,
            )

    def write(self, page: Page) -> None:
        vectors = np.asarray(page.vectors, np.float32)
        # Of two with one id the later: Chroma takes an id once.
        last = {str(one): at for at, one in enumerate(page.ids)}
        ids, places = list(last), list(last.values())
        texts = [page.texts[at] for at in places]
        entries = [self._metadata(name, page.metadata[at]) for name, at in last.items()]
        with self._asking():
            collection = self._opened()
            dimensions, _ = _shape(collection)
            if vectors.ndim != 2 or vectors.shape[1] != (dimensions or vectors.shape[1]):
                raise StoreError(
                    f"{self.name}: takes vectors of {dimensions} dimensions, and these are {vectors.shape}"
                )
            for part in self._parts(len(ids)):
                self._overwrite(collection, ids[part], texts[part], entries[part], vectors[places[part]])

    def count(self) -> int:
        with self._asking():
            return int(self._opened().count())

    def search(self, vectors: Any, k: int) -> list[list[Id]]:
        with self._asking():
            collection = self._opened()
            if not len(vectors) or not (most := min(k, collection.count())):
                return [[] for _ in vectors]
            queries = np.asarray(vectors, np.float32)
            found: list[list[Id]] = collection.query(query_embeddings=queries, n_results=most, include=[])["ids"]
            return found

    def switch(self, name: str) -> str | None:
        if name == self.collection:
            self._opened()
            return None
        with self._asking():
            self._connect()
            new, old = self._find(self.collection), self._find(name)
            # Undoing gives the other one the name back that it had before.
            before, _, mine = self.collection.partition("-before-")
            undo = before == name and mine and self._find(mine) is None
            kept = mine if undo else f"{name}-before-{self.collection}"
            if new is None:
                if old is None or self._find(kept) is None:
                    self._opened()  # says that there is none
                self._rename(name)  # it was switched before
                return kept
            if old is not None:
                number = 1
                while self._find(kept) is not None:
                    number += 1
                    kept = f"{name}-before-{self.collection}-{number}"
                old.modify(name=kept)
            elif before == name and mine and not undo:
                kept = mine  # an undoing that was killed between the two
            try:
                new.modify(name=name)
            except BaseException:
                if old is not None:
                    old.modify(name=name)
                raise
            self._rename(name)
            return kept if old is not None or self._find(kept) is not None else None

    def drop(self) -> None:
        if self.exists():
            with self._asking():
                self._client.delete_collection(self.collection)

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and hasattr(client, "close"):
            client.close()

    def _reach(self) -> bool:
        """Whether there is a client. A folder that is not there is not made, as PersistentClient would."""
        if self._place.host or (Path(self._place.path) / "chroma.sqlite3").exists():
            self._connect()
        return self._client is not None

    def _connect(self) -> None:
        """Makes the client, once."""
        if self._client is None:
            with self._asking():
                self._client = _client(self._place)

    def _rename(self, collection: str) -> None:
        self.collection = collection
        self.name = f"{replace(self._place, collection='', options={})}, collection {collection}"

    def _find(self, name: str) -> Any:
        """The client's collection of that name, or None."""
        if not self._reach():
            return None
        from chromadb.errors import NotFoundError

        with self._asking():
            try:
                collection = self._client.get_collection(name, embedding_function=None)
            except NotFoundError:
                return None
        # `upsert` builds the embedding functions that stand there, and some load a model when they are built.
        if hasattr(model := collection.get_model(), "serialized_schema"):
            model.serialized_schema = None
        return collection

    def _opened(self) -> Any:
        if (collection := self._find(self.collection)) is None:
            names = [] if self._client is None else [one.name for one in self._client.list_collections(limit=50)]
            raise StoreError(f"{self.name}: there is no such collection; there are: {', '.join(names) or 'none'}")
        return collection

    def _behind(self, collection: Any, after: str) -> int:
        """How many entries stand up to this one and with it."""
        at = 0
        while names := collection.get(limit=self._client.get_max_batch_size(), offset=at, include=[])["ids"]:
            if after in names:
                return at + int(names.index(after)) + 1
            at += len(names)
        raise StoreError(f"{self.name}: no entry has the id {after!r:.100} behind which to go on")

    def _parts(self, count: int) -> list[slice]:
        """What Chroma takes at once."""
        most = self._client.get_max_batch_size()
        return [slice(at, min(at + most, count)) for at in range(0, count, most)]

    def _overwrite(
        self, collection: Any, ids: list[str], texts: Any, entries: list[dict[str, Any]], vectors: Any
    ) -> None:
        """Chroma's own `upsert` merges metadata and keeps a text or URI that the newer entry does not have."""
        there = collection.get(ids=ids, include=["documents", "metadatas", "uris"])
        columns = zip(there["documents"], there["metadatas"], there["uris"], strict=True)
        stored = dict(zip(there["ids"], columns, strict=True))
        gone, metadata, uris = [], [], []
        for name, text, new in zip(ids, texts, entries, strict=True):
            old_text, old, old_uri = stored.get(name, (None, None, None))
            uri = new.pop(_URI, None)
            if (old_text is not None and text is None) or (old_uri is not None and uri is None):
                gone.append(name)
                old = None
            metadata.append({**dict.fromkeys(old or ()), **new} or None)
            uris.append(uri)
        if gone:
            collection.delete(ids=gone)
        extra = {"uris": uris} if any(uri is not None for uri in uris) else {}
        collection.upsert(ids=ids, embeddings=vectors, documents=list(texts), metadatas=metadata, **extra)

    def _metadata(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """What Chroma can keep of it; raises StoreError for what it would refuse or silently change."""
        kept = {}
        for key, value in data.items():
            if value is None or value == []:
                continue
            one_type = isinstance(value, list) and len({type(item) for item in value}) == 1
            for item in value if one_type else [value]:
                if not (
                    isinstance(item, (str, bool))
                    or (isinstance(item, int) and -(2**63) <= item < 2**63)
                    or (isinstance(item, float) and math.isfinite(item))
                ):
                    raise StoreError(
                        f"{self.name}: metadata {key!r} of entry {name!r:.100} is {value!r:.100}; Chroma keeps texts, "
                        "whole numbers of 64 bits, finite numbers, booleans, and lists of one of these"
                    )
            kept[key] = value
        return kept

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """The client's errors as StoreError."""
        try:
            import httpx
            from chromadb.errors import ChromaError
        except ImportError:
            raise missing_extra("chromadb", "chroma", "The store Chroma") from None
        try:
            yield
        except (ChromaError, httpx.HTTPError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise StoreError(f"{self.name}: {str(error) or type(error).__name__}") from error


def _client(place: Place) -> Any:
    import chromadb
    from chromadb.config import Settings

    where: dict[str, str] = {name: value for name, value in place.options.items() if name in ("tenant", "database")}
    if not place.host:
        # The settings of any application: Chroma refuses a folder opened twice in a process with different ones.
        return chromadb.PersistentClient(place.path, **where)
    settings = Settings()
    key = os.environ.get("CHROMA_API_KEY")
    if place.user and place.password:
        settings.chroma_client_auth_provider = "chromadb.auth.basic_authn.BasicAuthClientProvider"
        settings.chroma_client_auth_credentials = f"{place.user}:{place.password}"
    ssl = place.option("ssl") == "true"
    return chromadb.HttpClient(
        place.host,
        place.port or (443 if ssl else 8000),
        ssl=ssl,
        headers={"X-Chroma-Token": key} if key else None,
        settings=settings,
        **where,
    )


def _wanted(vectors: bool) -> list[str]:
    return ["documents", "metadatas", "uris", *(["embeddings"] if vectors else [])]


def _page(found: Any, vectors: bool) -> Page:
    metadata = [
        {**(data or {}), **({} if uri is None else {_URI: uri})}
        for data, uri in zip(found["metadatas"], found["uris"], strict=True)
    ]
    matrix = np.asarray(found["embeddings"], np.float32) if vectors else None
    return Page(list(found["ids"]), list(found["documents"]), metadata, matrix)


def _index(collection: Any) -> tuple[str, dict[str, Any]]:
    """Which index it has, and the settings."""
    configuration = collection.configuration_json
    kind = "spann" if configuration.get("spann") else "hnsw"
    return kind, configuration.get(kind) or {}


def _shape(collection: Any) -> tuple[int | None, Metric]:
    _, settings = _index(collection)
    return collection.get_model().dimension, _METRICS[settings.get("space", "l2")]


def _settings(collection: Any) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """What another collection takes over: kind and settings of the index, metadata."""
    kind, settings = _index(collection)
    metadata = {key: value for key, value in (collection.metadata or {}).items() if not key.startswith("hnsw:")}
    return kind, {key: value for key, value in settings.items() if value is not None}, metadata or None
