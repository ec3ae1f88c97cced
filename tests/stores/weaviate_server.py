"""Weaviate's REST and gRPC APIs, as far as the client asks them for Lemni: no package has the server.

Written from its documentation: a collection's settings come back with the defaults that Weaviate fills in, numbers of a
property have its type, objects are in the order of their UUIDs, an alias stands for its collection. The messages are
the client's own protocol buffers.
"""

from __future__ import annotations

import json
import struct
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from weaviate.proto.v1 import aggregate_pb2, base_pb2, batch_pb2, properties_pb2, search_get_pb2, weaviate_pb2_grpc

HNSW: dict[str, Any] = {
    "skip": False,
    "cleanupIntervalSeconds": 300,
    "maxConnections": 32,
    "efConstruction": 128,
    "ef": -1,
    "dynamicEfMin": 100,
    "dynamicEfMax": 500,
    "dynamicEfFactor": 8,
    "vectorCacheMaxObjects": 1000000000000,
    "flatSearchCutoff": 40000,
    "distance": "cosine",
    "filterStrategy": "sweeping",
    "pq": {"enabled": False},
    "bq": {"enabled": False},
    "sq": {"enabled": False},
    "multivector": {"enabled": False, "aggregation": "maxSim"},
}
DEFAULTS: dict[str, Any] = {
    "invertedIndexConfig": {
        "bm25": {"b": 0.75, "k1": 1.2},
        "cleanupIntervalSeconds": 60,
        "stopwords": {"additions": None, "preset": "en", "removals": None},
    },
    "multiTenancyConfig": {"autoTenantActivation": False, "autoTenantCreation": False, "enabled": False},
    "replicationConfig": {"asyncEnabled": False, "deletionStrategy": "NoAutomatedResolution", "factor": 1},
    "shardingConfig": {
        "actualCount": 1,
        "actualVirtualCount": 128,
        "desiredCount": 1,
        "desiredVirtualCount": 128,
        "function": "murmur3",
        "key": "_id",
        "strategy": "hash",
        "virtualPerPhysical": 128,
    },
}


def merged(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of what is null or not given, at any depth."""
    made = dict(defaults)
    for key, one in given.items():
        if one is not None:
            made[key] = merged(defaults[key], one) if isinstance(defaults.get(key), dict) else one
    return made


def filled(index: dict[str, Any]) -> dict[str, Any]:
    kind = {"vectorIndexType": "hnsw", **index}
    return {**kind, "vectorIndexConfig": {**HNSW, **kind.get("vectorIndexConfig", {})}}


class Standin(weaviate_pb2_grpc.WeaviateServicer):  # type: ignore[misc]
    """`sent` are the bodies of POST /schema by class; `credentials` the Authorization headers of both APIs."""

    def __init__(self) -> None:
        self.port = self.grpc_port = 0
        self.schema: dict[str, dict[str, Any]] = {}
        self.sent: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.objects: dict[str, dict[str, tuple[dict[str, Any], dict[str, bytes]]]] = {}
        self.requests: list[tuple[str, str]] = []
        self.credentials: set[Any] = set()
        self.batches: list[int] = []
        self.refused: set[str] = set()

    # REST

    def rest(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.requests.append((method, path))
        parts = path.removeprefix("/v1/").split("/")
        if parts == ["meta"]:
            return 200, {"version": "1.33.0", "grpcMaxMessageSize": 104858600}
        if parts == ["schema"]:
            if method == "GET":
                return 200, {"classes": list(self.schema.values())}
            return self.create(body)
        if parts[0] == "aliases":
            return self.alias(method, parts[1:], body)
        assert parts[0] == "schema", path
        name = parts[1]
        if method == "DELETE":
            self.schema.pop(name, None)
            self.objects.pop(name, None)
            return 200, None
        if name not in self.schema:
            return 404, {"error": [{"message": "class not found"}]}
        if parts[2:] == ["properties"]:
            self.schema[name]["properties"].append(self.property(body))
            return 200, body
        return 200, self.schema[name]

    def create(self, body: Any) -> tuple[int, Any]:
        name = body["class"]
        if name in self.schema or name in self.aliases:
            return 422, {"error": [{"message": f"class name {name} already exists"}]}
        assert name[0].isupper()
        self.sent[name] = body
        made = merged(DEFAULTS, body)
        if "vectorConfig" in body:
            made["vectorConfig"] = {key: filled(one) for key, one in body["vectorConfig"].items()}
        else:
            made = {"vectorizer": "none", **filled(made)}
        made["properties"] = [self.property(one) for one in body.get("properties", [])]
        self.schema[name], self.objects[name] = made, {}
        return 200, made

    @staticmethod
    def property(body: Any) -> dict[str, Any]:
        text = body["dataType"][0].startswith("text")
        defaults = {"indexFilterable": True, "indexRangeFilters": False, "indexSearchable": text}
        tokenization = {"tokenization": "word"} if text else {}
        return {**defaults, **tokenization, **{key: value for key, value in body.items() if value is not None}}

    def alias(self, method: str, rest: list[str], body: Any) -> tuple[int, Any]:
        if not rest:
            if method == "GET":
                return 200, {"aliases": [{"alias": one, "class": to} for one, to in self.aliases.items()]}
            if body["alias"] in self.schema or body["alias"] in self.aliases or body["class"] not in self.schema:
                return 422, {"error": [{"message": "alias or class exists already, or class does not"}]}
            self.aliases[body["alias"]] = body["class"]
            return 200, body
        if rest[0] not in self.aliases:
            return 404, None
        if method == "PUT":
            self.aliases[rest[0]] = body["class"]
        return 200, {"alias": rest[0], "class": self.aliases[rest[0]]}

    # gRPC

    def of(self, name: str, context: Any) -> dict[str, Any]:
        self.credentials.add(dict(context.invocation_metadata()).get("authorization"))
        if (real := self.aliases.get(name, name)) not in self.objects:
            context.abort(grpc.StatusCode.UNKNOWN, f"could not find class {name} in schema")
        return self.objects[real]

    def BatchObjects(self, request: Any, context: Any) -> Any:
        errors = []
        self.batches.append(len(request.objects))
        for at, one in enumerate(request.objects):
            objects = self.of(one.collection, context)
            given = one.properties
            values = dict(MessageToDict(given.non_ref_properties))
            for field in ("text_array", "int_array", "boolean_array"):
                for array in getattr(given, f"{field}_properties"):
                    values[array.prop_name] = list(array.values)
            for array in given.number_array_properties:
                values[array.prop_name] = list(np.frombuffer(array.values_bytes, "<f8")) or list(array.values)
            if unknown := set(values) - {each["name"] for each in self.schema[one.collection]["properties"]}:
                errors.append((at, f"no such property {unknown}"))
            elif one.uuid in self.refused:
                errors.append((at, "no more memory"))
            else:
                named = {each.name: each.vector_bytes for each in one.vectors}
                objects[one.uuid] = (values, named or {"": one.vector_bytes})
        replies = [batch_pb2.BatchObjectsReply.BatchError(index=at, error=said) for at, said in errors]
        return batch_pb2.BatchObjectsReply(took=0.1, errors=replies)

    def Search(self, request: Any, context: Any) -> Any:
        objects = self.of(request.collection, context)
        chosen = sorted(objects)
        if request.after:
            chosen = [one for one in chosen if one > request.after]
        if request.HasField("filters"):
            every = request.filters.filters or [request.filters]
            assert all(one.target.property == "_id" for one in every)
            wanted = {one.value_text for one in every}
            chosen = [one for one in chosen if one in wanted]
        if request.HasField("near_vector"):
            near = request.near_vector
            target = list(near.targets.target_vectors)
            name = target[0] if target else next(iter(next(iter(objects.values()))[1]), "")
            given = near.vectors[0].vector_bytes if near.vectors else near.vector_bytes
            given = given or near.vector_for_targets[0].vectors[0].vector_bytes
            query = np.frombuffer(given, "<f4")
            metric = self.distance(self.aliases.get(request.collection, request.collection), name)
            chosen.sort(key=lambda one: metric(query, np.frombuffer(objects[one][1][name], "<f4")))
        results = [self.result(request, one, *objects[one]) for one in chosen[: request.limit or 10]]
        return search_get_pb2.SearchReply(took=0.1, results=results)

    def distance(self, collection: str, name: str) -> Any:
        schema = self.schema[collection]
        kind = (schema["vectorConfig"][name] if name else schema)["vectorIndexConfig"]["distance"]
        return {
            "cosine": lambda a, b: -(a @ b) / np.linalg.norm(a) / np.linalg.norm(b),
            "dot": lambda a, b: -(a @ b),
            "l2-squared": lambda a, b: ((a - b) ** 2).sum(),
        }[kind]

    def result(self, request: Any, name: str, values: dict[str, Any], vectors: dict[str, bytes]) -> Any:
        schema = self.schema[self.aliases.get(request.collection, request.collection)]
        asked = request.properties
        wanted = {one["name"]: one["dataType"][0] for one in schema["properties"]}
        if request.HasField("properties") and not asked.return_all_nonref_properties:
            wanted = {one: wanted[one] for one in asked.non_ref_properties}
        fields = {one: value(kind, values.get(one)) for one, kind in wanted.items()}
        meta = search_get_pb2.MetadataResult(id=name, id_as_bytes=uuid.UUID(name).bytes)
        if request.metadata.vector and "" in vectors:
            meta.vector_bytes = vectors[""]
        for one in vectors if request.metadata.vector else list(request.metadata.vectors):
            if one:
                meta.vectors.append(base_pb2.Vectors(name=one, vector_bytes=vectors[one], type=1))
        return search_get_pb2.SearchResult(
            metadata=meta,
            properties=search_get_pb2.PropertiesResult(non_ref_props=properties_pb2.Properties(fields=fields)),
        )

    def Aggregate(self, request: Any, context: Any) -> Any:
        assert request.objects_count
        count = len(self.of(request.collection, context))
        return aggregate_pb2.AggregateReply(
            took=0.1, single_result=aggregate_pb2.AggregateReply.Single(objects_count=count)
        )


def value(kind: str, one: Any) -> Any:
    """As Weaviate writes the value of a property of that type."""
    if one is None:
        return properties_pb2.Value(null_value=0)
    if kind == "number[]":
        packed = properties_pb2.NumberValues(values=struct.pack(f"<{len(one)}d", *one))
        return properties_pb2.Value(list_value=properties_pb2.ListValue(number_values=packed))
    if kind == "int[]":
        whole = properties_pb2.IntValues(values=struct.pack(f"<{len(one)}q", *map(int, one)))
        return properties_pb2.Value(list_value=properties_pb2.ListValue(int_values=whole))
    if kind == "text[]":
        return properties_pb2.Value(
            list_value=properties_pb2.ListValue(text_values=properties_pb2.TextValues(values=one))
        )
    if kind == "boolean[]":
        return properties_pb2.Value(
            list_value=properties_pb2.ListValue(bool_values=properties_pb2.BoolValues(values=one))
        )
    field = {"text": "text", "int": "int", "number": "number", "boolean": "bool", "date": "date"}[kind]
    return properties_pb2.Value(**{f"{field}_value": int(one) if kind == "int" else one})


@contextmanager
def weaviate_standin() -> Iterator[Standin]:
    """Answers at `port` and `grpc_port` of 127.0.0.1 until the end."""
    standin, guard = Standin(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            with guard:
                standin.credentials.add(self.headers["Authorization"])
                status, body = standin.rest(self.command, self.path, json.loads(content) if content else None)
            said = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    standin.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    rpc = grpc.server(ThreadPoolExecutor(2))
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(standin, rpc)
    standin.grpc_port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    try:
        yield standin
    finally:
        rpc.stop(None).wait()
        server.shutdown()
        thread.join()
        server.server_close()
