"""uvicorn around the application, with our own life cycle: models that come later, and a drain that ends in time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from lemni.config import MediaSettings, ServerSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from lemni.server.errors import log
from lemni.server.models import Loaded
from lemni.server.service import Service
from lemni.types import ModelCard

if TYPE_CHECKING:
    from lemni.server.grpc.server import GrpcServer

KEEP_ALIVE_S = 75  # longer than load balancers and pooled clients keep an idle connection
_LAST_ANSWERS_S = 5  # for writing answers once the engine has ended what was too late


def run(
    listener: socket.socket,
    loading: Future[Loaded],
    settings: ServerSettings,
    longest_s: float,
    media: MediaSettings,
    cache_dir: Path | None,
) -> None:
    """Serve on the socket until a signal. Raises the error of `loading`, if it fails.

    `longest_s` bounds the deadlines that requests ask for.
    """
    app = create_app(None, settings, longest_s, media, cache_dir)
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        log_level="info" if settings.log_level == "debug" else "warning",
        access_log=False,  # `Edge` writes a line per request at level debug
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.drain_timeout_s) + _LAST_ANSWERS_S,
    )
    server = _Server(config, app.state.service, loading, settings)
    server.run([listener])
    if server.failure is not None:
        raise server.failure


class _Server(uvicorn.Server):
    failure: BaseException | None = None

    def __init__(
        self, config: uvicorn.Config, service: Service, loading: Future[Loaded], settings: ServerSettings
    ) -> None:
        super().__init__(config)
        self._service = service
        self._loading = loading
        self._settings = settings
        self._attaching: asyncio.Task[None] | None = None
        self._grpc: GrpcServer | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        if self._settings.grpc_port is not None:
            from lemni.server.grpc.server import GrpcServer

            self._grpc = GrpcServer(self._service)
            await self._grpc.start()
        self._attaching = asyncio.create_task(self._attach(sockets[0].getsockname()))

    async def _attach(self, address: tuple[str, int]) -> None:
        try:
            loaded = await asyncio.shield(asyncio.wrap_future(self._loading))
        except Exception as error:
            self.failure = error
            self.should_exit = True
            return
        self._service.attach(loaded.engine, loaded.models)
        print(announcement(address, loaded.engine), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more; requests get `drain_timeout_s`, then 503."""
        self._service.stop()
        if self._attaching is not None:
            self._attaching.cancel()
        ending = asyncio.create_task(self._end_late_requests())
        calls = asyncio.create_task(self._stop_grpc())
        await super().shutdown(sockets)
        await calls
        ending.cancel()
        await self._service.close()

    async def _stop_grpc(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop(self._settings.drain_timeout_s + _LAST_ANSWERS_S)

    async def _end_late_requests(self) -> None:
        await asyncio.sleep(self._settings.drain_timeout_s)
        if self._service.engine is not None:
            log.warning("requests still run after drain_timeout_s (%g s): ending them", self._settings.drain_timeout_s)
            await asyncio.to_thread(self._service.engine.close)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again: a drained server ends with exit code 0."""
        handled = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in handled.items():
                signal.signal(sig, handler)


def announcement(address: tuple[str, int], engine: Engine) -> str:
    """The line that says that the server is ready: where, and what it serves."""
    host, port = address[:2]
    anywhere = {"0.0.0.0": "localhost", "::": "localhost"}.get(host)
    shown = anywhere or (f"[{host}]" if ":" in host else host)
    models = "; ".join(
        f"{card.name} ({_does(card)}, {card.runtime} on {card.device}, {card.dtype})" for card in engine.cards()
    )
    return f"Lemni is ready at http://{shown}:{port}{' (every interface)' if anywhere else ''}, docs at /docs: {models}"


def _does(card: ModelCard) -> str:
    if card.dimensions is not None:
        return f"{card.dimensions} dimensions"
    return f"{len(card.labels)} labels" if len(card.labels) > 1 else " and ".join(card.tasks)
