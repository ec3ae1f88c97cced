"""Token pooling: fewer vectors per document, by averaging those that are alike.

Clavie, Chaffin, Adams: "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling" (arXiv:2409.14683). Done once, before documents are stored; queries stay whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lemni.client.late_interaction.packed import MultiVector, Vectors, matrix
from lemni.errors import InvalidRequest, missing_extra


def pool_tokens(multi_vector: MultiVector, factor: float, *, protected_tokens: int = 1) -> NDArray[np.float32]:
    """One document with about 1 / `factor` of its vectors.

    Vectors are taken at unit length and clustered by Ward's method on their cosine distances; each cluster becomes its
    mean, at unit length again.

    Args:
        multi_vector: [tokens, dim]. Memory and time are quadratic in the tokens: some 20 MB for 1,000.
        factor: from 1, which only normalises; 2 and 3 cost little quality in the paper. Fractions are fine.
        protected_tokens: so many at the start stay as they are, ahead of the others: [CLS], or a model's marker.

    Returns:
        float32 [protected + (tokens - protected) // factor, dim], at least one of the rest if there was one.

    Raises:
        InvalidRequest: `factor` under 1, `protected_tokens` under 0, or not finite numbers [tokens, dim].
        MissingExtra: scipy is not installed.

    References: `HierarchicalTokenPooling` of sentence-transformers, and PyLate after 1.3.4: the same rows in order.
    """
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < np.inf:
        raise InvalidRequest(f"factor is {factor!r}; it must be a number from 1", param="factor")
    if isinstance(protected_tokens, bool) or not isinstance(protected_tokens, int) or protected_tokens < 0:
        raise InvalidRequest(
            f"protected_tokens is {protected_tokens!r}; it must be a whole number from 0", param="protected_tokens"
        )
    units = _unit_length(matrix(multi_vector, "multi_vector"))
    kept, rest = units[:protected_tokens], units[protected_tokens:]
    count = max(int(len(rest) // factor), 1)
    if count >= len(rest):
        return units
    _, cluster, sizes = np.unique(_clusters(rest, count), return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), rest.shape[1]), np.float32)
    np.add.at(sums, cluster, rest)
    sums /= sizes[:, None]
    return np.concatenate((kept, _unit_length(sums)))


def _clusters(units: Vectors, count: int) -> NDArray[np.int32]:
    """int32 [tokens], the cluster of each: `count` clusters, or fewer where distances are equal."""
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform
    except ImportError:
        raise missing_extra("scipy", "late-interaction", "Pooling tokens") from None
    distances = np.clip(1 - units @ units.T, 0, 2)
    tree = linkage(squareform(distances, checks=False), method="ward")
    labels: NDArray[np.int32] = fcluster(tree, count, criterion="maxclust")
    return labels


def _unit_length(vectors: Vectors) -> Vectors:
    """x / max(|x|, 1e-12) by row, as torch.nn.functional.normalize; a vector of zeros stays one."""
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return unit
