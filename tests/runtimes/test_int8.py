"""int8 on the CPU: codes of weights, and vectors close to those of float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import lemni
from lemni.errors import ConfigError
from lemni.hub import ModelFiles
from lemni.ops.int8 import is_large_table, is_worth_it, quantize_rows

TEXTS = [
    "A cat sits on the mat.",
    "Stocks fell on Friday.",
    "a",
    "How do I reset my password?",
    "Die Katze schläft auf dem Sofa.",
    "word " * 120,
]


@pytest.fixture(scope="module")
def exact(minilm: ModelFiles) -> Iterator[lemni.Embedder]:
    with lemni.load(str(minilm.path), device="cpu") as model:
        yield model


@pytest.fixture(scope="module")
def rough(minilm: ModelFiles) -> Iterator[lemni.Embedder]:
    with lemni.load(str(minilm.path), device="cpu", dtype="int8") as model:
        yield model


@given(arrays(np.float32, (3, 8), elements=st.floats(-1e6, 1e6, width=32)))
def test_codes_are_half_a_step_off_at_most_and_zero_stays(weight: np.ndarray) -> None:
    found = quantize_rows(weight)
    scales = found.scales
    restored = (found.codes.astype(np.float64) - found.zeros) * scales
    # A step for the zero point's own rounding, which shifts one end of the range.
    assert (np.abs(restored - weight) <= scales * 1.001).all()
    assert (restored[weight == 0] == 0).all()


def test_small_matrices_stay_as_they_are() -> None:
    assert not is_worth_it((3, 384))
    assert not is_worth_it((384,))
    assert is_worth_it((384, 384))
    assert not is_large_table((512, 384))
    assert is_large_table((30522, 384))


def test_vectors_are_close_to_float32(exact: lemni.Embedder, rough: lemni.Embedder) -> None:
    cosines = (exact.embed(TEXTS) * rough.embed(TEXTS)).sum(axis=1)
    assert rough.card.dtype == "int8"
    assert cosines.mean() > 0.997
    assert cosines.min() > 0.99
    # They are computed in another way: a runtime that ignored int8 would give the same vectors.
    assert cosines.max() < 0.999999


def test_a_text_has_the_same_vector_in_any_company(rough: lemni.Embedder) -> None:
    together = rough.embed(TEXTS)
    alone = np.stack([rough.embed(text) for text in TEXTS])
    backwards = rough.embed(TEXTS[::-1])[::-1]
    # A last bit that differs in float32 may turn a code over, so not to the bit.
    assert (together * alone).sum(axis=1).min() > 0.9995
    assert (together * backwards).sum(axis=1).min() > 0.9995


def test_other_runtimes_refuse_it(minilm: ModelFiles) -> None:
    with pytest.raises(ConfigError, match=r"int8 is computed by the runtimes openvino and onnx, .* runs on torch"):
        lemni.load(str(minilm.path), runtime="torch", device="cpu", dtype="int8")
