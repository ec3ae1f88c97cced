"""MaxSim against a loop over pairs and sentence-transformers; the best k; what is refused."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers.util import maxsim as reference_maxsim

from lemni.client.late_interaction import MultiVectors, maxsim, pack, quantize, top_k
from lemni.errors import InvalidRequest

Vectors = NDArray[np.float32]
DIM = 24
SMALL = 4096  # bytes: many blocks, and documents cut in parts


def multi_vectors(seed: int, lengths: list[int], dim: int = DIM) -> list[Vectors]:
    """Of unit length, as models give them."""
    random = np.random.default_rng(seed)
    drawn = [random.standard_normal((length, dim)).astype(np.float32) for length in lengths]
    return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in drawn]


QUERIES = multi_vectors(0, [3, 1, 32, 7])
DOCUMENTS = multi_vectors(1, [5, 1, 300, 17, 2, 64, 1, 1])


def by_pairs(queries: list[Vectors], documents: list[Vectors]) -> NDArray[np.float64]:
    """The definition, in float64."""
    return np.array(
        [[sum(max(float(q @ d) for d in b) for q in a) for b in documents] for a in queries], dtype=np.float64
    )


@pytest.mark.parametrize("max_bytes", [1, SMALL, 2**25])
def test_is_the_definition(max_bytes: int) -> None:
    scores = maxsim(QUERIES, DOCUMENTS, max_bytes=max_bytes)
    assert scores.dtype == np.float32
    assert scores.flags.c_contiguous
    np.testing.assert_allclose(scores, by_pairs(QUERIES, DOCUMENTS), atol=1e-5, rtol=0)


def test_is_sentence_transformers() -> None:
    queries, documents = (multi_vectors(seed, list(range(1, 60, 3)), 128) for seed in (2, 3))
    expected = reference_maxsim([torch.from_numpy(q) for q in queries], [torch.from_numpy(d) for d in documents])
    np.testing.assert_allclose(maxsim(queries, documents), expected.numpy(), atol=1e-5, rtol=0)


def test_any_group_of_queries_and_any_order_of_documents() -> None:
    queries = multi_vectors(4, [700, 2, 600, 1500, 1])  # more rows than one product takes
    whole = maxsim(queries, DOCUMENTS)
    np.testing.assert_allclose(whole, by_pairs(queries, DOCUMENTS), atol=2e-3, rtol=1e-6)
    for place, query in enumerate(queries):
        np.testing.assert_allclose(maxsim([query], DOCUMENTS)[0], whole[place], rtol=1e-5)
    np.testing.assert_allclose(maxsim(queries, DOCUMENTS[::-1]), whole[:, ::-1], rtol=1e-5)


def test_negative_similarities_stay() -> None:
    # A document that is padded with zeros would score 0.
    assert maxsim([[[1.0, 0.0], [0.0, 1.0]]], [[[-1.0, -0.5]], [[1.0, 2.0]]]).tolist() == [[-1.5, 3.0]]


def test_one_multi_vector_drops_its_axis() -> None:
    whole = maxsim(QUERIES, DOCUMENTS)
    for query in (QUERIES[0], QUERIES[0].tolist(), list(QUERIES[0])):
        np.testing.assert_allclose(maxsim(query, DOCUMENTS), whole[0], rtol=1e-6)
    np.testing.assert_allclose(maxsim(QUERIES, DOCUMENTS[3]), whole[:, 3], rtol=1e-6)
    number = maxsim(QUERIES[2], DOCUMENTS[3].tolist())
    assert isinstance(number, np.float32)
    assert f"{number:.3f}" == f"{whole[2, 3]:.3f}"
    assert maxsim(np.stack(DOCUMENTS[:1]), DOCUMENTS).shape == (1, 8)  # three-dimensional: a list of one


@pytest.mark.parametrize("max_bytes", [SMALL, 2**25])
def test_documents_without_tokens_are_last(max_bytes: int) -> None:
    none: list[Any] = [np.zeros((0, DIM), np.float32), np.zeros((0, 0)), []]
    documents = [none[0], *DOCUMENTS[:2], none[1], none[2], *DOCUMENTS[2:], none[0]]
    scores = maxsim(QUERIES, documents, max_bytes=max_bytes)
    empty = np.isin(np.arange(len(documents)), [0, 3, 4, len(documents) - 1])
    assert (scores[:, empty] == -np.inf).all()
    np.testing.assert_allclose(scores[:, ~empty], by_pairs(QUERIES, DOCUMENTS), atol=1e-5, rtol=0)
    places, best = top_k(QUERIES, documents, len(documents), max_bytes=max_bytes)
    assert places[:, -4:].tolist() == [[0, 3, 4, len(documents) - 1]] * len(QUERIES)
    assert (best[:, -4:] == -np.inf).all()


def test_queries_without_tokens() -> None:
    queries: list[Any] = [[], QUERIES[0], np.zeros((0, DIM)), []]
    scores = maxsim(queries, [*DOCUMENTS, []])
    assert (scores[[0, 2, 3], :-1] == 0).all()
    assert (scores[:, -1] == -np.inf).all()
    np.testing.assert_allclose(scores[1, :-1], maxsim(QUERIES[0], DOCUMENTS), rtol=1e-6)


def test_nothing_at_all() -> None:
    assert maxsim([], DOCUMENTS).shape == (0, 8)
    assert maxsim(QUERIES, []).shape == (4, 0)
    assert maxsim([], []).shape == (0, 0)
    assert maxsim([[], []], [[]]).tolist() == [[-np.inf], [-np.inf]]
    assert top_k([], DOCUMENTS, 3)[0].shape == (0, 3)
    assert top_k(QUERIES, [], 3)[1].shape == (4, 0)
    assert top_k(QUERIES, iter([]), 3)[1].shape == (4, 0)


def test_packed_is_the_same() -> None:
    packed = pack(DOCUMENTS)
    assert (len(packed), packed.dim, packed.tokens, packed.bytes_per_token) == (8, DIM, 391, 4 * DIM)
    assert packed.lengths.tolist() == [len(document) for document in DOCUMENTS]
    expected = maxsim(QUERIES, DOCUMENTS)
    np.testing.assert_array_equal(maxsim(pack(QUERIES), packed), expected)
    np.testing.assert_allclose(maxsim(QUERIES, packed[2:5]), expected[:, 2:5], rtol=1e-5)
    assert maxsim(QUERIES, packed[5:2]).shape == (4, 0)
    assert [len(rows) for rows in packed] == packed.lengths.tolist()
    np.testing.assert_array_equal(packed[-3], DOCUMENTS[-3])
    np.testing.assert_array_equal(pack(packed[2:]).vectors, packed[2:].decode(0, 385))
    with pytest.raises(InvalidRequest, match="steps of 1"):
        packed[::2]
    for lengths in ([390], [392, -1], [[391]]):
        with pytest.raises(InvalidRequest, match="lengths must be whole numbers from 0 that sum to the 391 rows"):
            MultiVectors(packed.vectors, lengths)


def test_other_numbers_are_taken_as_float32() -> None:
    documents: list[Any] = [
        document.astype(dtype) for document, dtype in zip(DOCUMENTS, ("f2", "f4", "f8"), strict=False)
    ]
    np.testing.assert_allclose(maxsim(QUERIES, documents), maxsim(QUERIES, DOCUMENTS[:3]), atol=0.05)
    assert maxsim([[[1, 2]]], [np.array([[3, 4]], np.int8)]).tolist() == [[11]]
    np.testing.assert_array_equal(maxsim(QUERIES, torch.from_numpy(DOCUMENTS[2])), maxsim(QUERIES, DOCUMENTS[2]))


@pytest.mark.parametrize("max_bytes", [SMALL, 2**25])
@pytest.mark.parametrize("k", [1, 3, 8, 100])
def test_top_k_is_maxsim_sorted(k: int, max_bytes: int) -> None:
    scores = by_pairs(QUERIES, DOCUMENTS)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    packed = pack(DOCUMENTS)
    blocks: list[Any] = [DOCUMENTS[:3], packed[3:5], DOCUMENTS[5], DOCUMENTS[6:]]  # DOCUMENTS[5]: a block of one
    for documents in (DOCUMENTS, packed, iter(DOCUMENTS), iter(blocks)):
        places, best = top_k(QUERIES, documents, k, max_bytes=max_bytes)
        assert (places.dtype, best.dtype) == (np.int64, np.float32)
        assert places.tolist() == order.tolist()
        np.testing.assert_allclose(best, np.take_along_axis(scores, order, axis=1), atol=1e-5)
    places, best = top_k(QUERIES[1], DOCUMENTS, k)
    assert places.tolist() == order[1].tolist()
    assert best.shape == places.shape


@pytest.mark.parametrize("max_bytes", [1, SMALL, 2**25])
def test_equal_scores_come_in_order(max_bytes: int) -> None:
    # Small whole numbers: the products are exact whatever the block.
    documents = [[[1.0, 0.0]] * (1 + place % 3) if place % 4 else [[0.0, 2.0]] for place in range(40)]
    places, scores = top_k([[[1.0, 0.0]]], documents, 35, max_bytes=max_bytes)
    ones = [place for place in range(40) if place % 4]
    assert places[0].tolist() == [*ones, 0, 4, 8, 12, 16]
    assert scores[0].tolist() == [1.0] * 30 + [0.0] * 5


def test_memory_is_bounded() -> None:
    def peak(max_bytes: int) -> int:
        tracemalloc.start()
        places, _ = top_k(queries, documents, 5, max_bytes=max_bytes)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert places.shape == (20, 5)
        return taken

    queries = multi_vectors(5, [32] * 20)  # all products: 640 x 30,000 x 4 bytes, 77 MB
    documents = multi_vectors(6, [100] * 200 + [10_000])
    assert peak(2**20) < 2 * 2**20
    assert peak(2**23) < 1.5 * 2**23


@pytest.mark.parametrize(
    ("queries", "documents", "message"),
    [
        (
            QUERIES,
            [*DOCUMENTS[:2], np.ones((2, DIM + 1))],
            r"documents\[2\] has vectors of 25 values, but those of the queries have 24",
        ),
        ([*QUERIES, np.ones((2, 3))], DOCUMENTS, r"queries\[4\] has vectors of 3 values, but those before it have 24"),
        (QUERIES, [np.ones((2, 3))], r"documents\[0\] has vectors of 3 values"),
        (QUERIES, quantize([np.ones((2, 3))], "int8"), r"documents\[0\] has vectors of 3 values"),
        (QUERIES, [DOCUMENTS[0], np.full((2, DIM), np.nan)], r"documents\[1\] has NaN or infinity .* token 0"),
        ([[[1.0, 2.0], [np.inf, 0.0]]], DOCUMENTS, r"queries\[0\] has NaN or infinity in the vector of token 1"),
        ([[[1.0, 2.0], [0.0, 1e300]]], DOCUMENTS, r"queries\[0\] has NaN or infinity"),
        (QUERIES, [DOCUMENTS[0], [[1.0, 2.0], [3.0]]], r"documents\[1\] is not \[tokens, dim\]"),
        (QUERIES, [DOCUMENTS[0], DOCUMENTS[0][0]], r"documents\[1\] is float32 of shape \[24\]"),
        (QUERIES, [0.5, 0.25], r"documents\[0\] is float64 of shape \[\]"),
        (np.ones(DIM), DOCUMENTS, r"queries\[0\] is float64 of shape \[\]"),
        (QUERIES, [[["a", "b"]]], r"documents\[0\] is <U1"),
        (QUERIES, ["a text"], r"documents\[0\] is <U6"),
        (QUERIES, [{"a": 1}], r"documents\[0\] is object"),
        (QUERIES, [np.ones((2, DIM), np.complex64)], r"documents\[0\] is complex64"),
        (QUERIES, None, "documents is of type NoneType"),
        (3, DOCUMENTS, "queries is of type int"),
    ],
)
def test_what_is_refused(queries: Any, documents: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        maxsim(queries, documents)
    with pytest.raises(InvalidRequest, match=message):
        top_k(queries, documents, 2, max_bytes=SMALL)


def test_items_are_counted_through_blocks() -> None:
    blocks: list[Any] = [DOCUMENTS[:3], pack(DOCUMENTS[:2]), [DOCUMENTS[0], np.full((1, DIM), np.inf)]]
    with pytest.raises(InvalidRequest, match=r"documents\[6\] has NaN"):
        top_k(QUERIES, iter(blocks), 2)
    with pytest.raises(InvalidRequest, match=r"documents\[5\] has vectors of 2 values") as caught:
        top_k(QUERIES, iter([*blocks[:2], pack([[[1.0, 2.0]]])]), 2)
    assert caught.value.item == 5


@pytest.mark.parametrize("k", [0, -1, 1.5, True, None, "3"])
def test_k_is_a_whole_number(k: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"k is .* a whole number from 1"):
        top_k(QUERIES, DOCUMENTS, k)
