"""Properties of Weaviate: which types values have, and the schema of a new collection."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any
from uuid import UUID

from lemni.errors import StoreError
from lemni.stores.base import Metric

DISTANCES: dict[Metric, str] = {"cosine": "cosine", "dot": "dot", "l2": "l2-squared"}
METRICS: dict[str, Metric] = {distance: metric for metric, distance in DISTANCES.items()}
FIELDS = ("text", "document", "page_content", "content", "body")

_TYPES = {bool: "boolean", int: "int", float: "number", str: "text"}
_NAME = re.compile(r"[_a-z][_0-9A-Za-z]{0,230}")
_RESERVED = ("id", "vector", "_id", "_additional")


def stored(data: dict[str, Any], entry: str) -> dict[str, Any]:
    """What Weaviate keeps of metadata; raises StoreError, which begins with `entry`, for what it would change."""
    kept = {}
    for key, value in data.items():
        if value is None or value == []:
            continue
        if not _NAME.fullmatch(key) or key in _RESERVED:
            raise StoreError(
                f"{entry} has metadata {key!r:.100}; Weaviate's properties are letters, digits and underscores, do not "
                f"begin with a capital letter or a digit, and are not {', '.join(_RESERVED)}"
            )
        for item in value if isinstance(value, list) else [value]:
            if (
                type(item) not in _TYPES
                or (isinstance(item, int) and abs(item) > 2**53)
                or (isinstance(item, float) and not math.isfinite(item))
            ):
                raise StoreError(
                    f"{entry} has metadata {key!r} of {value!r:.100}; Weaviate keeps texts, whole numbers to 2^53, "
                    "finite numbers, booleans, and lists of these"
                )
        kept[key] = value
    return kept


def data_types(entries: list[dict[str, Any]], store: str) -> dict[str, str]:
    """Of every property its type; raises StoreError where values have none in common."""
    seen: dict[str, set[str]] = {}
    for data in entries:
        for key, value in data.items():
            many = isinstance(value, list)
            for item in value if many else [value]:
                seen.setdefault(key, set()).add(_TYPES[type(item)] + ("[]" if many else ""))
    types = {}
    for key, found in seen.items():
        if found in ({"int", "number"}, {"int[]", "number[]"}):
            found = found - {"int", "int[]"}
        if len(found) > 1:
            raise StoreError(f"{store}: metadata {key!r} are {' and '.join(sorted(found))}; a property has one type")
        types[key] = found.pop()
    return types


def plain(value: Any) -> Any:
    """A value as the client gives it, in JSON's types."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value


def like_collection(
    old: dict[str, Any] | None, collection: str, vector: str, distance: str, texts: tuple[str, ...]
) -> dict[str, Any]:
    """The schema of a new collection, as Weaviate's REST API takes it: that of another one, or an empty one.

    Args:
        vector: the name of its vector; empty for one that has none.
        texts: properties it has in any case.
    """
    made = {**(old or {}), "class": collection}
    index: dict[str, Any] = made
    if vector:
        index = dict((made.get("vectorConfig") or {}).get(vector, {"vectorIndexType": "hnsw"}))
        made["vectorConfig"] = {vector: index}
        index["vectorizer"] = {"none": {}}
    else:
        made["vectorizer"] = "none"
    index["vectorIndexConfig"] = {**index.get("vectorIndexConfig", {}), "distance": distance}
    # Those that go on working without the old vectorizer.
    modules = made.pop("moduleConfig", {})
    made["moduleConfig"] = {name: one for name, one in modules.items() if name.startswith(("generative", "reranker"))}
    properties = [
        {key: value for key, value in one.items() if key != "moduleConfig"} for one in made.get("properties", [])
    ]
    there = {one["name"] for one in properties}
    made["properties"] = [*properties, *({"name": one, "dataType": ["text"]} for one in texts if one not in there)]
    return made
