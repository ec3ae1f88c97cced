"""Requests straight to a server, on kept connections of one event loop. The twin of `direct.py`.

The loop itself feeds httptools: streams, of asyncio or of anyio, would take nearly twice the CPU time.
"""

from __future__ import annotations

import asyncio
import os
import select
import ssl
import time
from collections.abc import Mapping
from typing import cast

import httpcore

from lemni.client.conversation import Send
from lemni.client.direct import MOST_IN_USE, Idle, Origin, Prepared, left_s, message
from lemni.client.errors import ClientError
from lemni.client.failures import FAILURES, failed
from lemni.client.wire.http import HttpReply
from lemni.client.wire.http1 import BrokenReply, Reading


class Channel(asyncio.Protocol):
    """A connection, with one request at a time."""

    def __init__(self) -> None:
        self._reading: Reading | None = None
        self._end: asyncio.Future[None] | None = None

    async def exchange(self, data: bytes, reading: Reading, deadline: float) -> None:
        """Send a request and read its reply. Raises httpcore's errors and BrokenReply."""
        loop = asyncio.get_running_loop()
        self._reading, self._end = reading, loop.create_future()
        timer = loop.call_later(left_s(deadline), self._finish, httpcore.ReadTimeout())
        try:
            if self._transport.is_closing():
                raise httpcore.WriteError("it was closed")
            self._transport.write(data)
            await self._end
        finally:
            timer.cancel()
            self._reading = self._end = None

    @property
    def is_good(self) -> bool:
        """Whether another request can be sent: before it there is nothing to read but the end."""
        return not self._transport.is_closing() and not _readable(self._transport.get_extra_info("socket").fileno())

    def close(self) -> None:
        """Close the connection, without waiting for the server."""
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._reading is None:  # nobody has asked
            self.close()
            return
        try:
            self._reading.feed(data)
        except BrokenReply as error:
            self._finish(error)
        else:
            if self._reading.whole:
                self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._finish(httpcore.ReadError(str(exc)))
        elif self._reading is not None:
            self.data_received(b"")

    def _finish(self, error: Exception | None = None) -> None:
        if self._end is None or self._end.done():
            return
        if error is None:
            self._end.set_result(None)
        else:
            self._end.set_exception(error)


class AsyncDirect:
    """Connections for one event loop."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._prepared = Prepared(headers)
        self._idle: Idle[Channel] = Idle(lambda channel: channel.is_good)
        self._free = asyncio.Semaphore(MOST_IN_USE)

    async def exchange(self, send: Send) -> HttpReply | ClientError:
        """Send it and read the whole reply, within `send.timeout_s` in all. Errors are returned."""
        deadline = time.monotonic() + send.timeout_s
        opening = self._prepared.opening(send)
        reading = Reading()
        channel = None
        try:
            await self._acquire(deadline)
        except httpcore.PoolTimeout as error:
            return failed(error, send)
        try:
            channel, stale = self._idle.take(opening.origin)
            for one in stale:
                one.close()
            if channel is None:
                channel = await self._connect(opening.origin, deadline)
            await channel.exchange(message(opening, send), reading, deadline)
            return reading.reply()
        except FAILURES as error:
            return failed(error, send)
        finally:
            self._free.release()
            if channel is not None and not (reading.reusable and self._idle.give(opening.origin, channel)):
                channel.close()

    async def close(self) -> None:
        """Close what is idle now, and the others when they are done."""
        for channel in self._idle.close():
            channel.close()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def _acquire(self, deadline: float) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            await asyncio.wait_for(self._free.acquire(), left_s(deadline))
        except (asyncio.TimeoutError, TimeoutError, httpcore.ReadTimeout) as error:
            raise httpcore.PoolTimeout from error

    async def _connect(self, origin: Origin, deadline: float) -> Channel:
        scheme, host, port = origin
        tls, name = (self._prepared.tls, host) if scheme == "https" else (None, None)
        connecting = asyncio.get_running_loop().create_connection(Channel, host, port, ssl=tls, server_hostname=name)
        try:
            _, channel = await asyncio.wait_for(connecting, left_s(deadline))
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise httpcore.ConnectTimeout from error
        except OSError as error:
            # asyncio has words of its own for what the system says.
            known = not isinstance(error, ssl.SSLError) and error.errno is not None and error.errno > 0
            words = f"[Errno {error.errno}] {os.strerror(error.errno or 0)}" if known else str(error)
            raise httpcore.ConnectError(words) from error
        return channel


def _readable(descriptor: int) -> bool:
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
