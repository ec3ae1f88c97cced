"""Quantised and pooled multi-vectors: what they decode to, what they rank, against sentence-transformers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers.multi_vector_encoder.modules.token_pooling import HierarchicalTokenPooling
from sentence_transformers.util.quantization import quantize_embeddings

from lemni.client.late_interaction import maxsim, pack, pool_tokens, quantize, top_k
from lemni.errors import InvalidRequest, MissingExtra
from tests.client.test_late_interaction import QUERIES, multi_vectors

LENGTHS = [5, 0, 300, 1, 17, 0, 64]
PRECISIONS: Any = ["int8", "binary"]


@pytest.mark.parametrize("dim", [24, 21])  # 21: the last byte of signs is not full
def test_int8_is_off_by_half_a_step(dim: int) -> None:
    documents = multi_vectors(1, LENGTHS, dim)
    coded = quantize([1000 * document for document in documents], "int8")
    assert (len(coded), coded.tokens, coded.dim, coded.bytes_per_token) == (7, 387, dim, dim + 4)
    whole = 1000 * np.concatenate(documents)
    steps = np.abs(whole).max(axis=1, keepdims=True) / 127
    assert (np.abs(coded.decode(0, 387) - whole) <= steps * 0.5001).all()
    assert np.abs(coded.decode(3, 5) - whole[3:5]).max() > 0


@pytest.mark.parametrize("dim", [24, 21])
def test_binary_is_the_signs(dim: int) -> None:
    documents = multi_vectors(2, LENGTHS, dim)
    coded = quantize(documents, "binary")
    assert (len(coded), coded.tokens, coded.dim, coded.bytes_per_token) == (7, 387, dim, 3)
    whole = np.concatenate(documents)
    decoded = coded.decode(0, 387)
    np.testing.assert_array_equal(decoded > 0, whole > 0)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(coded.codes, quantize_embeddings(whole, "ubinary"))


@pytest.mark.parametrize("max_bytes", [4096, 2**25])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_scores_are_those_of_the_decoded(precision: Any, max_bytes: int) -> None:
    coded = quantize(multi_vectors(3, LENGTHS), precision)
    expected = maxsim(QUERIES, list(coded))
    np.testing.assert_allclose(maxsim(QUERIES, coded, max_bytes=max_bytes), expected, atol=1e-5)
    np.testing.assert_allclose(maxsim(QUERIES, coded[2:5]), expected[:, 2:5], atol=1e-5)
    places, scores = top_k(QUERIES, iter([coded[:3], coded[3:]]), 4, max_bytes=max_bytes)
    assert places.tolist() == np.argsort(-expected, axis=1, kind="stable")[:, :4].tolist()
    np.testing.assert_allclose(scores, np.sort(expected)[:, ::-1][:, :4], atol=1e-5)


def test_int8_ranks_as_floats_do() -> None:
    documents = multi_vectors(4, [20] * 300, 128)
    noise = multi_vectors(5, [8] * 50, 128)
    queries = [document[:8] + 0.7 * other for document, other in zip(documents, noise, strict=False)]
    exact, _ = top_k(queries, documents, 5)
    assert exact[:, 0].tolist() == list(range(50))
    int8, _ = top_k(queries, quantize(documents, "int8"), 5)
    assert np.mean(int8 == exact) > 0.97
    binary, _ = top_k(queries, quantize(documents, "binary"), 5)
    assert binary[:, 0].tolist() == list(range(50))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_number_at_once_is_the_same(precision: Any) -> None:
    documents = multi_vectors(6, [9000, 0, 9000])
    together = quantize(documents, precision)
    alone = [quantize([document], precision) for document in documents]
    np.testing.assert_array_equal(together.codes, np.concatenate([alone[0].codes, alone[2].codes]))
    np.testing.assert_array_equal(quantize(pack(documents), precision).codes, together.codes)
    np.testing.assert_array_equal(quantize(documents[0], precision).codes, alone[0].codes)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zeros_and_nothing(precision: Any) -> None:
    assert len(quantize([], precision)) == 0
    assert maxsim(QUERIES, quantize([[], []], precision)).tolist() == [[-np.inf, -np.inf]] * 4
    zeros = maxsim(QUERIES, quantize([np.zeros((2, 24))], precision))
    assert np.isfinite(zeros).all()
    assert precision == "binary" or (zeros == 0).all()
    tiny = quantize([np.full((1, 4), 1e-44)], "int8")
    assert np.abs(tiny.decode(0, 1)).max() < 1e-38


def test_precision_is_one_of_two() -> None:
    with pytest.raises(InvalidRequest, match="precision is 'int4'"):
        quantize([], "int4")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"multi_vectors\[0\] has NaN"):
        quantize([[[np.nan]]], "int8")


def topical(seed: int, tokens: int, dim: int = 32) -> NDArray[np.float32]:
    """Vectors around a few directions, as tokens of a text are."""
    random = np.random.default_rng(seed)
    topics = random.standard_normal((6, dim))
    rows = topics[random.integers(0, 6, tokens)] + 0.6 * random.standard_normal((tokens, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("protected", [0, 1, 3, 50])
@pytest.mark.parametrize("factor", [1, 1.5, 2, 3, 100])
def test_pooled_as_by_sentence_transformers(factor: float, protected: int) -> None:
    reference = HierarchicalTokenPooling(factor, num_protected_tokens=protected)
    for tokens in (1, 2, 3, 7, 40, 150):
        vectors = topical(tokens, tokens)
        pooled = pool_tokens(vectors, factor, protected_tokens=protected)
        kept = min(protected, tokens)
        assert pooled.dtype == np.float32
        assert len(pooled) == kept + min(max(int((tokens - kept) / factor), 1), tokens - kept)
        np.testing.assert_allclose(pooled, reference.pool_one(torch.from_numpy(vectors)).numpy(), atol=1e-6)
        np.testing.assert_array_equal(pooled, pool_tokens(vectors.tolist(), factor, protected_tokens=protected))


def test_pooled_vectors_are_the_means_of_clusters() -> None:
    # Three directions, some tokens each: the clusters are known.
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, 30)
    vectors = np.eye(3, 8)[kinds] * random.uniform(0.5, 2, (30, 1)) + random.normal(0, 0.01, (30, 8))
    pooled = pool_tokens(vectors, 10, protected_tokens=0)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = np.stack([units[kinds == kind].mean(axis=0) for kind in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled[np.argsort(pooled.argmax(axis=1))], means, atol=1e-5)


def test_pooling_equal_and_missing_tokens() -> None:
    assert pool_tokens(np.zeros((0, 8)), 2).shape == (0, 8)
    equal = pool_tokens(np.ones((9, 4)), 2, protected_tokens=0)  # one point, wherever it is cut
    np.testing.assert_allclose(equal, 0.5, rtol=1e-6)
    assert not pool_tokens(np.zeros((6, 4)), 2).any()
    protected = pool_tokens([[3.0, 4.0], [1.0, 0.0], [1.0, 0.1]], 2)
    np.testing.assert_allclose(protected[0], [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "factor", "protected", "message"),
    [
        (np.ones((3, 2)), 0.5, 0, "factor is 0.5"),
        (np.ones((3, 2)), True, 0, "factor is True"),
        (np.ones((3, 2)), float("nan"), 0, "factor is nan"),
        (np.ones((3, 2)), 2, -1, "protected_tokens is -1"),
        (np.ones((3, 2)), 2, 1.0, r"protected_tokens is 1\.0"),
        ([np.ones((3, 2))], 2, 0, r"multi_vector is float64 of shape \[1, 3, 2\]"),
        ([[1.0, np.nan]], 2, 0, "multi_vector has NaN"),
    ],
)
def test_what_pooling_refuses(vectors: Any, factor: Any, protected: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        pool_tokens(vectors, factor, protected_tokens=protected)


def test_pooling_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(MissingExtra, match=r"lemni\[late-interaction\]"):
        pool_tokens(topical(0, 10), 2)
    assert len(pool_tokens(topical(0, 10), 1)) == 10
