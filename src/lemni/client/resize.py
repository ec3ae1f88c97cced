"""Makes vectors as long as a client's `embedding_dim` wants them, where the server has not.

The three methods and the choice between them are those of faciliter-lib (faciliter_lib/embeddings/embedding_utils.py,
2025-10). They keep a database column usable; only a Matryoshka model that is shortened keeps its quality.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.client.errors import InvalidArgument

Rows: TypeAlias = NDArray[np.float32]

METHODS = ("truncate_or_pad", "interpolate", "pca_approximate")

# Parts of the names of models that faciliter-lib (models_database.py) takes for Matryoshka models, and newer ones.
_MATRYOSHKA = (
    *("matryoshka", "mrl", "adaptive", "flexible-dim", "multi-dimension", "variable-dim"),
    *("text-embedding-3-", "nomic-embed-text", "mxbai-embed-large", "arctic-embed", "bge-m3", "embeddinggemma"),
    *("jina-embeddings-v2", "jina-embeddings-v3", "jina-embeddings-v4", "jina-colbert-v2", "qwen3-embedding"),
    *("embed-english-v3.0", "embed-english-light-v3.0", "embed-multilingual-v3.0", "embed-multilingual-light-v3.0"),
)


def check_method(method: str) -> str:
    """The method itself. Raises InvalidArgument, a ValueError, that lists the known ones."""
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise InvalidArgument(f"Unsupported normalization method: {method}; known: {known}", param="norm_method")
    return method


def best_method(model: str | None, current: int, target: int) -> str:
    """What suits a model whose vectors have `current` values and shall have `target`."""
    name = (model or "").lower()
    if current == target or any(part in name for part in _MATRYOSHKA):
        return "truncate_or_pad"
    return "pca_approximate" if target < 0.5 * current else "interpolate"


def resize(rows: Rows, size: int, method: str) -> Rows:
    """Longer or shorter vectors.

    Args:
        rows: float32 [n, dim].
        size: how many values each shall have.
        method: "truncate_or_pad" cuts, or adds zeros; "interpolate" reads the values as a line, and makes the length 1;
            "pca_approximate" takes the means of `size` groups of neighbours, and makes the length 1; vectors that grow
            are interpolated. A vector of zeros stays one.

    Returns:
        float32 [n, size]; `rows` itself if nothing is to be done.

    Raises:
        InvalidArgument: an unknown method.
    """
    check_method(method)
    dim = rows.shape[1]
    if dim == size:
        return rows
    if method == "truncate_or_pad":
        return rows[:, :size] if dim > size else np.pad(rows, ((0, 0), (0, size - dim)))
    exact = rows.astype(np.float64)
    if method == "pca_approximate" and dim > size:
        starts = np.arange(size + 1) * dim // size
        return unit(np.add.reduceat(exact, starts[:-1], axis=1) / np.diff(starts))
    places = np.linspace(0, dim - 1, size)
    below = np.floor(places).astype(np.intp)
    above = np.minimum(below + 1, dim - 1)
    share = places - below
    return unit(exact[:, below] * (1 - share) + exact[:, above] * share)


def unit(rows: NDArray[np.floating]) -> Rows:
    """float32 [n, dim] of length 1 each; a vector of zeros stays one."""
    exact = rows.astype(np.float64)  # the squares of float32 values may be too large for float32
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    made: Rows = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0).astype(np.float32)
    return made
