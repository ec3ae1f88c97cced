"""A web server for the tests of fetching, that can misbehave: raw bytes over asyncio, on addresses of this machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def raw(data: bytes) -> Answer:
    """Send these bytes and close."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return write


def answer(body: bytes, *, status: str = "200 OK", headers: str = "", delay_s: float = 0) -> Answer:
    async def write(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)
        writer.write(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()

    return write


def redirect(location: str, status: str = "302 Found") -> Answer:
    return answer(b"", status=status, headers=f"Location: {location}\r\n")


def drip(part: bytes, pause_s: float, *, head: bytes = b"HTTP/1.1 200 OK\r\n\r\n") -> Answer:
    """Send a part again and again, for ever."""

    async def write(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return write


class Site:
    """Answers by path. `requests` are the heads that came in; `most_at_once` the answers written side by side."""

    def __init__(
        self, answers: Mapping[str, Answer], host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self.answers = dict(answers)
        self.requests: list[str] = []
        self.asked = asyncio.Event()
        self.connections = 0
        self.most_at_once = 0
        self._host, self._tls = host, tls
        self._running: set[asyncio.Task[None]] = set()
        self._answering = 0

    async def __aenter__(self) -> Site:
        self._server = await asyncio.start_server(self._accept, self._host, 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._tls else 'http'}://{host}:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def until_idle(self) -> None:
        """Until every client has gone away."""
        while self._running:
            await asyncio.wait_for(asyncio.shield(next(iter(self._running))), 5)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self.connections += 1
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            self.asked.set()
            self._answering += 1
            self.most_at_once = max(self.most_at_once, self._answering)
            gone = asyncio.create_task(reader.read(1))
            writing = asyncio.ensure_future(self.answers[head.split(" ")[1].partition("?")[0]](writer))
            try:
                await asyncio.wait([gone, writing], return_when=asyncio.FIRST_COMPLETED)
                if writing.done():
                    await writing
            finally:
                self._answering -= 1
                gone.cancel()
                writing.cancel()
                await asyncio.gather(gone, writing, return_exceptions=True)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
