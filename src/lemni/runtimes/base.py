"""What a runtime is: it makes a model run on a device, and hands out replicas that compute packed batches.

A `Backend` holds the weights once; a `Runtime` is one replica of it, on which one thread calls `run` at a time.
The table of names is in `lemni.runtimes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lemni.hub.spec import ModelSpec
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.types import TOKEN_OUTPUTS, Output, Outputs, PackedBatch

Encoder = Callable[[Inputs], Tensor]
"""One packed batch -> hidden states [T, hidden]."""

Head = Callable[[Tensor, Inputs], Tensor]
"""Hidden states [T, hidden] -> one row per sequence [B, dim], or per token [T, dim]: `Output` says which."""

Heads = Mapping[Output, Callable[[Ops], Head]]
"""What makes each output of a model, on an array library."""


@dataclass(frozen=True)
class Blueprint:
    """What a backend builds, written over ops so that any array library can run it.

    Attributes:
        spec: the model's facts; its files hold the weights.
        encoder: makes the family on an array library. Backends with model code of their own (transformers, ONNX)
            leave it alone.
        heads: make what the task puts on top, such as pooling and Dense modules.
        release: gives back the memory of the weight files' pages, which are read again when they are needed.
    """

    spec: ModelSpec
    encoder: Callable[[Ops], Encoder]
    heads: Heads
    release: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class BackendOptions:
    """How to run: from the settings, with no "auto" left.

    Attributes:
        devices: "cpu", or one torch device per replica such as "cuda:0".
        dtype: "float32", "float16", "bfloat16", or what only some runtimes have: "int8" (CPUs), "fp8" (GPUs).
        replicas: how many replicas will be asked for at most; None lets the backend choose.
        threads: CPU threads for all replicas together; None takes all cores.
        compile: compile families with torch.compile, on the torch runtime.
    """

    devices: tuple[str, ...] = ("cpu",)
    dtype: str = "float32"
    replicas: int | None = None
    threads: int | None = None
    compile: bool = False
    trust_remote_code: bool = False
    trust_pickle: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What a backend wants from the scheduler.

    Attributes:
        batch_tokens: token budget that runs best on this device.
        replicas: how many replicas the device wants side by side.
        efficient_tokens: from how many tokens on a larger batch is little faster per token; None if only a full one is.
        express: whether the backend is an `ExpressBackend`.
    """

    batch_tokens: int
    replicas: int = 1
    efficient_tokens: int | None = None
    express: bool = False


class Runtime(Protocol):
    """One replica of one model on one device."""

    device: str
    limits: Limits

    def run(self, batch: PackedBatch) -> list[Outputs]:
        """Compute the batch: what each sequence asks for (it may be more), in the batch's order, in arrays of its own:
        they are read while the next batch runs.

        Raises:
            MemoryError: the device is out of memory; the engine shrinks its token budget and retries in halves.
        """
        ...

    def close(self) -> None:
        """Free the device's memory. Idempotent."""
        ...


class Backend(Protocol):
    """A model that is loaded, on one or several devices.

    Attributes:
        name: the runtime's name in the table.
        device: where it runs, for people.
        dtype: precision of the computation.
        max_positions: tokens of the longest sequence the weights allow, or None.
        outputs: what its replicas can give.
    """

    name: str
    device: str
    dtype: str
    limits: Limits
    max_positions: int | None
    outputs: frozenset[Output]

    def replica(self, index: int) -> Runtime:
        """Replica `index`; again after one died."""
        ...

    def close(self) -> None:
        """Free all memory. Idempotent."""
        ...


@runtime_checkable
class ExpressBackend(Protocol):
    """A backend whose `limits.express` is true."""

    def express(self) -> Runtime:
        """A replica for small batches, on one thread, that runs beside another's large batch."""
        ...


def by_sequence(outputs: Mapping[Output, NDArray[np.float32]], batch: PackedBatch) -> list[Outputs]:
    """The outputs of a batch, [B, dim] or [T, dim] each (spare rows at the end are left out), as one view per
    sequence; of terms, which are as many as the vocabulary and nearly all zero or less, those over zero."""
    rows: list[dict[Output, NDArray[np.float32]]] = [{} for _ in range(len(batch))]
    ends = np.cumsum(batch.lengths)
    for name, array in outputs.items():
        pieces: Seq[NDArray[np.float32]]
        if name == "terms":
            pieces = [_over_zero(terms) for terms in array[: len(batch)]]
        else:
            pieces = np.split(array[: batch.tokens], ends[:-1]) if name in TOKEN_OUTPUTS else list(array[: len(batch)])
        for row, piece in zip(rows, pieces, strict=True):
            row[name] = piece
    return list(rows)


def _over_zero(terms: NDArray[np.float32]) -> NDArray[np.float32]:
    """[vocabulary] -> [2, n]; NaN stays, for the engine to see."""
    [ids] = np.nonzero(~(terms <= 0))
    return np.stack([ids.astype(np.float32), terms[ids]])
