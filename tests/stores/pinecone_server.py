"""What Pinecone is documented to answer to the requests of `lemni.stores.pinecone` (API 2026-07), in memory.

The service cannot be run, so the official client talks to this: a control plane, and a host for each index. It is
strict: a path, a parameter, a key or a value that the service refuses, or that is simply not known here, is refused.
What it keeps of the real thing, because code goes wrong there: writes are seen some reads later, and only answers to
queries say how far; ids come in the order of their bytes, a hundred at most, and pages have opaque tokens; numbers are
64-bit floats; nulls are dropped; requests, metadata, ids and addresses have limits.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from typing import Any

import numpy as np

from tests.stores.json_server import Answer, Asked, JsonServer, Refused

VERSION = "2026-07"
KEY = "pc-key"
LAG = 2  # queries until a write is seen


def refuse(status: int, message: str, code: int = 3) -> Refused:
    return Refused(status, {"code": code, "message": message, "details": []})


def only(body: dict[str, Any], *known: str) -> None:
    if unknown := sorted(set(body) - set(known)):
        raise refuse(400, f"Unknown field: {unknown[0]}")


def check_headers(asked: Asked) -> None:
    if asked.headers.get("Api-Key") != KEY:
        raise refuse(401, "Invalid API Key", 16)
    if asked.headers.get("X-Pinecone-Api-Version") != VERSION:
        raise refuse(400, "Invalid API version")
    if asked.body and asked.headers.get("Content-Type") != "application/json":
        raise refuse(415, "Unsupported media type")
    if len(asked.address) > 8_000:
        raise refuse(414, "URI Too Long")


class IndexHost:
    """The host of one index. A namespace is a dict from ids to records."""

    def __init__(self, schema: dict[str, Any]) -> None:
        ((self.field, self.vector),) = schema["fields"].items()
        self.sparse = self.vector["type"] == "sparse_vector"
        self.now: dict[str, dict[str, Any]] = {"__default__": {}}
        self.seen: dict[str, dict[str, Any]] = {"__default__": {}}
        self.committed = self.reconciled = 100
        self.queries = 0
        self.tokens: dict[str, int] = {}
        self.http = JsonServer(self.answer, lambda reply: json.dumps(reply).encode())

    def answer(self, asked: Asked) -> Answer:
        try:
            check_headers(asked)
            headers: dict[str, str] = {}
            return 200, self.route(asked, headers), headers
        except Refused as refused:
            return refused.status, refused.body, {}

    def route(self, asked: Asked, headers: dict[str, str]) -> Any:
        query = {name: values if name == "ids" else values[-1] for name, values in asked.query.items()}
        body = json.loads(asked.body) if asked.body else {}
        match asked.method, asked.path:
            case "POST", ["vectors", "upsert"]:
                count = self.upsert(body, len(asked.body))
                headers["x-pinecone-lsn-committed"] = str(self.committed)
                return {"upsertedCount": count}
            case "POST", ["vectors", "delete"]:
                only(body, "namespace", "deleteAll")
                if body["deleteAll"] is not True:
                    raise refuse(400, "deleteAll")
                self.now[body["namespace"] or "__default__"] = {}
                self.settle()
                return {}
            case "GET", ["vectors", "list"]:
                return self.list_ids(query)
            case "GET", ["vectors", "fetch"]:
                only(query, "ids", "namespace")
                if len(query["ids"]) > 1_000:
                    raise refuse(400, "Too many ids")
                there = self.seen.get(query.get("namespace") or "__default__", {})
                found = {one: there[one] for one in query["ids"] if one in there}
                return {"vectors": found, "namespace": query.get("namespace", ""), "usage": {"readUnits": 1}}
            case "POST", ["query"]:
                found = self.query(body)
                headers["x-pinecone-lsn-reconciled"] = str(self.reconciled)
                self.queries += 1
                if self.queries % LAG == 0:
                    self.settle()
                return {"matches": found, "namespace": body.get("namespace", ""), "usage": {"readUnits": 5}}
            case "POST", ["namespaces"]:
                only(body, "name")
                name = body["name"]
                if not name.isascii() or not 0 < len(name) <= 512 or name == "__default__":
                    raise refuse(400, f"Invalid namespace name {name}")
                if name in self.now:
                    raise refuse(409, f'Namespace "{name}" already exists', 6)
                self.now[name], self.seen[name] = {}, {}
                return {"name": name, "record_count": "0"}
            case "GET", ["namespaces"]:
                names = sorted(self.seen)
                found = [{"name": one, "record_count": str(len(self.seen[one]))} for one in names]
                return {"namespaces": found, "total_count": len(names)}
            case ("GET" | "DELETE") as method, ["namespaces", name]:
                if name not in self.now:
                    raise refuse(404, f"Namespace {name} not found", 5)
                if method == "GET":
                    return {"name": name, "record_count": str(len(self.seen.get(name, {})))}
                del self.now[name]
                self.settle()
                return {}
        raise refuse(404, f"no such path: {asked.method} {asked.path}", 5)

    def settle(self) -> None:
        self.seen = {name: dict(records) for name, records in self.now.items()}
        self.reconciled = self.committed

    # Records

    def upsert(self, body: dict[str, Any], size: int) -> int:
        only(body, "vectors", "namespace")
        if size > 2_000_000:
            raise refuse(413, f"Request size {size} bytes exceeds the maximum supported size")
        if not 0 < len(body["vectors"]) <= 1_000:
            raise refuse(400, f"Vector count {len(body['vectors'])} is not in 1 to 1000")
        records = [self.record(vector) for vector in body["vectors"]]
        self.now.setdefault(body.get("namespace") or "__default__", {}).update((one["id"], one) for one in records)
        self.committed += 1
        return len(records)

    def record(self, vector: dict[str, Any]) -> dict[str, Any]:
        only(vector, "id", "values", "sparseValues", "metadata")
        name = vector["id"]
        if not isinstance(name, str) or not name.isascii() or "\0" in name or not 0 < len(name) <= 512:
            raise refuse(400, f"Vector ID must be ASCII, of 1 to 512 characters: {name}")
        kept: dict[str, Any] = {"id": name, "metadata": self.metadata(vector.get("metadata", {}))}
        if self.sparse:
            if vector["values"] or "sparseValues" not in vector:
                raise refuse(400, f"Index is sparse; vector {name} must have sparse values only")
            kept["values"], kept["sparseValues"] = [], self.check_sparse(vector["sparseValues"])
        else:
            if "sparseValues" in vector:
                raise refuse(400, "Index configuration does not support sparse values")
            kept["values"] = self.check_dense(vector["values"])
            if not any(kept["values"]):
                raise refuse(400, f"Dense vectors must contain at least one non-zero value. Vector ID {name}")
        return kept

    def check_dense(self, values: list[float]) -> list[float]:
        if len(values) != self.vector["dimension"]:
            raise refuse(
                400,
                f"Vector dimension {len(values)} does not match the dimension of the index {self.vector['dimension']}",
            )
        if not all(isinstance(one, float | int) and math.isfinite(one) for one in values):
            raise refuse(400, "Vector values must be finite numbers")
        return [struct.unpack("f", struct.pack("f", one))[0] for one in values]  # 32-bit floats

    @staticmethod
    def check_sparse(values: dict[str, Any]) -> dict[str, Any]:
        only(values, "indices", "values")
        indices = values["indices"]
        if len(indices) != len(values["values"]) or not 0 < len(indices) <= 2_048 or len(set(indices)) < len(indices):
            raise refuse(400, "Sparse vector must have 1 to 2048 distinct indices and as many values")
        if not all(isinstance(at, int) and 0 <= at < 2**32 for at in indices):
            raise refuse(400, "Sparse indices must be unsigned 32-bit integers")
        if 0 in values["values"]:
            raise refuse(400, "Sparse vector must not contain zero values")
        floats = [struct.unpack("f", struct.pack("f", one))[0] for one in values["values"]]
        return {"indices": indices[::-1], "values": floats[::-1]}  # no order is promised

    @staticmethod
    def metadata(given: dict[str, Any]) -> dict[str, Any]:
        if len(json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()) > 40_960:
            raise refuse(400, "Metadata size is over the limit of 40960 bytes per vector")
        kept: dict[str, Any] = {}
        for key, value in given.items():
            if key.startswith("$"):
                raise refuse(400, f"Metadata key {key} must not begin with $")
            texts = isinstance(value, list) and all(isinstance(one, str) for one in value)
            if not texts and not isinstance(value, str | int | float | None):
                raise refuse(400, f"Metadata value must be a string, number, boolean or list of strings, got {value!r}")
            if value is not None:
                kept[key] = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        return kept

    def list_ids(self, query: dict[str, Any]) -> Any:
        only(query, "namespace", "limit", "paginationToken")
        limit = int(query.get("limit", 100))
        if not 1 <= limit <= 100:
            raise refuse(400, "limit must be in 1 to 100")
        start = 0
        if "paginationToken" in query:
            if query["paginationToken"] not in self.tokens:
                raise refuse(400, "Invalid pagination token")
            start = self.tokens[query["paginationToken"]]
        names = sorted(self.seen.get(query["namespace"] or "__default__", {}), key=str.encode)
        found: dict[str, Any] = {"vectors": [{"id": one} for one in names[start : start + limit]], "namespace": ""}
        if start + limit < len(names):
            token = base64.b64encode(f"{len(self.tokens)}/{start + limit}".encode()).decode()
            self.tokens[token] = start + limit
            found["pagination"] = {"next": token}
        return found

    def query(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        only(body, "topK", "includeValues", "includeMetadata", "namespace", "vector", "id", "sparseVector")
        if not 1 <= body["topK"] <= 10_000:
            raise refuse(400, "topK must be in 1 to 10000")
        there = self.seen.get(body.get("namespace") or "__default__", {})
        if "id" in body:
            if body["id"] not in there:
                return []
            body = {
                **body,
                "vector": there[body["id"]]["values"],
                "sparseVector": there[body["id"]].get("sparseValues"),
            }
        if self.sparse:
            asked = dict(zip(body["sparseVector"]["indices"], body["sparseVector"]["values"], strict=True))
            scores = {
                one: sum(
                    asked.get(at, 0.0) * value
                    for at, value in zip(kept["sparseValues"]["indices"], kept["sparseValues"]["values"], strict=True)
                )
                for one, kept in there.items()
            }
            scores = {one: score for one, score in scores.items() if score}
            order = sorted(scores, key=lambda one: -scores[one])
        else:
            vector = np.array(self.check_dense(body["vector"]))
            scores = {one: self.score(vector, np.array(kept["values"])) for one, kept in there.items()}
            sign = 1 if self.vector["metric"] == "euclidean" else -1  # a distance; the others are similarities
            order = sorted(scores, key=lambda one: sign * scores[one])
        return [{"id": one, "score": scores[one], "values": []} for one in order[: body["topK"]]]

    def score(self, asked: Any, kept: Any) -> float:
        if self.vector["metric"] == "euclidean":
            return float(((asked - kept) ** 2).sum())
        length = 1.0 if self.vector["metric"] == "dotproduct" else np.linalg.norm(asked) * np.linalg.norm(kept)
        return float(asked @ kept / length)


class PineconeServer:
    """The control plane; `indexes` has the hosts by name."""

    def __init__(self) -> None:
        self.indexes: dict[str, IndexHost] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.http = JsonServer(self.answer, lambda reply: json.dumps(reply).encode())
        self.port = self.http.port

    def close(self) -> None:
        self.http.close()
        for index in self.indexes.values():
            index.http.close()

    def answer(self, asked: Asked) -> Answer:
        try:
            check_headers(asked)
            return self.route(asked)
        except Refused as refused:
            kind = {404: "NOT_FOUND", 409: "ALREADY_EXISTS", 401: "UNAUTHENTICATED"}.get(
                refused.status, "INVALID_ARGUMENT"
            )
            error = {"code": kind, "message": refused.body["message"]}
            return refused.status, {"error": error, "status": refused.status}, {}

    def route(self, asked: Asked) -> Answer:
        match asked.method, asked.path:
            case "GET", ["indexes"]:
                return 200, {"indexes": list(self.models.values())}, {}
            case "GET", ["indexes", name]:
                if name not in self.models:
                    raise refuse(404, f"Resource {name} not found")
                return 200, self.models[name], {}
            case "POST", ["indexes"]:
                return 201, self.create(json.loads(asked.body)), {}
        raise refuse(404, f"no such path: {asked.method} {asked.path}")

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        only(body, "name", "schema", "deployment")
        name, schema, deployment = body["name"], body["schema"], body["deployment"]
        if not re.fullmatch(r"(?!-)[a-z0-9-]{1,45}(?<!-)", name):
            raise refuse(400, f"Name must consist of lower case alphanumeric characters or '-': {name}")
        if name in self.models:
            raise refuse(409, f"Resource {name} already exists")
        only(deployment, "deployment_type", "cloud", "region")
        if deployment["deployment_type"] != "managed" or deployment["cloud"] not in ("aws", "gcp", "azure"):
            raise refuse(400, f"no such deployment {deployment}")
        ((field, vector),) = schema["fields"].items()
        if field == "_values":
            only(vector, "type", "dimension", "metric")
            if vector["type"] != "dense_vector" or not 1 <= vector["dimension"] <= 20_000:
                raise refuse(400, "dimension must be in 1 to 20000")
            if vector["metric"] not in ("cosine", "dotproduct", "euclidean"):
                raise refuse(400, f"no such metric {vector['metric']}")
        elif (field, vector) != ("_sparse_values", {"type": "sparse_vector"}):
            raise refuse(400, "the vectors API has the fields _values and _sparse_values")
        self.indexes[name] = IndexHost(schema)
        self.models[name] = {
            "name": name,
            "host": f"127.0.0.1:{self.indexes[name].http.port}",
            "status": {"ready": True, "state": "Ready"},
            "schema": schema,
            "deployment": {**deployment, "environment": "aped-4627-b74a"},
            "deletion_protection": "disabled",
            "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
            "tags": None,
        }
        return self.models[name]
