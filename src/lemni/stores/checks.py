"""What is checked of a page before a remote store sees any of it, so that a bad entry is named and nothing half
written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import StoreError
from lemni.stores.base import Page, Schema
from lemni.types import SparseVector


def dense_rows(page: Page, schema: Schema, store: str, *, zeros: bool) -> NDArray[np.float32]:
    """The vectors of a page, [entries, dimensions]. `store` is its name for messages.

    Raises:
        StoreError: of another width or kind, or a row is not finite or, unless `zeros`, all zeros; names the id.
    """
    try:
        rows = np.asarray(page.vectors, dtype=np.float32)
    except (TypeError, ValueError):
        raise StoreError(f"{store}: holds dense vectors, and not those it was given") from None
    if rows.shape != (len(page), schema.dimensions):
        raise StoreError(f"{store}: holds vectors of {schema.dimensions} dimensions, not of {rows.shape[-1]}")
    for bad, why in ((~np.isfinite(rows).all(axis=1), "is not finite"), (~rows.any(axis=1), "is all zeros")):
        if bad.any() and not (zeros and why == "is all zeros"):
            raise StoreError(f"{store}: id {page.ids[int(bad.argmax())]!r}: its vector {why}, and cannot be held")
    return rows


def sparse_rows(page: Page, store: str, *, most: int | None = None) -> list[SparseVector]:
    """The sparse vectors of a page.

    Raises:
        StoreError: one is dense, has no term or more than `most`, or a weight that is not finite and above zero; names
            the id.
    """
    rows: list[SparseVector] = []
    for name, vector in zip(page.ids, page.vectors if page.vectors is not None else (), strict=True):
        if not isinstance(vector, SparseVector):
            raise StoreError(f"{store}: holds sparse vectors, and that of id {name!r} is none")
        if not 0 < len(vector.indices) <= (most or len(vector.indices)):
            limit = f"1 to {most}" if most else "at least 1"
            raise StoreError(f"{store}: id {name!r}: its vector has {len(vector.indices)} terms; possible are {limit}")
        if not np.all(np.isfinite(vector.values) & (vector.values > 0)):
            raise StoreError(f"{store}: id {name!r}: a weight of its sparse vector is not above zero")
        rows.append(vector)
    return rows


def terms(vector: SparseVector) -> dict[str, float]:
    """Weights by term id, as JSON has them."""
    return {str(at): weight for at, weight in zip(vector.indices.tolist(), vector.values.tolist(), strict=True)}


def as_sparse(weights: dict[Any, float]) -> SparseVector:
    """`terms` undone. Raises ValueError for a key that is no term id of 31 bits, such as a word or a hash."""
    pairs = sorted((int(term), weight) for term, weight in weights.items())
    if pairs and not 0 <= pairs[0][0] <= pairs[-1][0] < 2**31:
        raise ValueError(f"its sparse vector has the term {pairs[-1][0]}, and term ids are below 2^31")
    return SparseVector(
        np.array([at for at, _ in pairs], np.int32), np.array([weight for _, weight in pairs], np.float32)
    )
