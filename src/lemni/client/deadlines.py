"""httpcore's sync network with one deadline for all of a request: its own timeouts begin anew with every byte."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore


class DeadlineBackend(httpcore.NetworkBackend):
    """Connects, and gives connections whose reads and writes end when the calling thread's time is up."""

    def __init__(self) -> None:
        self._network = httpcore.SyncBackend()
        self._thread = threading.local()

    @contextlib.contextmanager
    def until(self, deadline: float) -> Iterator[None]:
        """This thread's requests are given up when time.monotonic() is `deadline`."""
        self._thread.deadline = deadline
        try:
            yield
        finally:
            self._thread.deadline = None

    def left_s(self, error: type[httpcore.TimeoutException], timeout: float | None) -> float | None:
        """Seconds that this thread still has. Raises `error` if there are none."""
        deadline: float | None = getattr(self._thread, "deadline", None)
        if deadline is None:  # closing a connection is not part of a request
            return timeout
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise error
        return left_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self.left_s(httpcore.ConnectTimeout, timeout)
        try:
            stream = self._network.connect_tcp(host, port, left_s, local_address, socket_options)
        except UnicodeError as error:  # of Python's own look at the name: a label that is empty or too long
            raise httpcore.ConnectError(f"no name of a host: {error}") from error
        return _Stream(stream, self)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, backend: DeadlineBackend) -> None:
        self._stream = stream
        self._backend = backend

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._backend.left_s(httpcore.ReadTimeout, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._backend.left_s(httpcore.WriteTimeout, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = self._backend.left_s(httpcore.ConnectTimeout, timeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._backend)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
