"""The OpenVINO backend on the real default model's shape: precision, spare tokens, replicas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

import lemni
from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.hub import ModelFiles
from lemni.loading import load_model
from lemni.runtimes.base import Runtime
from lemni.types import PackedBatch, Sequence
from tests.families.decoders import run


@pytest.fixture(scope="module")
def runtime(minilm: ModelFiles) -> Runtime:
    return load_model(ModelSettings(model=str(minilm.path), device="cpu"), HubSettings(), EngineSettings()).new_runtime(
        0
    )


def sequences(lengths: list[int]) -> list[Sequence]:
    rng = np.random.default_rng(0)
    return [Sequence(rng.integers(1000, 30000, length).astype(np.int32)) for length in lengths]


def alone(runtime: Runtime, items: list[Sequence]) -> NDArray[np.float32]:
    return np.concatenate([run(runtime, [item], "dense") for item in items])


@pytest.mark.parametrize(
    "lengths", [[1] * 9, [2] + [1] * 14, [1] * 16, [8], [7], [256, *[16] * 16], [5, 3, 9, 1, 2, 2, 40, 33, 31]]
)
def test_spare_tokens_and_sequences_leave_no_trace(runtime: Runtime, lengths: list[int]) -> None:
    items = sequences(lengths)
    together = run(runtime, items, "dense")
    assert together.shape == (len(lengths), 384)
    np.testing.assert_allclose(together, alone(runtime, items), atol=1e-5)


def test_rows_are_not_written_again_by_the_next_batch(runtime: Runtime) -> None:
    asked = [dataclasses.replace(item, outputs=("dense", "tokens")) for item in sequences([5, 6])]
    first = runtime.run(PackedBatch.pack(asked))
    kept = [{name: array.copy() for name, array in outputs.items()} for outputs in first]
    runtime.run(PackedBatch.pack(sequences([7, 8])[::-1]))
    for outputs, copies in zip(first, kept, strict=True):
        assert outputs.keys() == copies.keys() == {"dense", "tokens"}
        for name, array in outputs.items():
            np.testing.assert_array_equal(array, copies[name])


def test_bfloat16_is_close_and_named_as_it_is(minilm: ModelFiles) -> None:
    texts = ["A cat sits on the mat.", "Stocks fell on Friday.", "a"]
    with lemni.load(str(minilm.path), device="cpu") as exact, lemni.load(str(minilm.path), dtype="bf16") as half:
        cosines = (exact.embed(texts) * half.embed(texts)).sum(1)
        assert half.card.dtype in ("bfloat16", "float32")  # float32 on CPUs that have no bfloat16
        assert cosines.min() > 0.999
        if half.card.dtype == "bfloat16":
            assert cosines.min() < 0.9999999


def test_float16_rounds_the_weights_and_says_that_it_saves_no_time(
    minilm: ModelFiles, caplog: pytest.LogCaptureFixture
) -> None:
    texts = ["A cat sits on the mat.", "Stocks fell on Friday."]
    reference = SentenceTransformer(str(minilm.path), device="cpu")
    for weight in reference.parameters():
        weight.data = weight.data.half().float()
    with lemni.load(str(minilm.path), device="cpu", dtype="float16") as half:
        assert half.card.dtype == "float16"
        np.testing.assert_allclose(half.embed(texts), reference.encode(texts), atol=1e-6)
    assert "CPUs do not compute in float16" in caplog.text


def test_replicas_side_by_side(minilm: ModelFiles) -> None:
    texts = [f"text number {number} {'word ' * (number % 11)}" for number in range(200)]
    with (
        lemni.load(str(minilm.path), device="cpu") as one,
        lemni.load(str(minilm.path), device="cpu", replicas=2, threads=2, max_batch_tokens=64) as two,
    ):
        np.testing.assert_allclose(two.embed(texts), one.embed(texts), atol=2e-6)
