"""MaxSim, and the best documents by it, in blocks: one matrix product each, its maxima, their sums.

Exhaustive and exact (float32). Memory is bounded by the block, whatever the number and length of documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.client.late_interaction.packed import (
    MultiVector,
    PackedMultiVectors,
    Vectors,
    is_one,
    join,
    matrix,
    pack,
)
from lemni.errors import InvalidRequest

BLOCK_BYTES = 32 * 2**20
"""Larger blocks are no faster; under 16 MiB the products get slower."""
QUERY_ROWS = 1024
"""Rows of queries in one product: enough for a full-speed one, and documents are decoded once for so many."""


Many: TypeAlias = Seq[MultiVector] | MultiVector | PackedMultiVectors


def maxsim(queries: Many, documents: Many, *, max_bytes: int = BLOCK_BYTES) -> NDArray[np.float32]:
    """Sum over a query's tokens of the largest dot product with a document's tokens.

    Vectors are taken as they are: for cosine they must have unit length, as servers send those of ColBERT models.
    A document without tokens scores -inf, so that it ranks last; a query without tokens scores 0 everywhere else.

    Args:
        queries, documents: lists of [tokens, dim] of any lengths (arrays or nested lists), or packed. One multi-vector,
            that is a 2-D array or a list of vectors, drops its axis from the result.
        max_bytes: of the temporary arrays, as far as one token of documents against 1,024 tokens of queries, or one
            longer query, fits.

    Returns:
        float32 [queries, documents]; [documents] for one query, [queries] for one document, a number for one of both.

    Raises:
        InvalidRequest: an item is not numbers [tokens, dim], has another dim, or NaN or infinity; it names the item.

    Reference: ColBERT, arXiv:2004.12832, section 3.3.
    """
    groups, dim = _query_groups(queries)
    limit = _tokens_at_once(groups, dim, max_bytes)
    found = [np.zeros((sum(map(len, groups)), 0), np.float32)]
    for block in _blocks(documents, limit, dim):
        none = np.zeros((0, len(block)), np.float32)
        found.append(np.concatenate([none, *(_scores(group, block, limit) for group in groups)]))
    scores = np.concatenate(found, axis=1)
    rows = 0 if is_one(queries, "queries") else slice(None)
    columns = 0 if is_one(documents, "documents") else slice(None)
    chosen: NDArray[np.float32] = scores[rows, columns]
    return chosen


def top_k(
    queries: Many,
    documents: Many | Iterator[Many],
    k: int,
    *,
    max_bytes: int = BLOCK_BYTES,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The `k` documents of each query with the highest MaxSim, the best first; of equal ones the earlier.

    Args:
        queries: as for `maxsim`.
        documents: as for `maxsim`, or an iterator of such blocks, read once and one block at a time.
        k: fewer come back where there are fewer documents.
        max_bytes: as for `maxsim`.

    Returns:
        Places of documents, counted through all blocks, int64 [queries, k], and their scores, float32 [queries, k];
        both [k] for one query.

    Raises:
        InvalidRequest: as for `maxsim`, or `k` is not a whole number from 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InvalidRequest(f"k is {k!r}; it must be a whole number from 1", param="k")
    groups, dim = _query_groups(queries)
    limit = _tokens_at_once(groups, dim, max_bytes)
    best = [(np.zeros((len(group), 0), np.int64), np.zeros((len(group), 0), np.float32)) for group in groups]
    seen = 0
    for block in _blocks(documents, limit, dim):
        best = [
            _merged(*kept, _scores(group, block, limit), seen, int(k)) for kept, group in zip(best, groups, strict=True)
        ]
        seen += len(block)
    if not groups:
        return np.zeros((0, min(k, seen)), np.int64), np.zeros((0, min(k, seen)), np.float32)
    rows = 0 if is_one(queries, "queries") else slice(None)
    return np.concatenate([places for places, _ in best])[rows], np.concatenate([scores for _, scores in best])[rows]


def _merged(
    places: NDArray[np.int64], scores: NDArray[np.float32], new: NDArray[np.float32], seen: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best `k` of what was kept, each [queries, kept], and the scores of the documents from number `seen` on."""
    numbers = np.broadcast_to(np.arange(seen, seen + new.shape[1]), new.shape)
    places, scores = np.concatenate((places, numbers), axis=1), np.concatenate((scores, new), axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # what was kept stands before what is new
    return np.take_along_axis(places, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _query_groups(queries: Many) -> tuple[list[PackedMultiVectors], int]:
    """Queries in groups of `QUERY_ROWS` rows at most (a longer one is alone), and their dim."""
    packed = queries if isinstance(queries, PackedMultiVectors) else pack(queries, named="queries")
    return [packed[first:last] for first, last in _spans(packed.lengths, QUERY_ROWS)], packed.dim


def _tokens_at_once(groups: list[PackedMultiVectors], dim: int, max_bytes: int) -> int:
    """Of documents, in one product: each has a row, and a product and at most a maximum with every row of a group."""
    values = 2 * max((group.tokens for group in groups), default=0) + dim
    return max(max_bytes // (4 * max(values, 1)), 1)


def _scores(group: PackedMultiVectors, block: PackedMultiVectors, limit: int) -> NDArray[np.float32]:
    """float32 [queries, documents]."""
    scores = np.zeros((len(group), len(block)), np.float32)
    scores[:, block.lengths == 0] = -np.inf
    # `reduceat` gives an empty span the value at its start instead of nothing, so it must not see any.
    queries, documents = np.flatnonzero(group.lengths), np.flatnonzero(block.lengths)
    if len(queries) and len(documents):
        largest = _largest(group.decode(0, group.tokens), block, block.starts[documents], limit)
        scores[np.ix_(queries, documents)] = np.add.reduceat(largest, group.starts[queries], axis=0)
    return scores


def _largest(rows: Vectors, block: PackedMultiVectors, starts: NDArray[np.int64], limit: int) -> Vectors:
    """float32 [rows, documents]: the largest product of each row with the tokens of each document, which `starts`."""
    if block.tokens <= limit:
        products: Vectors = rows @ block.decode(0, block.tokens).T
        return np.maximum.reduceat(products, starts, axis=1)
    largest = np.full((len(rows), 1), -np.inf, np.float32)  # a document over the limit is alone in its block
    for start in range(0, block.tokens, limit):
        part = block.decode(start, min(start + limit, block.tokens))
        np.maximum(largest, (rows @ part.T).max(axis=1, keepdims=True), out=largest)
    return largest


def _blocks(documents: Any, limit: int, dim: int) -> Iterator[PackedMultiVectors]:
    """Documents in blocks of `limit` tokens at most; a longer one is alone."""
    waiting: list[Vectors] = []
    seen = tokens = 0
    for part in _parts(documents, dim):
        alone = isinstance(part, PackedMultiVectors)
        if waiting and (alone or tokens + len(part) > limit):
            yield join(waiting, "documents", seen - len(waiting))
            waiting, tokens = [], 0
        if isinstance(part, PackedMultiVectors):
            yield from (part[first:last] for first, last in _spans(part.lengths, limit))
            seen += len(part)
        else:
            waiting.append(part)
            tokens += len(part)
            seen += 1
    if waiting:
        yield join(waiting, "documents", seen - len(waiting))


def _parts(documents: Any, dim: int) -> Iterator[PackedMultiVectors | Vectors]:
    """What the caller gave, one after the other: packed documents as they are, others one by one."""
    seen = 0
    for given in documents if isinstance(documents, Iterator) else [documents]:
        if isinstance(given, PackedMultiVectors):
            _check_dim(given.dim, dim, seen)
            yield given
            seen += len(given)
            continue
        for item in [given] if is_one(given, "documents") else given:
            rows = matrix(item, f"documents[{seen}]")
            _check_dim(rows.shape[1] if len(rows) else 0, dim, seen)
            yield rows
            seen += 1


def _check_dim(own: int, dim: int, place: int) -> None:
    """0 is the dim of what has no tokens."""
    if own and dim and own != dim:
        raise InvalidRequest(
            f"documents[{place}] has vectors of {own} values, but those of the queries have {dim}",
            item=place,
            param="documents",
        )


def _spans(lengths: Seq[int] | NDArray[np.int64], limit: int) -> Iterator[tuple[int, int]]:
    """Spans of consecutive items of `limit` tokens at most; a longer item is alone."""
    first, tokens = 0, 0
    for place, length in enumerate(lengths):
        if place > first and tokens + length > limit:
            yield first, place
            first, tokens = place, 0
        tokens += int(length)
    if first < len(lengths):
        yield first, len(lengths)
