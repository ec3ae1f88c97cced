"""How an entry is written as a Qdrant point, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from lemni.errors import StoreError
from lemni.stores.base import Id
from lemni.stores.uuids import ORIGINAL, hashed, is_uuid
from lemni.types import SparseVector

NODE = "_node_content"
FIELDS = ("text", "document", "page_content", "content", "body", NODE)
ENTRIES = 512  # in one request
_NUMBERS = 500_000  # in one request: some 10 MB of JSON, of the 32 MB that a server takes


def point_id(value: Id) -> Id:
    """Qdrant's own id for it."""
    if is_uuid(value) or (isinstance(value, int) and 0 <= value < 2**64):
        return value
    return hashed(value)


def plain(vector: Any) -> Any:
    """As Qdrant's models take it."""
    if isinstance(vector, SparseVector):
        from qdrant_client import models

        return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
    return np.asarray(vector, np.float32).tolist()


def _numbers(vector: Any) -> int:
    return 2 * len(vector.values) if isinstance(vector, SparseVector) else int(np.size(vector))


def requests(vectors: Any) -> Iterator[slice]:
    """Places of entries that go in one request, by how many numbers each has."""
    start = total = 0
    for at, vector in enumerate(vectors):
        one = _numbers(vector)
        if at > start and (total + one > _NUMBERS or at - start >= ENTRIES):
            yield slice(start, at)
            start, total = at, 0
        total += one
    if start < len(vectors):
        yield slice(start, len(vectors))


def split(payload: dict[str, Any], field: str) -> tuple[str | None, dict[str, Any]]:
    """The text, and the metadata."""
    data = {key: value for key, value in payload.items() if key != ORIGINAL}
    if field != NODE:
        return (data.pop(field), data) if isinstance(data.get(field), str) else (None, data)
    try:
        text = json.loads(data[NODE])["text"]
    except (KeyError, TypeError, ValueError):
        return None, data
    return text if isinstance(text, str) else None, data


def payload(name: Id, text: str | None, data: dict[str, Any], field: str) -> dict[str, Any]:
    """Raises StoreError where the text or the id would take the place of metadata, or the other way round."""
    kept = dict(data)
    if ORIGINAL in kept:
        raise StoreError(
            f"entry {name!r:.100} has metadata {ORIGINAL!r}, where Lemni keeps ids that Qdrant cannot have"
        )
    if text is None and isinstance(kept.get(field), str) and field != NODE:
        raise StoreError(
            f"entry {name!r:.100} has no text, and its metadata {field!r} would be taken for it; "
            "choose another field: text=FIELD"
        )
    if point_id(name) != name:
        kept[ORIGINAL] = name
    if text is not None and not (field == NODE and NODE in kept):
        if field in kept:
            raise StoreError(
                f"entry {name!r:.100} has metadata {field!r}, and its text would stand there; "
                "choose another field: text=FIELD"
            )
        kept[field] = json.dumps({"text": text}) if field == NODE else text
    return kept
