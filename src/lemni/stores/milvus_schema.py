"""Fields, indexes and values of a Milvus collection: what they mean, and how a new one is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pymilvus import DataType, Function, MilvusClient

from lemni.stores.base import Metric, Schema, VectorKind
from lemni.types import SparseVector

_TEXTS = ("text", "document", "content", "body", "page_content")
_METRICS: dict[Metric, str] = {"cosine": "COSINE", "dot": "IP", "l2": "L2"}
_KINDS: dict[Any, VectorKind] = {DataType.FLOAT_VECTOR: "dense", DataType.SPARSE_FLOAT_VECTOR: "sparse"}
_ID_BYTES, _TEXT_BYTES = 512, 65_535
# What `describe_index` says beside an index's own parameters.
_REPORTED = ("field_name", "index_name", "total_rows", "indexed_rows", "pending_index_rows", "state", "index_type")


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a collection by what they mean. Sizes in bytes of UTF-8."""

    id: str
    id_type: str
    id_bytes: int
    text: str | None
    text_bytes: int
    vector: str
    kind: VectorKind
    dimensions: int | None
    others: tuple[str, ...]
    dynamic: bool

    def output(self, vectors: bool) -> list[str]:
        """What is asked for of an entry."""
        wanted = [self.id, *filter(None, [self.text]), *self.others]
        return [*wanted, *([self.vector] if vectors else []), *(["$meta"] if self.dynamic else [])]


def fields_of(described: dict[str, Any], text: str, vector: str) -> Fields:
    """Of what `describe_collection` says; `text` and `vector` are names that were chosen, or empty.

    Raises:
        ValueError: there is no such field, or none of vectors that Lemni reads.
    """
    fields = {one["name"]: one for one in described["fields"]}
    for chosen in filter(None, (text, vector)):
        if chosen not in fields:
            raise ValueError(f"no field {chosen!r}; there are {', '.join(fields)}")
    key = next(one for one in fields.values() if one.get("is_primary"))
    strings = [name for name, one in fields.items() if one["type"] == DataType.VARCHAR and one is not key]
    text = text or next((one for one in _TEXTS if one in strings), "")
    vectors = [name for name, one in fields.items() if one["type"] in _KINDS]
    vector = vector or ("vector" if "vector" in vectors else next(iter(vectors), ""))
    if vector not in vectors:
        raise ValueError(f"no field of float or sparse vectors; there are {', '.join(fields)}")
    # What a function of the server computes (BM25) cannot be written.
    computed = {name for one in described.get("functions") or () for name in one.get("output_field_names", ())}
    kind = _KINDS[fields[vector]["type"]]
    return Fields(
        id=key["name"],
        id_type="str" if key["type"] == DataType.VARCHAR else "int",
        id_bytes=int(key["params"].get("max_length", 0)),
        text=text or None,
        text_bytes=int(fields[text]["params"].get("max_length", _TEXT_BYTES)) if text else 0,
        vector=vector,
        kind=kind,
        dimensions=int(fields[vector]["params"]["dim"]) if kind == "dense" else None,
        others=tuple(one for one in fields if one not in (key["name"], text, vector) and one not in computed),
        dynamic=bool(described.get("enable_dynamic_field")),
    )


def index_of(client: Any, collection: str, field: str) -> dict[str, Any]:
    """What `describe_index` says of a field's; empty if it has none."""
    return next((one for one in _indexes(client, collection) if one["field_name"] == field), {})


def _indexes(client: Any, collection: str) -> list[dict[str, Any]]:
    found = (client.describe_index(collection, name) for name in client.list_indexes(collection))
    return [one for one in found if one]


def metric_of(index: dict[str, Any]) -> Metric:
    """Without an index Milvus compares by cosine."""
    names: dict[str, Metric] = {there: here for here, there in _METRICS.items()}
    given = str(index.get("metric_type", "COSINE"))
    if given not in names:
        raise ValueError(f"the index compares by {given}; Lemni knows {', '.join(names)}")
    return names[given]


def fresh(schema: Schema, *, id: str, id_type: str, text: str, vector: str) -> dict[str, Any]:
    """Arguments of `create_collection` for one that is like no other."""
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    if id_type == "int":
        made.add_field(id, DataType.INT64, is_primary=True)
    else:
        made.add_field(id, DataType.VARCHAR, is_primary=True, max_length=_ID_BYTES)
    made.add_field(text, DataType.VARCHAR, max_length=_TEXT_BYTES, nullable=True)
    _add_vector(made, vector, schema)
    indexes = MilvusClient.prepare_index_params()
    kind = "AUTOINDEX" if schema.kind == "dense" else "SPARSE_INVERTED_INDEX"
    indexes.add_index(vector, index_type=kind, metric_type=_METRICS[schema.metric])
    return {"schema": made, "index_params": indexes, "consistency_level": "Strong"}


def _add_vector(made: Any, name: str, schema: Schema) -> None:
    if schema.kind == "dense":
        made.add_field(name, DataType.FLOAT_VECTOR, dim=schema.dimensions)
    else:
        made.add_field(name, DataType.SPARSE_FLOAT_VECTOR)


def alike(client: Any, collection: str, fields: Fields, schema: Schema) -> dict[str, Any]:
    """Arguments of `create_collection` for one like `collection`, but for vectors as `schema` says. Ids are given, also
    where the server made them up."""
    described = client.describe_collection(collection)
    made = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=fields.dynamic)
    for one in described["fields"]:
        if one["name"] == fields.vector:
            _add_vector(made, fields.vector, schema)
            continue
        params = dict(one.get("params") or {})
        if one.get("element_type") == DataType.VARCHAR:
            params.setdefault("max_length", _TEXT_BYTES)
        kept = ("element_type", "nullable", "default_value", "is_primary", "is_partition_key", "is_clustering_key")
        made.add_field(
            one["name"],
            one["type"],
            description=one.get("description", ""),
            **{name: one[name] for name in kept if one.get(name) is not None},
            **params,
        )
    for one in described.get("functions") or ():
        made.add_function(
            Function(
                one["name"],
                one["type"],
                list(one["input_field_names"]),
                list(one["output_field_names"]),
                description=one.get("description", ""),
                params=one.get("params"),
            )
        )
    indexes = MilvusClient.prepare_index_params()
    for index in _indexes(client, collection):
        mine = index["field_name"] == fields.vector
        kind = index["index_type"]
        metric = _METRICS[schema.metric] if mine else index.get("metric_type", "NONE")
        if mine and fields.kind != schema.kind:
            kind = "AUTOINDEX" if schema.kind == "dense" else "SPARSE_INVERTED_INDEX"
        params = {name: value for name, value in index.items() if name not in (*_REPORTED, "metric_type")}
        chosen = {} if metric == "NONE" else {"metric_type": metric}
        indexes.add_index(index["field_name"], index_type=kind, params=params, **chosen)
    return {
        "schema": made,
        "index_params": indexes,
        "num_shards": described.get("num_shards", 1),
        "consistency_level": described.get("consistency_level_name") or "Strong",
    }


def sparse(weights: dict[int, float]) -> SparseVector:
    terms = sorted(weights)
    return SparseVector(np.array(terms, np.int32), np.array([weights[term] for term in terms], np.float32))


def plain(value: Any) -> Any:
    """Arrays come in gRPC's own kind of list."""
    return value if value is None or isinstance(value, (str, int, float, list, dict, bytes)) else list(value)
