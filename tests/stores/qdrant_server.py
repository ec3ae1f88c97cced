"""Qdrant's REST API, as far as Lemni asks it, over `QdrantClient(":memory:")`: no package has the server.

It parses bodies by the client's own models, which are generated from Qdrant's OpenAPI file and refuse fields that are
not in it, and gives back a collection's settings as they were sent. Ids, vectors and answers are local mode's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models


class Standin:
    """What it was sent is in `requests`: method, path, query, body; with `key` it refuses others."""

    def __init__(self, key: str | None = None) -> None:
        self.local = QdrantClient(":memory:")
        self.key = key
        self.port = 0
        self.requests: list[tuple[str, str, dict[str, Any], Any]] = []
        self.sent: dict[str, dict[str, Any]] = {}
        self.indexes: dict[str, dict[str, Any]] = {}

    def answer(self, method: str, path: str, query: dict[str, Any], body: Any) -> Any:
        self.requests.append((method, path, query, body))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if path == "/":
            return None
        if parts == ["collections"]:
            return self.local.get_collections()
        if parts == ["aliases"]:
            return self.local.get_aliases()
        if parts == ["collections", "aliases"]:
            return self.local.update_collection_aliases(models.ChangeAliasesOperation(**body).actions)
        name, rest = parts[1], "/".join(parts[2:])
        if (method, rest) == ("PUT", ""):
            return self.create(name, body)
        if rest == "exists":
            return {"exists": self.local.collection_exists(name)}
        if not self.local.collection_exists(name):
            raise KeyError(f"Not found: Collection `{name}` doesn't exist!")
        if rest == "":
            return self.describe(name) if method == "GET" else self.local.delete_collection(name)
        if rest == "index":
            index = models.CreateFieldIndex(**body)
            self.indexes.setdefault(name, {})[index.field_name] = index.field_schema
            return {"operation_id": 1, "status": "completed"}
        return self.points(method, rest, name, query, body)

    def create(self, name: str, body: Any) -> Any:
        asked = models.CreateCollection(**body)
        self.sent[name] = body
        return self.local.create_collection(
            name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors, metadata=asked.metadata
        )

    def describe(self, name: str) -> Any:
        real = {one.alias_name: one.collection_name for one in self.local.get_aliases().aliases}.get(name, name)
        info = self.local.get_collection(name).model_dump(mode="json", exclude_none=True)
        config = info["config"]
        for key, value in self.sent[real].items():
            if key in ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload"):
                config["params"][key] = value
            elif key not in ("vectors", "sparse_vectors"):
                key = {"optimizers_config": "optimizer_config", "strict_mode_config": "strict_mode_config"}.get(
                    key, key
                )
                config[key] = {**config[key], **value} if isinstance(config.get(key), dict) else value
        for field, how in self.indexes.get(real, {}).items():
            plain = not isinstance(how, models.PayloadSchemaType)
            params = how.model_dump(mode="json", exclude_none=True) if plain else None
            kind = params["type"] if params else how.value
            info["payload_schema"][field] = {"data_type": kind, "params": params, "points": 0}
        return info

    def points(self, method: str, rest: str, name: str, query: dict[str, Any], body: Any) -> Any:
        local, done = self.local, {"operation_id": 1, "status": "completed"}
        if (method, rest) == ("PUT", "points"):
            assert query == {"wait": ["true"]}
            local.upsert(name, models.PointsList(**body).points)
            return done
        if (method, rest) == ("PUT", "points/vectors"):
            assert query == {"wait": ["true"]}
            local.update_vectors(name, models.UpdateVectors(**body).points)
            return done
        if rest == "points/batch":
            assert query == {"wait": ["true"]}
            local.batch_update_points(name, models.UpdateOperations(**body).operations)
            return [done]
        if rest == "points":
            one = models.PointRequest(**body)
            return local.retrieve(name, one.ids, with_payload=one.with_payload, with_vectors=one.with_vector or False)
        if rest == "points/scroll":
            scroll = models.ScrollRequest(**body)
            points, after = local.scroll(
                name,
                limit=scroll.limit or 10,
                offset=scroll.offset,
                with_payload=scroll.with_payload,
                with_vectors=scroll.with_vector or False,
            )
            return models.ScrollResult(points=points, next_page_offset=after)
        if rest == "points/count":
            return local.count(name, exact=bool(models.CountRequest(**body).exact))
        assert rest == "points/query/batch", (method, rest)
        return local.query_batch_points(name, models.QueryRequestBatch(**body).searches)


@contextmanager
def qdrant_standin(key: str | None = None) -> Iterator[Standin]:
    """Answers at `port` of 127.0.0.1 until the end."""
    standin, guard = Standin(key), threading.Lock()
    encode = TypeAdapter(Any).dump_json

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            url = urlsplit(self.path)
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            body = json.loads(content) if content else None
            status, said = 200, b""
            try:
                if standin.key != self.headers["api-key"]:
                    status, said = 401, b'{"status": {"error": "Invalid API key"}}'
                else:
                    with guard:
                        result = standin.answer(self.command, url.path, parse_qs(url.query), body)
                    said = encode({"result": result, "status": "ok", "time": 0.0}, exclude_none=True)
            except KeyError as error:
                status, said = 404, encode({"status": {"error": error.args[0]}})
            except ValueError as error:
                status, said = 400, encode({"status": {"error": str(error)}})
            if url.path == "/" and status == 200:
                said = b'{"title": "qdrant - vector search engine", "version": "1.20.0", "commit": "0"}'
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
    try:
        yield standin
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        standin.local.close()
