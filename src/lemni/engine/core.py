"""The engine: requests in, vectors out. Puts the stages together; each has a file of its own.

    submit -> tokenise (tokenizing.py) -> queue (served.py, scheduler.py) -> run (replica.py) -> finish (finishing.py)

Every stage has its own threads, so tokenising, forward passes and finishing overlap; every hop wakes the next
thread at once. Models have a queue each and share the tokenizer threads, the alarm and each device's slots.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from lemni.config import EngineSettings
from lemni.engine.alarm import Alarm
from lemni.engine.finishing import Finisher
from lemni.engine.job import Handle
from lemni.engine.model import Model
from lemni.engine.replica import close_quietly
from lemni.engine.replicas import CLOSE_TIMEOUT_S, Replicas
from lemni.engine.served import ServedModel
from lemni.engine.slots import Slots
from lemni.engine.status import ModelStatus
from lemni.engine.tokenizing import Tokenizers
from lemni.errors import UnknownModel
from lemni.types import ModelCard, Request, Result


class _Stages(NamedTuple):
    served: ServedModel
    finisher: Finisher
    replicas: Replicas


class Engine:
    """Serves `models`, by name. Start it, or use it as a context manager; once closed it stays closed."""

    def __init__(self, models: Mapping[str, Model], settings: EngineSettings, *, reload_pause_s: float = 1.0) -> None:
        """`reload_pause_s`: pause before the second attempt to reload a dead replica; doubles up to a minute."""
        self.settings = settings
        self._alarm = Alarm()
        self._tokenizers = Tokenizers(settings.tokenizer_threads)
        self._lock = threading.Lock()
        self._started = False
        self._passes: dict[str, int] = {}  # forward passes that may run at once, by device
        self._slots: dict[str, Slots] = {}
        self._models: dict[str, _Stages] = {}
        for name, model in models.items():
            served = ServedModel(name, model, settings, self._tokenizers, self._alarm)
            finisher = Finisher(served)
            replicas = Replicas(served, settings, finisher, self._alarm, self._slots_of, reload_pause_s)
            self._models[name] = _Stages(served, finisher, replicas)

    def start(self) -> None:
        """Load all replicas of all models side by side, then accept requests.

        Raises what a model's `new_runtime` raises; nothing is left running then.
        """
        with self._lock:
            if self._started:
                raise RuntimeError("an engine starts once; make a new one")
            self._started = True
        with ThreadPoolExecutor(max(1, len(self._models)), "lemni-load") as pool:
            loads = [pool.submit(stages.replicas.load) for stages in self._models.values()]
        if failed := [error for load in loads if (error := load.exception())]:
            for load in loads:
                for runtime in [] if load.exception() else load.result():
                    close_quietly(runtime)
            raise failed[0]
        runtimes = [load.result() for load in loads]
        for model_runtimes in runtimes:
            # As many passes at once on a device as the model with most replicas there wants.
            for device, wanted in Counter(runtime.device for runtime in model_runtimes).items():
                self._passes[device] = max(wanted, self._passes.get(device, 0))
        self._alarm.start()
        self._tokenizers.start()
        for stages, model_runtimes in zip(self._models.values(), runtimes, strict=True):
            stages.finisher.start()
            stages.replicas.start(model_runtimes)

    def submit(self, name: str, request: Request) -> Handle:
        """Queue a request; never blocks, from any thread.

        Raises:
            UnknownModel: no model of that name is served.
            InvalidRequest: no items, options that the model refuses, or more tokens than the whole queue takes.
            Overloaded: the queue is full; `retry_after_s` says when there may be room.
            Unavailable: not started, draining, closed, or no replica can be loaded.
        What goes wrong later comes from the handle.
        """
        return self._stages(name).served.submit(request)

    async def embed(self, name: str, request: Request) -> Result:
        """`submit` and wait for the result. Cancelling the task cancels the request, queued or not."""
        return await asyncio.wrap_future(self.submit(name, request))

    def cards(self) -> list[ModelCard]:
        return [stages.served.model.card for stages in self._models.values()]

    def ready(self) -> bool:
        """Whether every model admits requests and has all its replicas."""
        return all(stages.served.ready() for stages in self._models.values())

    def status(self) -> dict[str, ModelStatus]:
        return {name: stages.served.status() for name, stages in self._models.items()}

    def drain(self, timeout_s: float | None = None) -> bool:
        """Refuse new requests and wait for those in flight. Returns whether all have ended in time."""
        for stages in self._models.values():
            stages.served.refuse("the engine is shutting down")
        until = None if timeout_s is None else time.monotonic() + timeout_s
        return all(
            stages.served.drain(None if until is None else max(0.0, until - time.monotonic()))
            for stages in self._models.values()
        )

    def close(self) -> None:
        """End what is in flight with Unavailable, stop the threads, free the devices. Idempotent."""
        with self._lock:
            self._started = True  # never again
        self._tokenizers.close()
        for stages in self._models.values():
            stages.served.close()
        with self._lock:
            for slots in self._slots.values():
                slots.close()
        for stages in self._models.values():
            stages.replicas.close()
            stages.finisher.close()
            stages.finisher.join(CLOSE_TIMEOUT_S)
        self._tokenizers.join(CLOSE_TIMEOUT_S)
        self._alarm.close()

    def __enter__(self) -> Engine:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _stages(self, name: str) -> _Stages:
        try:
            return self._models[name]
        except KeyError:
            served = ", ".join(self._models) or "none"
            raise UnknownModel(f"no model {name!r} is served here; served: {served}", param="model") from None

    def _slots_of(self, device: str) -> Slots:
        with self._lock:
            if device not in self._slots:
                self._slots[device] = Slots(self._passes.get(device, 1))
            return self._slots[device]
