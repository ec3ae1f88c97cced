"""Every runtime gives the outputs that somebody in the batch asks for, and no others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lemni.types import Output, PackedBatch, Sequence
from tests.families import decoders
from tests.tasks.tiny import load, sentence_model

LENGTHS = [5, 1, 9, 3]


@pytest.mark.parametrize("runtime", ["openvino", "torch", "transformers"])
def test_what_is_wanted_by_one_is_computed_in_one_pass_for_all(runtime: str, tmp_path: Path) -> None:
    from sentence_transformers.models import Pooling

    sentence_model(tmp_path, [Pooling(32)])
    replica = load(tmp_path, runtime=runtime).new_runtime(0)
    random = np.random.default_rng(0)
    items = [random.integers(4, 60, length, dtype=np.int32) for length in LENGTHS]
    asked: list[tuple[Output, ...]] = [("dense",), (), ("tokens", "dense"), ("tokens",)]
    batch = PackedBatch.pack([Sequence(ids, outputs) for ids, outputs in zip(items, asked, strict=True)])
    assert batch.wanted == {"dense", "tokens"}
    for ids, outputs, given in zip(items, asked, replica.run(batch), strict=True):
        assert set(outputs) <= given.keys() <= {"dense", "tokens"}
        alone = decoders.run(replica, [Sequence(ids)])
        assert alone.shape == (len(ids), 32)
        if "tokens" in given:
            np.testing.assert_allclose(given["tokens"], alone, atol=1e-5)
        np.testing.assert_allclose(given["dense"], alone.mean(0), atol=1e-5)
    for outputs in (("dense",), ("tokens",), ()):
        batch = PackedBatch.pack([Sequence(ids, outputs) for ids in items])
        assert [given.keys() for given in replica.run(batch)] == [set(outputs)] * len(items)
