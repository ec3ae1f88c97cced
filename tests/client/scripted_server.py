"""A server over a plain socket that answers with the bytes it is told, to see what a client does with them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

END = None
"""In a reply: close the connection."""

Reply = list[bytes | float | None]
"""Bytes to send, seconds to wait, END."""


def ok(body: bytes = b"{}", *lines: bytes) -> bytes:
    """A whole reply with a length."""
    head = [b"HTTP/1.1 200 OK", b"content-type: application/json", b"content-length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


class ScriptedServer:
    """
    Attributes:
        requests: head and body of each, in the order they came.
        connections: how many there were.
        url: to ask at.
    """

    def __init__(self, answer: Callable[[bytes, bytes], Reply], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self._answer = answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Shut down first: only that wakes a thread that waits in accept or recv.
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            stack.enter_context(connection)
            stream = stack.enter_context(connection.makefile("rb"))
            while head := _head(stream):
                lengths = [line[16:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")]
                request = head, stream.read(int(lengths[0]) if lengths else 0)
                self.requests.append(request)
                for piece in self._answer(*request):
                    if piece is END:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    if isinstance(piece, float):
                        time.sleep(piece)
                    else:
                        connection.sendall(piece)


def _head(stream: object) -> bytes:
    lines = []
    while line := stream.readline():  # type: ignore[attr-defined]
        if line == b"\r\n":
            return b"".join(lines)
        lines.append(line)
    return b""


@contextlib.contextmanager
def scripted(answer: Callable[[bytes, bytes], Reply], tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """A running server; `answer` says what to do with head and body of a request."""
    server = ScriptedServer(answer, tls)
    try:
        yield server
    finally:
        server.close()
