"""A server on a raw socket that does to each request what a script says: late, broken, cut off, wrong.

`with misbehaving(reset, status(503), otherwise=good) as server:` does the first two things to the first two requests
and answers the others. `server.seen` has what came. Its vectors are `vector_of(text)`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 4
PAUSE_S = 0.02  # between two drips
JSON = "application/json"


@dataclass
class Seen:
    """A request: its body is parsed JSON; `connection` counts the connections from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    at: float
    connection: int

    @property
    def inputs(self) -> list[Any]:
        return self.body["input"] if self.body else []


@dataclass
class Turn:
    """A request and the connection that it came on."""

    seen: Seen
    server: Server
    socket: socket.socket

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait(self, seconds: float) -> None:
        """Raises ConnectionError when the client goes away meanwhile, or the server is closed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.server.ended.wait(min(left, 0.01)) or self._is_alone():
                raise ConnectionAbortedError

    def _is_alone(self) -> bool:
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False


Behaviour = Callable[[Turn], None]


@dataclass
class Server:
    url: str
    script: list[Behaviour]
    otherwise: Behaviour
    seen: list[Seen] = field(default_factory=list)
    most_at_once: int = 0
    connections: int = 0
    open: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _at_once: int = 0

    @property
    def bodies(self) -> list[Any]:
        return [one.body for one in self.seen]

    @property
    def sizes(self) -> list[int]:
        """How many inputs each request had."""
        return [len(one.inputs) for one in self.seen]

    def serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            while head := _head(lines):
                method, path, headers = head
                body = lines.read(int(headers.get("content-length", 0)))
                seen = Seen(method, path, headers, json.loads(body) if body else None, time.monotonic(), number)
                with self.lock:
                    self.seen.append(seen)
                    behaviour = self.script.pop(0) if self.script else self.otherwise
                    self._at_once += 1
                    self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    behaviour(Turn(seen, self, connection))
                finally:
                    with self.lock:
                        self._at_once -= 1
        with self.lock:
            self.open -= 1


def _head(lines: Any) -> tuple[str, str, dict[str, str]] | None:
    request = lines.readline().decode()
    if not request.strip():
        return None
    method, path, _ = request.split(" ", 2)
    headers = {}
    while line := lines.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return method, path, headers


@contextlib.contextmanager
def misbehaving(*script: Behaviour, otherwise: Behaviour | None = None) -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = Server(f"http://127.0.0.1:{listener.getsockname()[1]}", list(script), otherwise or good)
    sockets: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with server.lock:
                    number = server.connections
                    server.connections += 1
                    server.open += 1
                sockets.append(connection)
                threading.Thread(target=server.serve, args=(connection, number), daemon=True).start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield server
    finally:
        server.ended.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)


# What a right answer is.


def vector_of(item: Any) -> NDArray[np.float32]:
    """float32 [DIMENSIONS] that tells items apart."""
    seed = zlib.crc32(json.dumps(item).encode())
    return np.random.default_rng(seed).standard_normal(DIMENSIONS).astype(np.float32)


def vectors_of(items: list[Any]) -> NDArray[np.float32]:
    return np.stack([vector_of(item) for item in items])


def answer_of(body: Any) -> dict[str, Any]:
    """The answer to a request for vectors, as JSON; scores where documents are."""
    if "documents" in body:
        scores = [float(vector_of(document)[0]) for document in body["documents"]]
        results = [{"index": place, "relevance_score": score} for place, score in enumerate(scores)]
        return {"results": results[::-1], "usage": {"total_tokens": len(scores)}}
    base64 = body.get("encoding_format") == "base64"
    data = []
    for place, item in enumerate(body["input"]):
        vector = vector_of(item)
        data.append({"index": place, "embedding": _base64(vector) if base64 else vector.tolist()})
    return {"data": data, "usage": {"total_tokens": len(data)}}


def _base64(vector: NDArray[np.float32]) -> str:
    return b64encode(vector.astype("<f4").tobytes()).decode()


def safetensors(tensors: dict[str, NDArray[Any]], names: dict[str, str] | None = None) -> bytes:
    """A safetensors file; `names` are dtypes that numpy does not have."""
    kinds = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8", "int64": "I64", "int32": "I32"}
    header, parts, offset = {}, [], 0
    for name, tensor in tensors.items():
        part = np.ascontiguousarray(tensor).tobytes()
        kind = (names or {}).get(name) or kinds[tensor.dtype.name]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    head = json.dumps({**header, "__metadata__": {"total_tokens": "3"}}).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(parts)


# What can be done to a request.


def good(turn: Turn) -> None:
    """The right answer, also to a question for the models or for health."""
    if turn.seen.path.endswith("/models"):
        content: Any = {"object": "list", "data": [{"id": "toy", "object": "model"}]}
    elif turn.seen.body is None:
        content = {"status": "ok"}
    else:
        content = answer_of(turn.seen.body)
    turn.send(reply(json.dumps(content).encode()))


def reply(body: bytes, code: int = 200, headers: dict[str, str] | None = None, kind: str = JSON) -> bytes:
    """An answer's bytes; `headers` may replace the content's length."""
    own = {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in own.items())
    return f"HTTP/1.1 {code} Something\r\n{lines}\r\n".encode() + body


def raw(data: bytes, close: bool = False) -> Behaviour:
    """These bytes, and then the end if it is to `close`."""

    def behave(turn: Turn) -> None:
        turn.send(data)
        if close:
            raise ConnectionAbortedError

    return behave


def content(body: bytes | Any, code: int = 200, kind: str = JSON, **headers: str) -> Behaviour:
    """An answer with this body: bytes, or what is written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return raw(reply(data, code, {name.replace("_", "-"): value for name, value in headers.items()}, kind))


def status(code: int, message: str = "no", param: str | None = None, **headers: str) -> Behaviour:
    """An error in OpenAI's form."""
    return content({"error": {"message": message, "param": param, "code": None}}, code, **headers)


def blaming(*guilty: str, code: int = 400) -> Behaviour:
    """Refuses a request for the first input that is one of these, and names its place."""

    def behave(turn: Turn) -> None:
        for place, item in enumerate(turn.seen.inputs):
            if item in guilty:
                return status(code, f"input[{place}] is bad", f"input[{place}]")(turn)
        return good(turn)

    return behave


def at_most(count: int) -> Behaviour:
    """413 for more inputs."""

    def behave(turn: Turn) -> None:
        (status(413, "too large") if len(turn.seen.inputs) > count else good)(turn)

    return behave


def failing(*guilty: str, by: Behaviour) -> Behaviour:
    """Does `by` to requests that have one of these inputs."""

    def behave(turn: Turn) -> None:
        (by if set(guilty) & set(turn.seen.inputs) else good)(turn)

    return behave


def changed(change: Callable[[dict[str, Any]], object]) -> Behaviour:
    """The right answer after `change` had its way with it."""

    def behave(turn: Turn) -> None:
        answer = answer_of(turn.seen.body)
        change(answer)
        turn.send(reply(json.dumps(answer).encode()))

    return behave


def change_first(**fields: Any) -> Behaviour:
    """The right answer, but for these fields of the first entry."""
    return changed(lambda answer: answer["data"][0].update(fields))


def slow(seconds: float, then: Behaviour = good) -> Behaviour:
    """Nothing for so long, and then something."""

    def behave(turn: Turn) -> None:
        turn.wait(seconds)
        then(turn)

    return behave


def hang(turn: Turn) -> None:
    """No answer at all, on an open connection."""
    turn.wait(60)


def hang_up(turn: Turn) -> None:
    """The end without an answer."""
    raise ConnectionAbortedError


def reset(turn: Turn) -> None:
    """RST without an answer."""
    turn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raise ConnectionAbortedError


def reset_midway(turn: Turn) -> None:
    """RST in the body."""
    data = reply(json.dumps(answer_of(turn.seen.body)).encode())
    turn.send(data[: len(data) - 20])
    turn.wait(PAUSE_S)
    reset(turn)


def half_body(turn: Turn) -> None:
    """The end before the content's length."""
    body = json.dumps(answer_of(turn.seen.body)).encode()
    turn.send(reply(body[: len(body) // 2], headers={"Content-Length": str(len(body))}))
    raise ConnectionAbortedError


def _chunked(turn: Turn) -> bytes:
    body = json.dumps(answer_of(turn.seen.body)).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = [body[start : start + 7] for start in range(0, len(body), 7)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def chunked(turn: Turn) -> None:
    """The right answer in small chunks."""
    turn.send(_chunked(turn))


def cut_chunks(turn: Turn) -> None:
    """The end in the middle of a chunk."""
    turn.send(_chunked(turn)[:-30])
    raise ConnectionAbortedError


def until_the_end(turn: Turn) -> None:
    """The right answer without a length: the end of the connection is its end."""
    body = json.dumps(answer_of(turn.seen.body)).encode()
    turn.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body)
    raise ConnectionAbortedError


def then_close(turn: Turn) -> None:
    """The right answer, after which the connection is closed though it said that it stays."""
    good(turn)
    raise ConnectionAbortedError


def drip_head(turn: Turn) -> None:
    """The head byte by byte, without end."""
    turn.send(b"HTTP/1.1 200 OK\r\nX-Patience: ")
    for _ in range(500):
        turn.send(b"x")
        turn.wait(PAUSE_S)


def drip_body(turn: Turn) -> None:
    """The body byte by byte."""
    turn.send(reply(b"", headers={"Content-Length": "500"}))
    for _ in range(500):
        turn.send(b" ")
        turn.wait(PAUSE_S)


def zipped(turn: Turn) -> None:
    """gzip, though nobody asked for it."""
    body = gzip.compress(json.dumps(answer_of(turn.seen.body)).encode())
    turn.send(reply(body, headers={"Content-Encoding": "gzip"}))
