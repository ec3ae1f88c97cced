"""An AsyncSession for each event loop, for clients that are made outside of one and used in several, one after another.

A loop's connections are closed when `asyncio.run` ends it, whether or not the client was closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from lemni.client.async_session import AsyncSession
from lemni.client.connection import Connection


class LoopSessions:
    """Sessions of one connection, by event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sessions: dict[asyncio.AbstractEventLoop, AsyncSession] = {}
        self._holders: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}

    async def session(self) -> AsyncSession:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            for ended in [other for other in list(self._sessions) if other.is_closed()]:  # not by `asyncio.run`
                self._forget(ended)
            # An asynchronous generator that has begun is closed with its loop (`loop.shutdown_asyncgens`).
            self._holders[loop] = self._hold(loop)
            await anext(self._holders[loop])
        return self._sessions[loop]

    async def close(self) -> None:
        """Close the connections of the running loop. Idempotent."""
        if holder := self._holders.get(asyncio.get_running_loop()):
            await holder.aclose()

    async def _hold(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        session = self._sessions[loop] = AsyncSession(self._connection)
        try:
            yield
        finally:
            self._forget(loop)
            await session.close()

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._sessions.pop(loop, None)
        self._holders.pop(loop, None)
