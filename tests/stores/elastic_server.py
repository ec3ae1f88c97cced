"""What Elasticsearch 9 and OpenSearch 3 are documented to answer to the requests of `lemni.stores.elastic_like`, in
memory.

No server of either can be had from a package index, so the official clients talk to this one. It is strict: a path, a
parameter, a key of a body or a value that the real server refuses, or that is simply not known here, is refused. What
it keeps of the real thing, because code goes wrong there: several shards that number their documents each for itself,
documents that are not found before a refresh, points in time, items of a bulk request that fail alone, indexes that a
bulk request makes by itself, aliases and indexes in one space of names, vectors that are left out of `_source`.
"""

from __future__ import annotations

import base64
import copy
import itertools
import json
import re
import zlib
from typing import Any

from tests.stores.elastic_fields import check_mapping, check_value, dynamic, nearest, only, refuse, sparse
from tests.stores.json_server import Answer, Asked, JsonServer, Refused

SHARDS = 3
MOST = 10_000
INDEX_NAME = re.compile(r"(?![-_+])(?!\.{1,2}$)[^\\/*?\"<>|\s,#:A-Z]{1,255}")
QUERY = {"pretty", "human", "error_trace", "filter_path"}


class Index:
    def __init__(self, settings: dict[str, Any], mappings: dict[str, Any]) -> None:
        self.settings, self.mappings = settings, mappings
        self.aliases: dict[str, dict[str, Any]] = {}
        self.numbers = [itertools.count() for _ in range(SHARDS)]
        self.written: dict[str, tuple[int, int, dict[str, Any]]] = {}  # id -> shard, _seq_no, source
        self.seen: dict[str, tuple[int, int, dict[str, Any]]] = {}  # the same after a refresh

    def put(self, name: str, source: dict[str, Any]) -> None:
        shard = zlib.crc32(name.encode()) % SHARDS
        self.written[name] = (shard, next(self.numbers[shard]), copy.deepcopy(source))


class ElasticServer:
    """`flavour` is "elasticsearch" or "opensearch"; `login` an Authorization header that must be sent."""

    def __init__(self, flavour: str, login: str | None = None) -> None:
        self.elastic = flavour == "elasticsearch"
        self.login = login
        self.indexes: dict[str, Index] = {}
        self.pits: dict[str, tuple[str, dict[str, Any]]] = {}
        self.pit_names = itertools.count()
        self.http = JsonServer(self.answer, lambda reply: json.dumps(reply).encode())
        self.port = self.http.port
        self.close = self.http.close

    def answer(self, asked: Asked) -> Answer:
        headers = {"X-Elastic-Product": "Elasticsearch"} if self.elastic else {}
        content = "application/vnd.elasticsearch+json;compatible-with=9" if self.elastic else "application/json"
        headers["Content-Type"] = content
        try:
            if self.login and asked.headers.get("Authorization") != self.login:
                raise refuse(401, "security_exception", "missing authentication credentials for REST request")
            self.check_types(asked)
            return 200, self.route(asked), headers
        except Refused as refused:
            return refused.status, refused.body, headers

    def check_types(self, asked: Asked) -> None:
        accept, content = asked.headers.get("Accept", ""), asked.headers.get("Content-Type", "")
        lines = asked.path[-1] == "_bulk"
        if self.elastic and accept != "application/vnd.elasticsearch+json; compatible-with=9":
            raise refuse(400, "media_type_header_exception", f"Invalid media-type value on header [Accept]: {accept}")
        if asked.body:
            known = (
                [f"application/vnd.elasticsearch+{'x-ndjson' if lines else 'json'}; compatible-with=9"]
                if self.elastic
                else (["application/x-ndjson", "application/json"] if lines else ["application/json"])
            )
            if content not in known:
                raise refuse(406, "media_type_header_exception", f"Content-Type header [{content}] is not supported")

    def route(self, asked: Asked) -> Any:
        parameters = {name: values[-1] for name, values in asked.query.items()}
        body = json.loads(asked.body) if asked.body and asked.path[-1] != "_bulk" else {}
        match asked.method, asked.path:
            case "HEAD", ["_alias", name]:
                only(parameters, *QUERY)
                if not any(name in index.aliases for index in self.indexes.values()):
                    raise refuse(404, "aliases_not_found_exception", f"aliases [{name}] missing")
                return None
            case "GET", ["_alias", name]:
                only(parameters, *QUERY)
                found = {key: index for key, index in self.indexes.items() if name in index.aliases}
                if not found:
                    raise refuse(404, "aliases_not_found_exception", f"aliases [{name}] missing")
                return {key: {"aliases": {name: index.aliases[name]}} for key, index in found.items()}
            case "GET", ["*", "_alias"]:
                return {key: {"aliases": index.aliases} for key, index in self.indexes.items()}
            case "POST", ["_aliases"]:
                return self.update_aliases(body)
            case (("PUT" | "POST"), ["_bulk"]):
                only(parameters, *QUERY, "refresh")
                return self.bulk(asked.body, parameters.get("refresh", "false"))
            case "POST", ["_search"]:
                return self.search(None, body, parameters)
            case "DELETE", ["_pit"] if self.elastic:
                only(body, "id")
                return {"succeeded": self.pits.pop(body["id"], None) is not None, "num_freed": 1}
            case "DELETE", ["_search", "point_in_time"] if not self.elastic:
                only(body, "pit_id")
                if not isinstance(body["pit_id"], list):
                    raise refuse(400, "illegal_argument_exception", "pit_id is a list")
                return {
                    "pits": [{"successful": bool(self.pits.pop(one, None)), "pit_id": one} for one in body["pit_id"]]
                }
            case "POST", [name, "_pit"] if self.elastic:
                return {"id": self.open_pit(name, parameters)}
            case "POST", [name, "_search", "point_in_time"] if not self.elastic:
                return {"pit_id": self.open_pit(name, parameters), "creation_time": 1}
            case "POST", [name, "_search"]:
                return self.search(name, body, parameters)
            case (("GET" | "POST"), [name, "_count"]):
                only(parameters, *QUERY)
                count = sum(len(index.seen) for _, index in self.resolve(name))
                return {"count": count, "_shards": {"total": SHARDS, "successful": SHARDS, "skipped": 0, "failed": 0}}
            case "HEAD", [name]:
                only(parameters, *QUERY)
                self.resolve(name)
                return None
            case "GET", [name]:
                only(parameters, *QUERY)
                return {
                    key: {"aliases": index.aliases, "mappings": index.mappings, "settings": {"index": index.settings}}
                    for key, index in self.resolve(name)
                }
            case "PUT", [name]:
                only(parameters, *QUERY)
                self.create(name, body)
                return {"acknowledged": True, "shards_acknowledged": True, "index": name}
            case "DELETE", [name]:
                only(parameters, *QUERY)
                ((real, _),) = self.resolve(name)
                if real != name:
                    raise refuse(
                        400,
                        "illegal_argument_exception",
                        f"The provided expression [{name}] matches an alias, specify the concrete indices instead",
                    )
                del self.indexes[real]
                return {"acknowledged": True}
        raise refuse(400, "illegal_argument_exception", f"no handler found for [{asked.method} {asked.path}]")

    # Indexes and aliases

    def resolve(self, name: str) -> list[tuple[str, Index]]:
        if name in self.indexes:
            return [(name, self.indexes[name])]
        found = [(key, index) for key, index in self.indexes.items() if name in index.aliases]
        if not found:
            raise refuse(404, "index_not_found_exception", f"no such index [{name}]", index=name)
        return found

    def create(self, name: str, body: dict[str, Any]) -> None:
        only(body, "settings", "mappings", "aliases")
        if not INDEX_NAME.fullmatch(name):
            raise refuse(400, "invalid_index_name_exception", f"Invalid index name [{name}]")
        if name in self.indexes:
            raise refuse(400, "resource_already_exists_exception", f"index [{name}/abc] already exists", index=name)
        if any(name in index.aliases for index in self.indexes.values()):
            raise refuse(400, "invalid_index_name_exception", f"Invalid index name [{name}], already exists as alias")
        settings = dict(body.get("settings", {}).get("index", {}))
        only(
            settings,
            "number_of_shards",
            "number_of_replicas",
            "analysis",
            *([] if self.elastic else ["knn"]),
            where="settings",
        )
        mappings = copy.deepcopy(body.get("mappings", {}))
        only(mappings, "properties", "date_detection", "dynamic", "_meta", where="mappings")
        for field, mapping in mappings.get("properties", {}).items():
            check_mapping(field, mapping, settings, self.elastic)
        settings = {key: str(value).lower() if isinstance(value, int) else value for key, value in settings.items()}
        defaults = {"number_of_shards": str(SHARDS), "number_of_replicas": "1", "uuid": "abc", "provided_name": name}
        self.indexes[name] = Index({**defaults, **settings}, mappings)

    def update_aliases(self, body: dict[str, Any]) -> Any:
        only(body, "actions")
        after = {key: dict(index.aliases) for key, index in self.indexes.items()}  # all of it or nothing
        for action in body["actions"]:
            ((kind, how),) = action.items()
            how = dict(how)
            index, alias = how.pop("index"), how.pop("alias")
            if index not in self.indexes:
                raise refuse(404, "index_not_found_exception", f"no such index [{index}]")
            if alias in self.indexes:
                raise refuse(
                    400, "invalid_alias_name_exception", f"Invalid alias name [{alias}]: an index or data stream exists"
                )
            if kind == "add":
                only(how, "filter", "routing", "index_routing", "search_routing", "is_write_index", "is_hidden")
                after[index][alias] = how
            elif kind == "remove":
                only(how, "must_exist")
                if after[index].pop(alias, None) is None:
                    raise refuse(404, "aliases_not_found_exception", f"aliases [{alias}] missing")
            else:
                raise refuse(400, "illegal_argument_exception", f"unknown action {kind}")
        for key, index in self.indexes.items():
            index.aliases = after[key]
        return {"acknowledged": True, "errors": False} if self.elastic else {"acknowledged": True}

    # Documents

    def bulk(self, body: bytes, refresh: str) -> Any:
        if refresh not in ("true", "false", "wait_for"):
            raise refuse(400, "illegal_argument_exception", f"Unknown value for refresh: [{refresh}].")
        if not body.endswith(b"\n"):
            raise refuse(400, "illegal_argument_exception", "The bulk request must be terminated by a newline [\\n]")
        lines = [json.loads(line, parse_constant=self.no_constant) for line in body.splitlines()]
        items = []
        for action, source in zip(lines[::2], lines[1::2], strict=True):
            ((kind, where),) = action.items()
            only(where, "_index", "_id", where="action")
            if kind != "index":
                raise refuse(400, "illegal_argument_exception", f"Malformed action/metadata line, found [{kind}]")
            try:
                if where["_index"] not in self.indexes and not any(
                    where["_index"] in index.aliases for index in self.indexes.values()
                ):
                    self.create(where["_index"], {})  # `action.auto_create_index`
                (_, index), *more = self.resolve(where["_index"])
                assert not more
                self.check_document(index, where["_id"], source)
                index.put(where["_id"], source)
                items.append({"index": {**where, "status": 201, "result": "created"}})
            except Refused as refused:
                items.append({"index": {**where, "status": refused.status, "error": refused.body["error"]}})
        if refresh != "false":
            for index in self.indexes.values():
                index.seen = dict(index.written)
        return {"took": 1, "errors": any("error" in item["index"] for item in items), "items": items}

    @staticmethod
    def no_constant(name: str) -> Any:
        raise refuse(400, "json_parse_exception", f"Non-standard token '{name}'")

    def check_document(self, index: Index, name: str, source: dict[str, Any]) -> None:
        if not 0 < len(name.encode()) <= 512:
            raise refuse(
                400, "action_request_validation_exception", f"id [{name}] is too long, must be no longer than 512"
            )
        fields = index.mappings.setdefault("properties", {})
        for field, value in source.items():
            if not field or field.strip(".") != field:
                raise refuse(400, "document_parsing_exception", "field name cannot be an empty string")
            mapping = fields.get(field)
            if mapping is None:
                fields[field] = {"type": dynamic(value)}
                continue
            try:
                check_value(field, mapping, value)
            except (ValueError, TypeError) as error:
                cause = {"caused_by": {"type": "illegal_argument_exception", "reason": str(error)}}
                raise refuse(
                    400, "document_parsing_exception", f"[1:9] failed to parse field [{field}]", **cause
                ) from None

    # Reading

    def open_pit(self, name: str, parameters: dict[str, str]) -> str:
        only(parameters, *QUERY, "keep_alive")
        if not re.fullmatch(r"[1-9]\d*(ms|s|m|h)", parameters.get("keep_alive", "")):
            raise refuse(400, "action_request_validation_exception", "[keep_alive] is not specified")
        ((real, index),) = self.resolve(name)
        pit = base64.b64encode(f"pit {next(self.pit_names)} {real}".encode()).decode()
        self.pits[pit] = (real, dict(index.seen))
        return pit

    def search(self, name: str | None, body: dict[str, Any], parameters: dict[str, str]) -> Any:
        only(parameters, *QUERY, "allow_partial_search_results")
        keys = {"size", "query", "_source", "sort", "pit", "track_total_hits"}
        only(body, *keys, *(["fields", "knn"] if self.elastic else []), where="search")
        if "pit" in body:
            if name is not None:
                raise refuse(400, "illegal_argument_exception", "[indices] cannot be used with point in time")
            only(body["pit"], "id", "keep_alive", where="pit")
            if body["pit"]["id"] not in self.pits:
                raise refuse(404, "search_context_missing_exception", "No search context found for id [1]")
            real, documents = self.pits[body["pit"]["id"]]
            index = self.indexes[real]
        else:
            assert name is not None, "a search of every index is surely a mistake"
            ((real, index),) = self.resolve(name)
            documents = index.seen
        size = body.get("size", 10)
        if not 0 <= size <= MOST:
            raise refuse(
                400, "illegal_argument_exception", f"Result window is too large, must be <= [{MOST}] but was [{size}]"
            )
        scores = self.matching(index, documents, body)
        hits = []
        for one, score in scores.items():
            shard, number, source = documents[one]
            hit: dict[str, Any] = {"_index": real, "_id": one, "_score": score}
            if "sort" in body:
                if body["sort"] != [{"_seq_no": "asc"}]:
                    raise refuse(
                        400,
                        "illegal_argument_exception",
                        "Fielddata access on the _id field is disallowed, you can re-enable it by updating the dynamic "
                        "cluster setting: indices.id_field_data.enabled",
                    )
                hit["sort"] = [number] + ([(shard << 32) + number] if self.elastic and "pit" in body else [])
                hit["_score"] = None
            self.show(hit, index, source, body)
            hits.append(((number, shard) if "sort" in body else (-score, number, shard), hit))
        hits.sort(key=lambda pair: pair[0])
        return {
            "took": 1,
            "timed_out": False,
            "_shards": {"total": SHARDS, "successful": SHARDS, "skipped": 0, "failed": 0},
            "hits": {"max_score": None, "hits": [hit for _, hit in hits[:size]]},
        }

    def show(self, hit: dict[str, Any], index: Index, source: dict[str, Any], body: dict[str, Any]) -> None:
        wanted = body.get("_source", True)
        if wanted is not False:
            left_out = set(wanted.get("excludes", [])) if isinstance(wanted, dict) else set()
            if self.elastic:  # `index.mapping.exclude_source_vectors`, from 9.2 on
                kinds = {field: mapping["type"] for field, mapping in index.mappings["properties"].items()}
                left_out |= {field for field, kind in kinds.items() if kind in ("dense_vector", "sparse_vector")}
            hit["_source"] = {key: value for key, value in source.items() if key not in left_out}
        for field in body.get("fields", []):
            if field in source:
                value = source[field]
                hit.setdefault("fields", {})[field] = value if isinstance(value, list) else [value]

    def matching(self, index: Index, documents: dict[str, Any], body: dict[str, Any]) -> dict[str, float]:
        fields = index.mappings.get("properties", {})
        if "knn" in body:
            knn = body["knn"]
            only(knn, "field", "query_vector", "k", "num_candidates", where="knn")
            if not 1 <= knn["k"] <= knn["num_candidates"] <= MOST:
                raise refuse(
                    400, "illegal_argument_exception", "[num_candidates] cannot be less than [k] or over 10000"
                )
            return nearest(fields, documents, knn["field"], knn["query_vector"], knn["k"])
        ((kind, how),) = body.get("query", {"match_all": {}}).items()
        if kind == "ids":
            only(how, "values", where="ids")
            assert all(isinstance(one, str) for one in how["values"])
            return {one: 1.0 for one in how["values"] if one in documents}
        if kind == "range":
            ((field, limits),) = how.items()
            assert (field, set(limits)) == ("_seq_no", {"gt"}), "only this range is asked for"
            return {one: 1.0 for one, (_, number, _) in documents.items() if number > limits["gt"]}
        if kind == "knn" and not self.elastic:
            ((field, asked),) = how.items()
            only(asked, "vector", "k", where="knn")
            if not 1 <= asked["k"] <= MOST:
                raise refuse(400, "illegal_argument_exception", "[knn] requires 0 < k <= 10000")
            return nearest(fields, documents, field, asked["vector"], asked["k"])
        if kind == "sparse_vector" and self.elastic:
            only(how, "field", "query_vector", where=kind)
            return sparse(fields, documents, how["field"], how["query_vector"], "sparse_vector")
        if kind == "neural_sparse" and not self.elastic:
            ((field, asked),) = how.items()
            only(asked, "query_tokens", where=kind)
            return sparse(fields, documents, field, asked["query_tokens"], "rank_features")
        raise refuse(400, "parsing_exception", f"unknown query [{kind}]")
