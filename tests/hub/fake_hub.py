"""The few endpoints of the Hugging Face hub that huggingface_hub calls for a download, on a local port."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit


@dataclass
class FakeHub:
    """Repositories by id, each a list of revisions (branch or tag, commit, files), newest last.

    Attributes:
        gated: ids that only `token` opens, shown as gated to everybody.
        private: ids that only `token` sees.
        requests: "METHOD path" of each request so far.
    """

    repositories: dict[str, list[tuple[str, str, dict[str, bytes]]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    token: str = "hf_secret"
    requests: list[str] = field(default_factory=list)

    def add(self, model_id: str, files: dict[str, bytes], revision: str = "main") -> str:
        """Publish files under a branch or tag; returns the commit."""
        revisions = self.repositories.setdefault(model_id, [])
        commit = hashlib.sha1(f"{model_id}{revision}{len(revisions)}".encode()).hexdigest()
        revisions.append((revision, commit, files))
        return commit

    def find(self, model_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        for name, commit, files in reversed(self.repositories.get(model_id, [])):
            if revision in (name, commit):
                return commit, files
        return None


class HubHandler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        verb = next((i for i, part in enumerate(parts) if part in ("revision", "tree", "resolve")), len(parts))
        model_id = "/".join(parts[:verb])
        what, revision, *tail = parts[verb:] or ["revision", "main"]
        opened = self.headers["Authorization"] == f"Bearer {self.hub.token}"
        if model_id not in self.hub.repositories or (model_id in self.hub.private and not opened):
            # The real one answers so to anonymous callers, so that private names stay unknown.
            self._error(401 if not opened else 404, "RepoNotFound")
            return
        if model_id in self.hub.gated and not opened and not (api and what == "revision"):
            self._error(401, "GatedRepo")
            return
        found = self.hub.find(model_id, revision)
        if found is None:
            self._error(404, "RevisionNotFound")
            return
        commit, files = found
        if api and what == "revision":
            self._json({"id": model_id, "sha": commit, "siblings": [{"rfilename": n} for n in files]})
        elif api:
            kind = {"type": "file"}
            self._json([kind | {"path": n, "size": len(c), "oid": _oid(c)} for n, c in files.items()])
        elif "/".join(tail) in files:
            content = files["/".join(tail)]
            self._answer(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit})
        else:
            self._error(404, "EntryNotFound")

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str) -> None:
        self._answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
