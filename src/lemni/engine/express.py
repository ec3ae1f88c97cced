"""The express lane: small requests beside a long forward pass.

A pass cannot be interrupted, and behind a long document a query would wait for all of it. Where the backend can
(`Limits.express`), a replica of its own takes small requests while every other one is in a long pass, and the operating
system shares the cores among them. It is loaded with the first long pass after a small request; bulk
work alone does not pay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from lemni.engine.failures import log
from lemni.engine.replica import Replica, close_quietly
from lemni.engine.served import ServedModel
from lemni.runtimes.base import Runtime

INDEX = -1
"""Its number among the replicas of a model."""


class ExpressReplica(Replica):
    """Takes what `ServedModel.take_beside` gives, without a slot: it runs beside the passes that have them."""

    label = "the express lane"
    tells_speed = False

    def _run(self) -> None:
        self._served.count_express(1)
        try:
            while not self._dead and (works := self._served.take_beside(self.budget, self._enough)):
                with self._lock:
                    self._aboard = set(works)
                self._compute(works)
        except BaseException as cause:
            self._die(cause)
        finally:
            self._served.count_express(-1)
            close_quietly(self._runtime)


class ExpressLane:
    """Keeps one express replica. `install` makes a replica of a runtime, without starting it."""

    def __init__(self, served: ServedModel, enough: int, install: Callable[[Runtime], ExpressReplica]) -> None:
        self._served = served
        self._enough = enough
        self._install = install
        self._replica: ExpressReplica | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Wait for the first meeting in a thread of its own; again after the replica died."""
        self._thread = threading.Thread(target=self._load, name=f"lemni-{self._served.name}-express", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads, after the served model was closed. Returns whether they have ended."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                return False
        return self._replica is None or self._replica.join(timeout_s)

    def _load(self) -> None:
        if not self._served.wait_for_meeting(self._enough):
            return
        try:
            runtime = self._served.model.express_runtime()
        except BaseException as cause:
            log.error("%s: no express lane, small requests wait for long passes", self._served.name, exc_info=cause)
            return
        self._replica = self._install(runtime)
        self._replica.start()
