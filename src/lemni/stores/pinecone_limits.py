"""What Pinecone takes at most: https://docs.pinecone.io/reference/api/database-limits"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import numpy as np
import orjson

from lemni.errors import StoreError
from lemni.stores import as_id
from lemni.stores.base import Id

UPSERT_VECTORS, UPSERT_BYTES = 1_000, 2_000_000  # the lesser reading of "2 MB"
METADATA_BYTES = 40_960
ID_CHARACTERS = 512
TERMS = 2_048  # of a sparse vector
TOP_K = 10_000
LIST = 100  # ids a request
FETCH_CHARACTERS = 6_000  # of ids in the address of a request; proxies take 8 KB


def checked_id(store: str, one: Id) -> str:
    """As the service takes it. `store` is its name for messages."""
    name = str(as_id(one, "str", store))
    if not name.isascii() or "\0" in name or not 0 < len(name) <= ID_CHARACTERS:
        raise StoreError(
            f"{store}: id {name!r:.80} is not 1 to {ID_CHARACTERS} ASCII characters, which is all it takes"
        )
    return name


def checked_metadata(store: str, one: Id, text_field: str, text: str | None, data: dict[str, Any]) -> dict[str, Any]:
    """With the text. Raises StoreError naming the id for what the service would refuse or change."""
    if text_field in data:
        raise StoreError(f"{store}: id {one!r}: metadata {text_field!r} has the name of the text; use text=")
    for key, value in data.items():
        if key.startswith("$"):
            raise StoreError(f"{store}: id {one!r}: metadata {key!r}: the service keeps names with $ for itself")
        if isinstance(value, bool | str):
            continue
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            continue
        if not isinstance(value, int | float):
            kind = "null" if value is None else type(value).__name__
            raise StoreError(
                f"{store}: id {one!r}: metadata {key!r} is {kind}; the service takes text, numbers, true and "
                f"false, and lists of texts"
            )
        if (isinstance(value, int) and abs(value) > 2**53) or not np.isfinite(value):
            raise StoreError(f"{store}: id {one!r}: metadata {key!r}: {value} is no number that the service can keep")
    found = data if text is None else {**data, text_field: text}
    try:
        size = len(orjson.dumps(found))
    except TypeError as error:  # half of a surrogate pair
        raise StoreError(f"{store}: id {one!r}: {error}") from None
    if size > METADATA_BYTES:
        raise StoreError(
            f"{store}: id {one!r}: text and metadata have {size} bytes; the service takes {METADATA_BYTES}"
        )
    return found


def short(names: list[str]) -> Iterator[list[str]]:
    """Cut so that the ids of each fit into the address of a request."""
    some: list[str] = []
    used = 0
    for name in names:
        size = len(quote_plus(name)) + 5  # &ids=
        if some and (len(some) == LIST or used + size > FETCH_CHARACTERS):
            yield some
            some, used = [], 0
        some.append(name)
        used += size
    if some:
        yield some
