"""What runs on the cluster's machines for one served model: replicas, each an engine with the model, and the board on
which they write how they fare, where the front reads it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any

from lemni.config import Settings
from lemni.engine import ModelStatus
from lemni.errors import InternalError, LemniError
from lemni.tasks.tokenizer import Tokenizer
from lemni.types import ModelCard, Request, Result

REPORT_S = 0.5
"""Between two reports of a replica."""
FORGET_S = 10.0
"""A replica that has not reported for so long is gone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the front has to know of a model that it does not have.

    Attributes:
        batch_tokens: budget of a forward pass.
    """

    card: ModelCard
    tokenizer: Tokenizer | None
    batch_tokens: int


class Board:
    """A Ray actor. Who serves which model, and each replica's latest status."""

    def __init__(self) -> None:
        self._facts: dict[str, Facts] = {}
        self._reports: dict[str, dict[str, tuple[float, ModelStatus]]] = {}

    def post(self, deployment: str, replica: str, status: ModelStatus, facts: Facts | None) -> None:
        if facts is not None:
            self._facts[deployment] = facts
        self._reports.setdefault(deployment, {})[replica] = (time.monotonic(), status)

    def forget(self, application: str) -> None:
        """What an application that was removed has posted: the next one of its name may have other models."""
        for known in (self._facts, self._reports):
            for name in [name for name in known if name.startswith(place_on_board(application, ""))]:
                del known[name]

    def facts(self, deployment: str) -> Facts | None:
        """Of the replica that came last."""
        return self._facts.get(deployment)

    def statuses(self, deployment: str) -> list[ModelStatus]:
        """Of the replicas that live."""
        reports = self._reports.get(deployment, {})
        for replica in [name for name, (at, _) in reports.items() if time.monotonic() - at > FORGET_S]:
            del reports[replica]
        return [status for _, status in reports.values()]

    def read(self, deployments: list[str]) -> dict[str, tuple[ModelCard | None, list[ModelStatus]]]:
        """What changes: of each deployment its model's card (None before there is a replica) and its statuses."""
        return {
            name: (self._facts[name].card if name in self._facts else None, self.statuses(name)) for name in deployments
        }


class Replica:
    """A deployment of Ray Serve: one model behind an engine of its own.

    Args:
        settings: of one model.
        deployment: its name.
    """

    def __init__(self, settings: Settings, deployment: str) -> None:
        import ray
        from ray import serve

        from lemni.server.models import load_models

        self._loaded = load_models(settings)
        self._model = self._loaded.models[0]
        self._name = self._model.card.name
        context = serve.get_replica_context()
        self._deployment = place_on_board(context.app_name, deployment)
        self._replica = context.replica_id.unique_id
        self._board = board(ray)
        limits = self._model.backend.limits
        batch_tokens = settings.engine.max_batch_tokens or limits.batch_tokens
        self._facts: Facts | None = Facts(self._model.card, self._model.tokenizer, batch_tokens)
        self._reporting: asyncio.Task[None] | None = None

    async def run(self, request: Request) -> Result | LemniError:
        """The result, or what is wrong with the request; what is raised would reach the front as a text only."""
        self._report_from_now_on()
        try:
            return await self._loaded.engine.embed(self._name, request)
        except LemniError as error:
            return error

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray Serve asks for it and hands it to the policy."""
        self._report_from_now_on()
        return {"queued_tokens": float(self._status().waiting_tokens)}

    async def check_health(self) -> None:
        """Ray Serve replaces a replica for which this raises."""
        self._report_from_now_on()
        if not self._loaded.engine.ready():
            raise InternalError(f"{self._name} has lost its replicas")

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self._loaded.close()

    def _status(self) -> ModelStatus:
        return self._loaded.engine.status()[self._name]

    def _report_from_now_on(self) -> None:
        # The constructor has no event loop.
        if self._reporting is None:
            self._reporting = asyncio.get_running_loop().create_task(self._report())

    async def _report(self) -> None:
        while True:
            # The board may be on a machine that dies: it comes back empty.
            with contextlib.suppress(Exception):
                known = await self._board.facts.remote(self._deployment)
                facts = self._facts if known is None or known.card != self._model.card else None
                await self._board.post.remote(self._deployment, self._replica, self._status(), facts)
            await asyncio.sleep(REPORT_S)


def place_on_board(application: str, deployment: str) -> str:
    """Another application of the cluster may have a deployment of the same name."""
    return f"{application}/{deployment}"


def board(ray: Any) -> Any:
    """The one board of the cluster's applications; made if there is none."""
    return (
        ray.remote(Board)
        .options(
            name="lemni-board", namespace="lemni", get_if_exists=True, lifetime="detached", num_cpus=0, max_restarts=-1
        )
        .remote()
    )
