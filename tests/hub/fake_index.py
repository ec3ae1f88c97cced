"""A package index that can be told to misbehave, wheels made on the spot, and a tiny model."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import numpy as np

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "text/html; charset=utf-8"


def tiny_model(scale: float = 1.0) -> dict[str, bytes]:
    """Files of the smallest folder that counts as a model."""
    from safetensors.numpy import save

    return {
        "config.json": json.dumps({"model_type": "bert", "architectures": ["BertModel"]}).encode(),
        "model.safetensors": save({"x": np.full((64, 64), scale, np.float32)}),
    }


def wheel_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def model_wheel(folder: str = "pack/model", **extra: bytes) -> bytes:
    return wheel_bytes({f"{folder}/{k}": v for k, v in tiny_model().items()} | {"pack/__init__.py": b"1/0"} | extra)


@dataclass
class FakeIndex:
    """Serves `/simple/NAME/` and `/files/NAME` on a local port; `/loop/` redirects to itself.

    Attributes:
        files: filename to content.
        hashes: sha256 to publish instead of the true one; None publishes none.
        script: what to do with the next downloads, one word each: "503", "cut" (half of the bytes, then silence),
            "no-range" (all bytes whatever was asked), "wrong-range", "404"; "ok" when it is empty.
        ranges: Range header of each download so far.
    """

    page_type: str = JSON_TYPE
    files: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str | None] = field(default_factory=dict)
    yanked: set[str] = field(default_factory=set)
    script: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    accepts: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    file_authorizations: list[str | None] = field(default_factory=list)
    delay_s: float = 0.0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple/"

    def digest(self, name: str) -> str | None:
        return self.hashes.get(name, hashlib.sha256(self.files[name]).hexdigest())

    def page(self, package: str) -> bytes:
        names = [n for n in self.files if n.partition("-")[0].replace("_", "-").lower() == package]
        if self.page_type == JSON_TYPE:
            entries = [
                {
                    "filename": n,
                    "url": f"../../files/{n}",
                    "hashes": {"sha256": self.digest(n)} if self.digest(n) else {},
                    "size": len(self.files[n]),
                    "yanked": "broken" if n in self.yanked else False,
                }
                for n in names
            ]
            return json.dumps({"meta": {"api-version": "1.1"}, "name": package, "files": entries}).encode()
        anchors = "".join(
            f'<a href="../../files/{n}{f"#sha256={self.digest(n)}" if self.digest(n) else ""}"'
            f"{' data-yanked=x' if n in self.yanked else ''}>{n}</a><br>"
            for n in names
        )
        return f"<!DOCTYPE html><html><body>{anchors}<a href='../other/'>up</a></body></html>".encode()


class IndexHandler(BaseHTTPRequestHandler):
    index: FakeIndex

    def do_GET(self) -> None:
        _, kind, name, *_ = self.path.split("/")
        if kind == "simple":
            self.index.pages.append(name)
            self.index.accepts.append(self.headers["Accept"])
            self.index.authorizations.append(self.headers["Authorization"])
            known = any(n.partition("-")[0].replace("_", "-").lower() == name for n in self.index.files)
            self._answer(200 if known else 404, self.index.page(name), self.index.page_type)
            return
        if kind == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.index.file_authorizations.append(self.headers["Authorization"])
        self.index.ranges.append(self.headers["Range"])
        todo = self.index.script.pop(0) if self.index.script else "ok"
        content = self.index.files[name]
        if todo.isdigit():
            self._answer(int(todo), b"no", "text/plain")
            return
        start = 0
        if self.headers["Range"] and todo != "no-range":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(content) and start:
            self._answer(416, b"", "text/plain")
            return
        time.sleep(self.index.delay_s)
        body = content[start:]
        said = start + 1 if todo == "wrong-range" else start
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if todo == "cut" else body)

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
