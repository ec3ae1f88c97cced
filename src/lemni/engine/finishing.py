"""The finishing stage: one thread per model takes rows off the replicas' hands, so that they go on computing."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from lemni.engine import failures
from lemni.engine.scheduler import Work
from lemni.engine.served import ServedModel
from lemni.types import Outputs


class Finisher:
    def __init__(self, served: ServedModel) -> None:
        self._served = served
        self._batches: SimpleQueue[tuple[list[Work], list[Outputs]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"lemni-{served.name}-finisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, works: list[Work], rows: list[Outputs]) -> None:
        self._batches.put((works, rows))

    def close(self) -> None:
        """Finish what has been put, then end."""
        self._batches.put(None)

    def join(self, timeout_s: float) -> None:
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._step():
            pass

    def _step(self) -> bool:
        """One batch. A method of its own, so that a thread that waits holds no batch's memory."""
        batch = self._batches.get()
        if batch is None:
            return False
        works, rows = batch
        try:
            self._served.complete(works, rows)
        except BaseException as cause:  # the thread serves everybody: it must live on
            self._served.fail(works, failures.internal(cause, f"{self._served.name}: finishing a batch"))
        return True
