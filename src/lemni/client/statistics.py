"""What a client has done so far, in numbers."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Statistics:
    """Totals since the client was made.

    Attributes:
        requests: HTTP requests that were sent, retries among them.
        retries: those that were sent again, to the same or another server.
        inputs: texts, images and sounds that were answered by a server, not by the cache.
        tokens: tokens that the servers counted.
        truncated: inputs that a server says it has cut to the model's length.
    """

    requests: int = 0
    retries: int = 0
    inputs: int = 0
    tokens: int = 0
    truncated: int = 0


class Counters:
    """Statistics that grow. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = dataclasses.asdict(Statistics())

    def add(self, **more: int) -> None:
        """Add to fields of Statistics."""
        with self._lock:
            for name, by in more.items():
                self._now[name] += by

    def read(self) -> Statistics:
        """The totals."""
        with self._lock:
            return Statistics(**self._now)
