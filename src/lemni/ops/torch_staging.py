"""The integers of a packed batch as one array: written once on the host, copied to the device at once.

Seven small copies would each cost the host a call and the device a gap. On CUDA the host's side is pinned memory, so
that the copy is asynchronous, and is written again only when the copy before has been read.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lemni.ops.plan import rounded
from lemni.types import PackedBatch

KEPT_BYTES = 256 * 2**20
"""Of pinned memory for results; larger ones, such as a large batch over a vocabulary, come by ordinary memory."""


class Fields(NamedTuple):
    """The parts of a staged batch, int32. Sequences may be empty; then what is said of their tokens is of some other.

    Attributes:
        ids, positions, token_types: [T], as in the batch.
        segments: [T], the sequence of each token.
        offsets: [B + 1], where sequences begin and end.
        first: [B], the token at each sequence's `pool_start`.
        last: [B], the last token of each.
        pool_starts: [B].
    """

    ids: torch.Tensor
    positions: torch.Tensor
    token_types: torch.Tensor
    segments: torch.Tensor
    offsets: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    pool_starts: torch.Tensor


def sizes(tokens: int, sequences: int) -> list[int]:
    """Of the fields, in order."""
    return [tokens] * 4 + [sequences + 1] + [sequences] * 3


def fields(staged: torch.Tensor, tokens: int, sequences: int) -> Fields:
    """Views into a staged batch, int32 [sum(sizes)]."""
    return Fields(*torch.split(staged, sizes(tokens, sequences)))


def write(batch: PackedBatch, out: NDArray[np.int32]) -> None:
    """Lay the fields of a batch end to end into `out`, int32 [sum(sizes)]."""
    tokens, sequences = batch.tokens, len(batch)
    parts = np.split(out, np.cumsum(sizes(tokens, sequences))[:-1])
    ids, positions, token_types, segments, offsets, first, last, pool_starts = parts
    ids[:], positions[:], token_types[:] = batch.ids, batch.positions, batch.token_types
    segments[:] = np.repeat(np.arange(sequences, dtype=np.int32), batch.lengths)
    offsets[0] = 0
    np.cumsum(batch.lengths, out=offsets[1:])
    # An empty sequence's token is none of its own: any that is there will do.
    np.clip(offsets[:-1] + batch.pool_starts, 0, tokens - 1, out=first)
    np.clip(offsets[1:] - 1, 0, tokens - 1, out=last)
    pool_starts[:] = batch.pool_starts


class Fence:
    """Something asynchronous to wait for: the work that was given to the device before `raise_here`.

    Waiting lets other threads run, and does not keep a core busy.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(blocking=True) if device.type == "cuda" else None
        self._device = device

    def raise_here(self) -> None:
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))

    def wait(self) -> None:
        """At once if it was never raised."""
        if self._event is not None:
            self._event.synchronize()


class Uploads:
    """The host's side of staging, reused from batch to batch; for one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._read = Fence(device)
        self._host = torch.empty(0, dtype=torch.int32)

    def stage(self, batch: PackedBatch, into: torch.Tensor | None = None) -> Fields:
        """The batch on the device, in memory of its own or `into`, int32 [sum(sizes)]. Returns before it is copied."""
        size = sum(sizes(batch.tokens, len(batch)))
        self._read.wait()
        if len(self._host) < size:
            self._host = torch.empty(rounded(size, 2), dtype=torch.int32, pin_memory=self._device.type == "cuda")
        host = self._host[:size]
        write(batch, host.numpy())
        staged = torch.empty(size, dtype=torch.int32, device=self._device) if into is None else into
        staged.copy_(host, non_blocking=True)
        self._read.raise_here()
        return fields(staged, batch.tokens, len(batch))


class Downloads:
    """Results on their way to the host, through pinned memory that is reused; for one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arrived = Fence(device)
        self._host = torch.empty(0, dtype=torch.float32)
        self._pieces: list[torch.Tensor] = []
        self._reused = True  # the memory of the pieces

    def start(self, tensors: list[torch.Tensor]) -> None:
        """Begin to copy tensors of any float type, after the work that makes them.

        Returns before they are there, unless they are more than KEPT_BYTES.
        """
        self._arrived.wait()
        self._pieces = []
        for tensor, place in zip(tensors, self._places(tensors), strict=True):
            place.copy_(tensor.float(), non_blocking=True)  # a half would be converted by the host, after a wait
            self._pieces.append(place)
        self._arrived.raise_here()

    def wait(self) -> list[NDArray[np.float32]]:
        """The tensors of `start`, in float32 arrays of their own."""
        self._arrived.wait()
        pieces, self._pieces = self._pieces, []
        return [np.array(piece.numpy()) if self._reused else piece.numpy() for piece in pieces]

    def _places(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Memory on the host, float32 in their shapes."""
        counts = [tensor.numel() for tensor in tensors]
        size = sum(counts)
        self._reused = size * self._host.itemsize <= KEPT_BYTES
        if not self._reused:
            return [torch.empty(tensor.shape, dtype=torch.float32) for tensor in tensors]
        if len(self._host) < size:
            size = min(rounded(size, 2), KEPT_BYTES // self._host.itemsize)
            self._host = torch.empty(size, dtype=torch.float32, pin_memory=self._device.type == "cuda")
        pieces = self._host[: sum(counts)].split(counts)
        return [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors, strict=True)]
