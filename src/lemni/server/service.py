"""What every route has at hand: the engine, once it is there, the served models by name, and the server's state.

The models are loaded while the port is open already: a request that comes early waits a moment for them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from starlette.requests import Request as HttpRequest

from lemni.config import MediaSettings, ServerSettings
from lemni.engine import Engine, ModelStatus
from lemni.errors import RequestCancelled, Unavailable
from lemni.server.names import Names
from lemni.server.quantized import MeasuredRanges
from lemni.tasks.model import LoadedModel
from lemni.types import Modality, ModelCard, Request, Result, Task

if TYPE_CHECKING:
    from lemni.media.fetch import Fetcher

_Done = TypeVar("_Done")

_WATCH_AFTER_S = 0.05
"""What takes longer is watched by a task of its own that sees the client hang up; most answers need none."""

LOADING_PATIENCE_S = 5.0
"""How long an early request waits for the models before it gets 503."""


class Service:
    """One per application, in `app.state.service`.

    Attributes:
        longest_s: bound of the deadlines that requests ask for.
        media: limits of images and audio.
        ranges: of the models' int8 vectors, kept in `cache_dir`.
        engine: started; None while the models are loading.
        names: the served models.
        created: Unix time at which the models were there.
        state: "loading", then "serving", then "stopping".
    """

    def __init__(
        self, settings: ServerSettings, longest_s: float, media: MediaSettings, cache_dir: Path | None = None
    ) -> None:
        self.settings = settings
        self.media = media
        self.ranges = MeasuredRanges(cache_dir)
        self.longest_s = longest_s
        self.engine: Engine | None = None
        self.names = Names((), any_name=False)
        self.created = int(time.time())
        self.state: Literal["loading", "serving", "stopping"] = "loading"
        self._models: Mapping[str, LoadedModel] = {}
        self._changed = asyncio.Event()

    def attach(self, engine: Engine, models: Iterable[LoadedModel]) -> None:
        """The engine of the models is started. Call it on the event loop."""
        self.engine = engine
        self._models = {model.card.name: model for model in models}
        self.names = Names(engine.cards(), any_name=self.settings.any_model_name)
        self.created = int(time.time())
        if self.state == "loading":
            self.state = "serving"
        self._changed.set()

    @functools.cached_property
    def fetcher(self) -> Fetcher:
        """Gets images and audio from URLs; made when one comes."""
        from lemni.media.fetch import Fetcher

        return Fetcher(self.media)

    async def close(self) -> None:
        """Let go of what the service itself holds; no request runs any more."""
        if "fetcher" in self.__dict__:
            await self.fetcher.close()

    def stop(self) -> None:
        """Not ready any more; requests that wait for the models give up. Running ones are not touched."""
        self.state = "stopping"
        self._changed.set()

    @property
    def ready(self) -> bool:
        return self.state == "serving" and self.engine is not None and self.engine.ready()

    def status(self) -> dict[str, ModelStatus]:
        """How each model fares, by served name; empty while they are loading."""
        return {} if self.engine is None else self.engine.status()

    async def cards(self) -> list[ModelCard]:
        """The served models. Raises Unavailable."""
        await self._loaded()
        return list(self.names.cards.values())

    async def model(self, name: str | None, *tasks: Task, modality: Modality = "text") -> ModelCard:
        """The served model that a client means; without a name the one for the tasks. Raises InvalidRequest,
        UnknownModel or Unavailable."""
        await self._loaded()
        return self.names.find(name, *tasks, modality=modality)

    def loaded_model(self, name: str) -> LoadedModel:
        """The model of a card that `model` or `cards` gave."""
        return self._models[name]

    async def run(self, http: HttpRequest, name: str, request: Request) -> Result:
        """Run the request; give it up as soon as the client hangs up. The HTTP body must have been read.

        Raises what the engine raises, and RequestCancelled when the client has gone.
        """
        engine = await self._loaded()
        return await while_there(http, asyncio.wrap_future(engine.submit(name, request)))

    async def _loaded(self) -> Engine:
        if self.state == "loading":
            try:
                await asyncio.wait_for(self._changed.wait(), LOADING_PATIENCE_S)
            except asyncio.TimeoutError:
                raise Unavailable("the model is still being loaded", retry_after_s=LOADING_PATIENCE_S) from None
        if self.engine is None:
            raise Unavailable("the server is shutting down")
        return self.engine


def service_of(http: HttpRequest) -> Service:
    service: Service = http.app.state.service
    return service


async def while_there(http: HttpRequest, work: Awaitable[_Done]) -> _Done:
    """What the work gives; cancelled soon after the client hangs up. The HTTP body must have been read.

    Raises RequestCancelled when the client has gone.
    """
    result = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    gone: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal gone
        gone = loop.create_task(_disconnected(http))
        gone.add_done_callback(lambda task: result.cancel())

    timer = loop.call_later(_WATCH_AFTER_S, watch)
    try:
        return await result
    except asyncio.CancelledError:
        if gone is not None and gone.done() and not gone.cancelled():
            raise RequestCancelled("the client went away") from None
        raise
    finally:
        timer.cancel()
        if gone is not None:
            gone.cancel()
        result.cancel()


async def _disconnected(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
