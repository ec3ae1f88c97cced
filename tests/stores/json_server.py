"""An HTTP server of this process that answers with JSON: what stands in for a service that cannot be run here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


class Refused(Exception):
    """What the service answers instead: a status and a body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(body))
        self.status = status
        self.body = body


class Asked(NamedTuple):
    method: str
    path: list[str]  # decoded segments
    query: dict[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    address: str  # as it was sent


Answer = tuple[int, Any, dict[str, str]]  # status, JSON, headers


class JsonServer:
    """Serves on a free port of 127.0.0.1, one request at a time, until `close`. `asked` keeps all requests."""

    def __init__(self, answer: Callable[[Asked], Answer], dumps: Callable[[Any], bytes]) -> None:
        lock = threading.Lock()
        asked: list[Asked] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: else each answer waits 40 ms for an acknowledgement

            def log_message(self, *args: Any) -> None:
                pass

            def serve(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = [unquote(one) for one in parts.path.strip("/").split("/")]
                query = parse_qs(parts.query, keep_blank_values=True)
                one = Asked(self.command, path, query, self.headers, body, self.path)
                with lock:
                    asked.append(one)
                    status, reply, headers = answer(one)
                data = b"" if reply is None or self.command == "HEAD" else dumps(reply)
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                self.wfile.flush()

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = serve

        self.asked = asked
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
