"""What every runtime is: something that computes one packed batch.

A runtime object is one replica: one thread calls `run` on it at a time. Loading happens in the runtime's
own module; the table of names is in `lemni.runtimes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.types import PackedBatch


@dataclass(frozen=True, slots=True)
class Limits:
    """What a runtime wants from the scheduler.

    Attributes:
        batch_tokens: token budget that runs best on this device.
        replicas: how many replicas the device wants side by side.
    """

    batch_tokens: int
    replicas: int = 1


class Runtime(Protocol):
    """One replica of one model on one device."""

    device: str
    limits: Limits

    def run(self, batch: PackedBatch) -> NDArray[np.float32]:
        """Compute the batch: float32 [B, dim] of pooled vectors, in the batch's order.

        Raises:
            MemoryError: the device is out of memory; the engine shrinks its token budget and retries in halves.
        """
        ...

    def close(self) -> None:
        """Free the device's memory. Idempotent."""
        ...
