"""Batches and results between the host and a device."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lemni.ops import torch_staging
from lemni.ops.torch_staging import Downloads, Uploads
from tests.runtimes.test_torch_packed import batch_of
from tests.runtimes.torch_emulation import CPU


def test_every_part_of_a_batch_arrives() -> None:
    batch = dataclasses.replace(batch_of(3, 1, 4, starts=True), token_types=np.arange(8, dtype=np.int32))
    uploads = Uploads(CPU)
    found = uploads.stage(batch)
    for name in ("ids", "positions", "token_types", "pool_starts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(batch, name))
    assert found.segments.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert (found.offsets.tolist(), found.first.tolist(), found.last.tolist()) == ([0, 3, 4, 8], [1, 3, 5], [2, 3, 7])
    uploads.stage(batch_of(50, 50))  # the host's memory is written again, what was staged is not
    np.testing.assert_array_equal(found.ids, batch.ids)


def test_results_are_arrays_of_their_own() -> None:
    downloads = Downloads(CPU)
    tensors = [torch.rand(3, 2), torch.rand(5, dtype=torch.float64).half(), torch.rand(0, 4)]
    downloads.start(tensors)
    first = downloads.wait()
    downloads.start([torch.zeros(40)])
    downloads.wait()
    for array, tensor in zip(first, tensors, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, tensor.float())


def test_little_memory_is_kept_for_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_staging, "KEPT_BYTES", 400)
    downloads = Downloads(CPU)
    found = []
    for sizes_of in ((60, 40), (101,), (3, 98), (90,), (7, 5)):
        tensors = [torch.rand(size, 1) for size in sizes_of]
        downloads.start(tensors)
        assert downloads._host.nbytes <= 400
        found.append((tensors, downloads.wait()))
        assert not downloads._pieces  # nothing large stays behind
    for tensors, arrays in found:
        for array, tensor in zip(arrays, tensors, strict=True):
            np.testing.assert_array_equal(array, tensor)
