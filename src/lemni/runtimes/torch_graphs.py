"""Small batches as CUDA graphs: the GPU's work of a whole pass, recorded once and given to it in one call.

A pass of a few tokens takes the GPU less time than Python needs to name its hundreds of kernels. A recording has fixed
shapes and addresses, so batches are filled up to a few sizes: tokens that belong to nobody form a sequence of their own
at the end, and the places of sequences that are left are empty.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from lemni.ops.torch import NotPacked, TorchInputs
from lemni.ops.torch_staging import Uploads, sizes
from lemni.types import TOKEN_OUTPUTS, Output, PackedBatch

Work: TypeAlias = Callable[[], list[torch.Tensor]]

Capture: TypeAlias = Callable[[Work], tuple[Callable[[], None], list[torch.Tensor]]]
"""Record what some work does on the device: a function that does it again, and the results, which that writes anew."""

logger = logging.getLogger(__name__)

TOKENS = (16, 32, 64, 128, 256)
_TOKENS_PER_SEQUENCE = 4


class Bucket(NamedTuple):
    """The shape of a recording."""

    tokens: int
    sequences: int


def bucket_of(batch: PackedBatch) -> Bucket | None:
    """The smallest shape that a batch fits in; None for a batch that is too large, or that no recording computes."""
    if batch.unattended is not None:
        return None
    for tokens in TOKENS:
        bucket = Bucket(tokens, tokens // _TOKENS_PER_SEQUENCE + 1)
        if batch.tokens <= tokens and len(batch) + (batch.tokens < tokens) <= bucket.sequences:
            return bucket
    return None


def filled(batch: PackedBatch, bucket: Bucket) -> PackedBatch:
    """The batch with tokens 0 at position 0 and sequences, one of them of those tokens, up to a shape."""
    spare, empty = bucket.tokens - batch.tokens, bucket.sequences - len(batch)

    def fill(array: NDArray[np.int32], count: int) -> NDArray[np.int32]:
        return np.concatenate([array, np.zeros(count, dtype=np.int32)])

    lengths = fill(batch.lengths, empty)
    if spare:
        lengths[len(batch)] = spare
    return dataclasses.replace(
        batch,
        ids=fill(batch.ids, spare),
        positions=fill(batch.positions, spare),
        token_types=fill(batch.token_types, spare),
        lengths=lengths,
        pool_starts=fill(batch.pool_starts, empty),
    )


class _Recording(NamedTuple):
    staged: torch.Tensor
    replay: Callable[[], None]
    results: list[torch.Tensor]


class Graphs:
    """The recordings of one model on one device, made when a shape comes for the second time.

    Args:
        forward: (inputs, outputs by name) -> those outputs; must ask nothing of its inputs but the fields.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        forward: Callable[[TorchInputs, Seq[Output]], list[torch.Tensor]],
        capture: Capture,
    ) -> None:
        self._device, self._dtype = device, dtype
        self._forward = forward
        self._capture = capture
        self._recordings: dict[tuple[Bucket, tuple[Output, ...]], _Recording | None] = {}
        self._met: set[tuple[Bucket, tuple[Output, ...]]] = set()

    def __call__(self, batch: PackedBatch, names: Seq[Output], uploads: Uploads) -> list[torch.Tensor] | None:
        """The outputs by these names, which the next call overwrites; None if the batch must be computed eagerly.

        Raises:
            torch.OutOfMemoryError: recording a batch that could be smaller. It is tried again with the next.
        """
        bucket = bucket_of(batch)
        if bucket is None:
            return None
        key = bucket, tuple(names)
        if key not in self._met:  # once eagerly, so that libraries have set themselves up
            self._met.add(key)
            return None
        padded = filled(batch, bucket)
        if key not in self._recordings:
            try:
                self._recordings[key] = self._record(padded, bucket, names, uploads)
            except torch.OutOfMemoryError:
                if len(batch) > 1:  # the engine tries a smaller one
                    raise
                return None
        recording = self._recordings[key]
        if recording is None:
            return None
        uploads.stage(padded, into=recording.staged)
        recording.replay()
        return [
            result[: batch.tokens if name in TOKEN_OUTPUTS else len(batch)]
            for name, result in zip(names, recording.results, strict=True)
        ]

    def _record(self, padded: PackedBatch, bucket: Bucket, names: Seq[Output], uploads: Uploads) -> _Recording | None:
        staged = torch.empty(sum(sizes(*bucket)), dtype=torch.int32, device=self._device)
        found = uploads.stage(padded, into=staged)

        def work() -> list[torch.Tensor]:
            # Nothing of the batch itself: the longest sequence may be all of the tokens.
            inputs = TorchInputs(
                padded, self._device, self._dtype, staged=found, longest=bucket.tokens, packed_only=True
            )
            return self._forward(inputs, names)

        try:
            work()
            replay, results = self._capture(work)
        except torch.OutOfMemoryError:  # says nothing of graphs: the next batch tries again
            raise
        except (RuntimeError, NotPacked) as error:
            if isinstance(error.__context__, torch.OutOfMemoryError):  # ending the recording failed after it
                raise torch.OutOfMemoryError(str(error.__context__)) from error
            logger.warning("no graph, batches of up to %d tokens are computed eagerly: %s", bucket.tokens, error)
            return None
        logger.debug("recorded batches of up to %d tokens and %d sequences", *bucket)
        return _Recording(staged, replay, results)


def cuda_capture(device: torch.device) -> Capture:
    """CUDA graphs that share their memory: one is replayed at a time, and its results are copied before the next."""
    pool = torch.cuda.graph_pool_handle()
    # One for all recordings, as cuBLAS keeps memory for each stream; the one that torch has may be another device's.
    stream = torch.cuda.Stream(device)

    def capture(work: Work) -> tuple[Callable[[], None], list[torch.Tensor]]:
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(device),
            # torch.cuda.graph leaves the thread on its stream when a recording fails: this puts it back.
            torch.cuda.stream(torch.cuda.current_stream(device)),
            # Other threads may allocate and wait on the device while this one records.
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            results = work()
        return graph.replay, results

    return capture
