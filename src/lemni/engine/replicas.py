"""All replicas of one model: load them, count the living, replace the dead.

A dead replica's place is reloaded by a thread of its own, with growing pauses between attempts. While any replica
lives or is being loaded, requests wait; when every place has failed to load, they are refused and end at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from lemni.config import EngineSettings
from lemni.engine.alarm import Alarm
from lemni.engine.express import INDEX, ExpressLane, ExpressReplica
from lemni.engine.failures import log
from lemni.engine.finishing import Finisher
from lemni.engine.replica import Replica, close_quietly
from lemni.engine.served import ServedModel
from lemni.engine.slots import Slots
from lemni.runtimes.base import Runtime

CLOSE_TIMEOUT_S = 5.0
"""How long a thread that ends may take to free its device before it is left alone."""

MAX_PAUSE_S = 60.0
"""Longest pause between two attempts to reload a replica."""

AnyReplica = TypeVar("AnyReplica", bound=Replica)

Place = Literal["alive", "loading", "failed"]


class Replicas:
    def __init__(
        self,
        served: ServedModel,
        settings: EngineSettings,
        finisher: Finisher,
        alarm: Alarm,
        slots: Callable[[str], Slots],
        first_pause_s: float,
    ) -> None:
        """`slots` gives the compute budget of a device; `first_pause_s` is the first pause between reloads."""
        self._served = served
        self._settings = settings
        self._finisher = finisher
        self._alarm = alarm
        self._slots = slots
        self._first_pause_s = first_pause_s
        self._lock = threading.Lock()
        self._places: list[Place] = []
        self._replicas: dict[int, Replica] = {}
        self._reloading: dict[int, threading.Thread] = {}
        self._express: ExpressLane | None = None
        self._closing = threading.Event()

    def load(self) -> list[Runtime]:
        """Load one runtime, learn how many the device wants, load the others side by side."""
        new_runtime = self._served.model.new_runtime
        first = new_runtime(0)
        count = self._settings.replicas or first.limits.replicas
        if count == 1:
            return [first]
        with ThreadPoolExecutor(count - 1, "lemni-load") as pool:
            others = [pool.submit(new_runtime, index) for index in range(1, count)]
        if failed := [error for future in others if (error := future.exception())]:
            for runtime in [first, *(future.result() for future in others if not future.exception())]:
                close_quietly(runtime)
            raise failed[0]
        return [first, *(future.result() for future in others)]

    def start(self, runtimes: list[Runtime]) -> None:
        self._places = ["loading"] * len(runtimes)
        for index, runtime in enumerate(runtimes):
            self._install(index, runtime)
        limits = runtimes[0].limits
        if self._settings.express and limits.express and limits.efficient_tokens:
            self._express = ExpressLane(self._served, limits.efficient_tokens, self._express_replica)
            self._express.open()

    def close(self) -> None:
        """End the threads that can end. The served model has been closed before."""
        with self._lock:
            self._closing.set()
            reloading = list(self._reloading.values())
        for thread in reloading:
            if thread is not threading.current_thread():
                thread.join(CLOSE_TIMEOUT_S)
        with self._lock:
            replicas = list(self._replicas.values())
        for replica in replicas:
            if not replica.join(CLOSE_TIMEOUT_S):
                log.warning("%s: replica %d is stuck and is left alone", self._served.name, replica.index)
        if self._express is not None and not self._express.join(CLOSE_TIMEOUT_S):
            log.warning("%s: the express lane is stuck and is left alone", self._served.name)

    def _replica(
        self, kind: type[AnyReplica], index: int, runtime: Runtime, on_death: Callable[[Replica, BaseException], None]
    ) -> AnyReplica:
        return kind(
            index,
            runtime,
            self._settings.max_batch_tokens or runtime.limits.batch_tokens,
            served=self._served,
            finisher=self._finisher,
            slots=self._slots(runtime.device),
            alarm=self._alarm,
            forward_timeout_s=self._settings.forward_timeout_s,
            on_death=on_death,
        )

    def _express_replica(self, runtime: Runtime) -> ExpressReplica:
        return self._replica(ExpressReplica, INDEX, runtime, self._on_express_death)

    def _on_express_death(self, replica: Replica, cause: BaseException) -> None:
        log.error("%s: the express lane died; it is opened again", self._served.name, exc_info=cause)
        if self._express is not None and not self._closing.is_set():
            self._express.open()

    def _install(self, index: int, runtime: Runtime) -> None:
        replica = self._replica(Replica, index, runtime, self._on_death)
        with self._lock:
            self._replicas[index] = replica
            self._mark(index, "alive")
            replica.start()

    def _on_death(self, replica: Replica, cause: BaseException) -> None:
        log.error("%s: replica %d died; loading a new one", self._served.name, replica.index, exc_info=cause)
        with self._lock:
            if self._closing.is_set():
                return
            self._mark(replica.index, "loading")
            thread = threading.Thread(target=self._revive, args=(replica, isinstance(cause, TimeoutError)), daemon=True)
            thread.name = f"lemni-reload-{replica.index}"
            self._reloading[replica.index] = thread
            thread.start()

    def _revive(self, dead: Replica, stuck: bool) -> None:
        if not stuck:
            dead.join(CLOSE_TIMEOUT_S)  # the device's memory may be needed
        pause_s = self._first_pause_s
        while not self._closing.is_set():
            try:
                runtime = self._served.model.new_runtime(dead.index)
            except BaseException as cause:
                log.error("%s: replica %d cannot be loaded", self._served.name, dead.index, exc_info=cause)
                with self._lock:
                    self._mark(dead.index, "failed")
                self._served.end_hopeless()
                self._closing.wait(pause_s)
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
                continue
            self._install(dead.index, runtime)
            log.info("%s: replica %d is back", self._served.name, dead.index)
            return

    def _mark(self, index: int, place: Place) -> None:
        """Under the lock, so that the served model sees changes in their order."""
        self._places[index] = place
        hopeless = all(place == "failed" for place in self._places)
        self._served.set_replicas(
            self._places.count("alive"),
            len(self._places),
            f"no replica of {self._served.name} is alive and none can be loaded" if hopeless else None,
        )
