"""Multi-vectors laid end to end, without padding, and how a caller's arrays and lists become that.

`PackedMultiVectors` is what scoring reads: lengths, and rows as float32 on demand. `MultiVectors` holds float32;
`compression` has the smaller ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemni.errors import InvalidRequest

Vectors: TypeAlias = NDArray[np.float32]
MultiVector: TypeAlias = ArrayLike
"""[tokens, dim]: an array of numbers, or nested lists of them. No tokens are fine, also as an empty list."""


class PackedMultiVectors(ABC):
    """Multi-vectors end to end, not changed after they were made. A slice is a view, an item is float32 [tokens, dim].

    Attributes:
        dim: length of a token's vector; 0 if there is no token.
        starts: int64 [items + 1], the row where each item begins, and the number of rows.
    """

    def __init__(self, lengths: ArrayLike, rows: int, dim: int) -> None:
        """`rows`: of all items, to check that `lengths` are theirs."""
        counts = np.asarray(lengths, dtype=np.int64)
        if counts.ndim != 1 or (counts < 0).any() or counts.sum() != rows:
            raise InvalidRequest(f"lengths must be whole numbers from 0 that sum to the {rows} rows", param="lengths")
        self.dim = dim
        self.starts: NDArray[np.int64] = np.concatenate(([0], np.cumsum(counts)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, chosen: int) -> Vectors: ...
    @overload
    def __getitem__(self, chosen: slice) -> PackedMultiVectors: ...
    def __getitem__(self, chosen: int | slice) -> Vectors | PackedMultiVectors:
        if not isinstance(chosen, slice):
            place = range(len(self))[chosen]
            return self.decode(int(self.starts[place]), int(self.starts[place + 1]))
        first, last, step = chosen.indices(len(self))
        if step != 1:
            raise InvalidRequest(f"multi-vectors are sliced in steps of 1, not of {step}")
        last = max(first, last)
        return self._view(first, last, int(self.starts[first]), int(self.starts[last]))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [items]: tokens of each."""
        return np.diff(self.starts)

    @property
    def tokens(self) -> int:
        return int(self.starts[-1])

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of what stands for the vectors; the lengths (8 an item) come on top."""

    @property
    def bytes_per_token(self) -> float:
        return self.nbytes / max(self.tokens, 1)

    @abstractmethod
    def decode(self, start: int, stop: int) -> Vectors:
        """Rows `start` to `stop` as float32 [stop - start, dim]."""

    @abstractmethod
    def _view(self, first: int, last: int, start: int, stop: int) -> PackedMultiVectors:
        """Items `first` to `last`, which are the rows `start` to `stop`."""


class MultiVectors(PackedMultiVectors):
    """Float32 multi-vectors, exact: `pack` makes them.

    Attributes:
        vectors: float32 [tokens of all items, dim].
    """

    def __init__(self, vectors: Vectors, lengths: ArrayLike) -> None:
        super().__init__(lengths, *vectors.shape)
        self.vectors = vectors

    @property
    def nbytes(self) -> int:
        return self.vectors.nbytes

    def decode(self, start: int, stop: int) -> Vectors:
        return self.vectors[start:stop]

    def _view(self, first: int, last: int, start: int, stop: int) -> PackedMultiVectors:
        return MultiVectors(self.vectors[start:stop], self.lengths[first:last])


def pack(multi_vectors: Seq[MultiVector] | MultiVector, *, named: str = "multi_vectors") -> MultiVectors:
    """One float32 array of all tokens. A single multi-vector is taken for a list of one, and may be not copied.

    Args:
        named: what messages call the list.

    Raises:
        InvalidRequest: an item is not numbers [tokens, dim], has another dim than those before it, or NaN or infinity.
    """
    if is_one(multi_vectors, named):
        return join([matrix(multi_vectors, named)], named, 0)
    listed: Seq[Any] = multi_vectors  # type: ignore[assignment]
    return join([matrix(item, f"{named}[{place}]") for place, item in enumerate(listed)], named, 0)


def join(matrices: Seq[Vectors], named: str, first: int) -> MultiVectors:
    """`pack` for what `matrix` made; `first` is the number of the first in messages."""
    dim = next((rows.shape[1] for rows in matrices if len(rows)), 0)
    for place, rows in enumerate(matrices, first):
        if len(rows) and rows.shape[1] != dim:
            raise InvalidRequest(
                f"{named}[{place}] has vectors of {rows.shape[1]} values, but those before it have {dim}", item=place
            )
    filled = [rows for rows in matrices if len(rows)]
    # One item is not copied: it may be larger than all the memory that a caller wants to spend.
    vectors = filled[0] if len(filled) == 1 else np.concatenate([np.zeros((0, dim), np.float32), *filled])
    return MultiVectors(vectors, [len(rows) for rows in matrices])


def matrix(item: Any, name: str) -> Vectors:
    """One multi-vector as finite float32 [tokens, dim]; an array that is that already is not copied."""
    try:
        array = np.asarray(item)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{name} is not [tokens, dim]: {error}") from error
    if array.size == 0 and array.ndim in (1, 2):
        return np.zeros((0, array.shape[-1] if array.ndim == 2 else 0), np.float32)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise InvalidRequest(f"{name} is {array.dtype} of shape {list(array.shape)}; it must be numbers [tokens, dim]")
    with np.errstate(over="ignore"):  # too large for float32: infinite, and refused as such
        rows = array.astype(np.float32, copy=False)
    # By the extremes: no temporary array of the same size.
    if not (np.isfinite(rows.min()) and np.isfinite(rows.max())):
        token = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise InvalidRequest(f"{name} has NaN or infinity in the vector of token {token}")
    return rows


def is_one(multi_vectors: Any, named: str) -> bool:
    """Whether this is one multi-vector, not several: a two-dimensional array, or a list of vectors.

    A list is judged by its first member that is not empty; nothing but empty lists are items without tokens.
    """
    if not isinstance(multi_vectors, Iterable | PackedMultiVectors):
        raise InvalidRequest(
            f"{named} is of type {type(multi_vectors).__name__}; it must be multi-vectors, each [tokens, dim]",
            param=named,
        )
    if isinstance(multi_vectors, PackedMultiVectors | Iterator):
        return False
    if hasattr(multi_vectors, "ndim"):
        return bool(multi_vectors.ndim == 2)
    for member in multi_vectors:
        if not isinstance(member, Seq) and not getattr(member, "ndim", 0):
            return False  # `matrix` refuses it
        if len(member):
            return np.ndim(member[0]) == 0
    return False
