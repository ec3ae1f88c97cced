"""The HTTP side of a cluster: the same application as `lemni serve`, with every dialect, over models that are
elsewhere.

A request is parsed and checked here, computed by a replica that Ray Serve chooses, and asked for again at another one
if that one dies: forward passes have no side effects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import fields
from typing import Any

from lemni.config import EngineSettings, Settings
from lemni.distributed.replica import REPORT_S, Facts, board, place_on_board
from lemni.engine import ModelStatus
from lemni.errors import InternalError, LemniError, Overloaded, Unavailable, UnknownModel
from lemni.runtimes.base import Limits
from lemni.types import ModelCard, Request, Result

ATTEMPTS = 4
"""Replicas that a request is given to, one after the other, as each of them dies."""
_PAUSE_S = 0.1


class RemoteBackend:
    """What dialects read of a backend."""

    def __init__(self, batch_tokens: int) -> None:
        self.limits = Limits(batch_tokens)


class RemoteModel:
    """What dialects read of a loaded model, without its weights."""

    def __init__(self, facts: Facts) -> None:
        self.card = facts.card
        self.tokenizer = facts.tokenizer
        self.backend = RemoteBackend(facts.batch_tokens)


class RemoteEngine:
    """Implements what the server asks of `lemni.engine.Engine`, by handles of Ray Serve. Called on one event loop.

    Args:
        handles: by name of the deployment.
        models: by name of the deployment.
        may_rest: whether a model without a replica will get one when it is asked for.
    """

    def __init__(
        self,
        handles: Mapping[str, Any],
        models: Mapping[str, RemoteModel],
        settings: EngineSettings,
        *,
        may_rest: bool = False,
    ) -> None:
        self.settings = settings
        self._may_rest = may_rest
        self.statuses: dict[str, list[ModelStatus]] = {name: [] for name in handles}
        self._handles, self._models = handles, models
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, name: str, request: Request) -> Future[Result]:
        """The result to come. Raises UnknownModel."""
        deployment = next((one for one, model in self._models.items() if model.card.name == name), None)
        if deployment is None:
            raise UnknownModel(f"no model {name!r} is served here", param="model")
        future: Future[Result] = Future()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._ask(self._handles[deployment], request, future))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # Whoever hung up wants nothing computed; Ray Serve cancels the replica's task in turn.
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(task.cancel) if done.cancelled() else None)
        return future

    async def embed(self, name: str, request: Request) -> Result:
        return await asyncio.wrap_future(self.submit(name, request))

    def cards(self) -> list[ModelCard]:
        return [model.card for model in self._models.values()]

    def ready(self) -> bool:
        return self._may_rest or all(self.statuses.values())

    def status(self) -> dict[str, ModelStatus]:
        """Of each model, its replicas summed up; a model without replicas is left out."""
        return {
            self._models[name].card.name: summed(statuses)
            for name, statuses in self.statuses.items()
            if statuses and name in self._models
        }

    async def _ask(self, handle: Any, request: Request, future: Future[Result]) -> None:
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import BackPressureError, RayServeException

        try:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    outcome = await handle.run.remote(request)
                    break
                except BackPressureError:
                    raise Overloaded("every replica has as many requests as it takes", retry_after_s=1.0) from None
                except RayTaskError as error:  # the replica lives, and would fail again
                    raise InternalError(f"a replica of the model failed: {error.cause!r}") from error
                except (RayError, RayServeException) as error:
                    if attempt == ATTEMPTS:
                        raise Unavailable(f"{ATTEMPTS} replicas of the model died with this request") from error
                    await asyncio.sleep(_PAUSE_S * attempt)
            if isinstance(outcome, LemniError):
                raise outcome
            if future.set_running_or_notify_cancel():
                future.set_result(outcome)
        except BaseException as error:
            if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
                future.set_exception(error if isinstance(error, Exception) else Unavailable("the front is stopping"))


def summed(statuses: list[ModelStatus]) -> ModelStatus:
    """One status for a model of several replicas: counts are added, and of `tokens_per_s`, a replica's, the mean."""
    values: dict[str, Any] = {}
    for one in fields(ModelStatus):
        found = [getattr(status, one.name) for status in statuses]
        if isinstance(found[0], dict):
            total: dict[Any, int] = {}
            for counts in found:
                for key, count in counts.items():
                    total[key] = total.get(key, 0) + count
            values[one.name] = total
        else:
            values[one.name] = sum(found)
    values["tokens_per_s"] /= len(statuses)
    return ModelStatus(**values)


class Front:
    """A deployment of Ray Serve: Lemni's own application, over HTTP.

    Args:
        may_rest: whether models may have no replica while nobody asks.
        handles: of the models' deployments, by their names.
    """

    def __init__(self, settings: Settings, may_rest: bool, **handles: Any) -> None:
        import ray
        from ray import serve

        from lemni.server.app import create_app

        self._settings, self._may_rest = settings, may_rest
        self._handles = handles
        self._board = board(ray)
        self._name = serve.get_replica_context().app_name
        self._app = create_app(
            None, settings.server, settings.engine.request_timeout_s, settings.media, settings.hub.cache_dir
        )
        self._watching: asyncio.Task[None] | None = None

    async def __call__(self, request: Any) -> Any:
        """One HTTP request, through the application."""
        from starlette.responses import Response

        self._watch_from_now_on()
        status, headers, chunks = 500, [], []

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        scope = {
            name: value for name, value in request.scope.items() if name not in ("app", "router", "endpoint", "route")
        }
        scope["state"] = {}
        await self._app(scope, request.receive, send)
        answer = Response(b"".join(chunks), status)
        answer.raw_headers = list(headers)
        return answer

    async def check_health(self) -> None:
        """Keeps the watching alive; an application without a live model is still an application."""
        self._watch_from_now_on()

    def _watch_from_now_on(self) -> None:
        # The constructor has no event loop.
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Keep what is known of the models true: new ones, and how they fare."""
        service = self._app.state.service
        models: dict[str, RemoteModel] = {}
        engine = RemoteEngine(self._handles, models, self._settings.engine, may_rest=self._may_rest)
        names = {place_on_board(self._name, name): name for name in self._handles}
        while True:
            with contextlib.suppress(Exception):  # the board may be coming back
                read = await self._board.read.remote(list(names))
                found = {names[place]: one for place, one in read.items()}
                changed = [
                    name for name, (card, _) in found.items()
                    if card is not None and (name not in models or models[name].card != card)
                ]  # fmt: skip
                for name in changed:
                    facts = await self._board.facts.remote(place_on_board(self._name, name))
                    models[name] = RemoteModel(facts)
                engine.statuses = {name: statuses for name, (_, statuses) in found.items()}
                if changed and len(models) == len(names):
                    service.attach(engine, list(models.values()))
            await asyncio.sleep(REPORT_S)
