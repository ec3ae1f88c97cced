"""Vector stores: one file each behind the protocol of `base.py`. A new store is a file and a row here."""

from __future__ import annotations

import re
from importlib import import_module

from lemni.errors import StoreError
from lemni.stores.base import Store
from lemni.stores.place import Place, parse

__all__ = ["STORES", "is_store", "open_store"]

# Scheme of an address -> class made from a `Place`; imported when it is asked for.
STORES: dict[str, str] = {
    "chroma": "lemni.stores.chroma:Chroma",
    "qdrant": "lemni.stores.qdrant:Qdrant",
    "postgresql": "lemni.stores.pgvector:PgVector",
    "lancedb": "lemni.stores.lancedb:LanceDB",
    "milvus": "lemni.stores.milvus:Milvus",
    "faiss": "lemni.stores.faiss:Faiss",
    "sqlite-vec": "lemni.stores.sqlite_vec:SqliteVec",
    "redis": "lemni.stores.redis:Redis",
    "elasticsearch": "lemni.stores.elasticsearch:Elasticsearch",
    "opensearch": "lemni.stores.opensearch:OpenSearch",
    "weaviate": "lemni.stores.weaviate:Weaviate",
    "pinecone": "lemni.stores.pinecone:Pinecone",
}
_ALSO = {
    "postgres": "postgresql",
    "pgvector": "postgresql",
    "rediss": "redis",
    "valkey": "redis",
    "sqlite_vec": "sqlite-vec",
}


def is_store(address: str) -> bool:
    """Whether it begins with the scheme of a store."""
    scheme, colon, _ = address.partition(":")
    return bool(colon) and (scheme in STORES or scheme in _ALSO)


def open_store(address: str | Place) -> Store:
    """The collection at an address, such as `qdrant://localhost:6333?collection=docs`; nothing is created.

    Raises:
        StoreError: no such store, or it does not answer.
        MissingExtra: its client is not installed.
    """
    place = parse(address) if isinstance(address, str) else address
    row = STORES.get(_ALSO.get(place.scheme, place.scheme))
    if row is None:
        raise StoreError(f"{place}: no store is called {place.scheme!r}; known: {', '.join(STORES)}")
    module, _, name = row.partition(":")
    store: Store = getattr(import_module(module), name)(place)
    return store


def as_id(value: str | int, id_type: str, store: str) -> str | int:
    """An id as a store takes it (`Store.id_type`).

    Raises:
        StoreError: it cannot be that; names the id and the store.
    """
    if id_type == "str":
        return str(value)
    # Not "007", which would become the same as "7".
    if id_type in ("int", "uuid-or-int") and isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,19}", value):
        return int(value)
    if id_type == "int" and not isinstance(value, int):
        raise StoreError(
            f"{store}: id {value!r:.100} is no whole number without leading zeros, and this store takes no other"
        )
    if id_type == "uuid-or-int" and isinstance(value, str):
        import uuid

        try:
            return str(uuid.UUID(value))
        except ValueError:
            raise StoreError(f"{store}: id {value!r:.100} is neither a UUID nor a whole number") from None
    return value
