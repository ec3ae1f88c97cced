"""Fields and values that Elasticsearch 9 and OpenSearch 3 are documented to take, refuse and find."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.stores.json_server import Refused


def refuse(status: int, kind: str, reason: str, **more: Any) -> Refused:
    cause = {"type": kind, "reason": reason, **more}
    return Refused(status, {"error": {"root_cause": [cause], **cause}, "status": status})


def only(body: dict[str, Any], *known: str, where: str = "body") -> None:
    if unknown := sorted(set(body) - set(known)):
        raise refuse(400, "parsing_exception", f"Unknown key for a value in [{unknown[0]}] of {where}")


def check_mapping(field: str, mapping: dict[str, Any], settings: dict[str, Any], elastic: bool) -> None:
    kind = mapping.get("type", "object")

    def mapper_error(reason: str) -> Refused:
        return refuse(400, "mapper_parsing_exception", f"Failed to parse mapping: {reason}")

    if kind == "dense_vector" and elastic:
        only(mapping, "type", "dims", "index", "similarity", "index_options", "element_type", where=field)
        if not isinstance(mapping["dims"], int) or not 1 <= mapping["dims"] <= 4096:
            raise mapper_error(f"The number of dimensions should be in the range [1, 4096] but was {mapping['dims']}")
        if mapping["similarity"] not in ("cosine", "dot_product", "l2_norm", "max_inner_product"):
            raise mapper_error(f"Unknown value [{mapping['similarity']}] for field [similarity]")
    elif kind == "sparse_vector" and elastic:
        only(mapping, "type", "store", "index_options", where=field)
    elif kind == "knn_vector" and not elastic:
        only(mapping, "type", "dimension", "method", where=field)
        method = mapping["method"]
        only(method, "name", "engine", "space_type", "parameters", where="method")
        if settings.get("knn") is not True and settings.get("knn") != "true":
            raise mapper_error("index.knn is not set")
        if method["name"] != "hnsw" or method["engine"] not in ("lucene", "faiss"):
            raise mapper_error(f"Invalid method {method}")
        if method["space_type"] not in ("l2", "cosinesimil", "innerproduct"):
            raise mapper_error(f'"hnsw" with "{method["engine"]}" does not support {method["space_type"]}')
        if not 1 <= mapping["dimension"] <= 16_000:
            raise mapper_error(f"Dimension value cannot be greater than 16000 for vector: {field}")
    elif kind == "rank_features" and not elastic:
        only(mapping, "type", where=field)
    elif kind not in ("text", "keyword", "long", "object"):
        raise mapper_error(f"No handler for type [{kind}] declared on field [{field}]")


def dynamic(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "long" if isinstance(value, int | float) and not isinstance(value, bool) else "object"


def check_value(field: str, mapping: dict[str, Any], value: Any) -> None:
    kind = mapping["type"]
    if kind in ("dense_vector", "knn_vector"):
        dims = mapping.get("dims", mapping.get("dimension"))
        if len(value) != dims:
            raise ValueError(
                f"The [{kind}] field [{field}] has {len(value)} dimensions, not the [{dims}] of the mapping"
            )
        if not all(isinstance(one, float | int) and math.isfinite(one) for one in value):
            raise ValueError(f"{kind} values must be finite numbers")
        space = mapping.get("similarity") or mapping["method"]["space_type"]
        length = math.fsum(one * one for one in value)
        if space in ("cosine", "cosinesimil") and not length:
            raise ValueError(f"zero vectors are not supported with {space}")
        if space == "dot_product" and abs(length - 1) > 1e-4:
            raise ValueError("The [dot_product] similarity can only be used with unit-length vectors.")
    elif kind in ("sparse_vector", "rank_features"):
        for term, weight in value.items():
            if "." in term:
                raise ValueError(f"{kind} fields do not support dots in feature names, found [{term}]")
            if not isinstance(weight, float | int) or weight < 1.18e-38 or not math.isfinite(weight):
                raise ValueError(f"featureValue must be a positive normal float, got: {weight} for {term}")
    elif kind == "long" and not isinstance(value, int | float):
        raise ValueError(f"For input string: {value!r}")
    elif kind == "text" and isinstance(value, dict):
        raise ValueError("Can't get text on a START_OBJECT")


def nearest(fields: Any, documents: Any, field: str, query: list[float], k: int) -> dict[str, float]:
    mapping = fields.get(field, {})
    dims = mapping.get("dims", mapping.get("dimension"))
    if dims != len(query):
        raise refuse(
            400, "query_shard_exception", f"the query vector has a different dimension [{len(query)}] than {dims}"
        )
    space = mapping.get("similarity") or mapping["method"]["space_type"]
    asked = np.array(query)
    scores = {}
    for one, (_, _, source) in documents.items():
        vector = np.array(source[field])
        dot, gap = float(asked @ vector), float(((asked - vector) ** 2).sum())
        if space.startswith("cosine"):
            scores[one] = (1 + dot / float(np.linalg.norm(asked) * np.linalg.norm(vector))) / 2
        elif space in ("l2_norm", "l2"):
            scores[one] = 1 / (1 + gap)
        else:
            scores[one] = 1 + dot if dot >= 0 else 1 / (1 - dot)
    return dict(sorted(scores.items(), key=lambda pair: -pair[1])[:k])


def sparse(fields: Any, documents: Any, field: str, query: dict[str, float], kind: str) -> dict[str, float]:
    if fields.get(field, {}).get("type") != kind:
        raise refuse(400, "query_shard_exception", f"field [{field}] is no [{kind}]")
    found = {}
    for one, (_, _, source) in documents.items():
        score = sum(weight * source[field].get(term, 0.0) for term, weight in query.items())
        if score > 0:
            found[one] = score
    return found
