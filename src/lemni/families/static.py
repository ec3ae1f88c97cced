"""Static embeddings: one vector per token id, averaged; no layers, no positions.

Two layouts: model2vec writes `embeddings` (float or int8), maybe with `mapping` (token id -> row) and `weights` (per
token id); sentence-transformers' StaticEmbedding writes `embedding.weight`. Reference: model2vec, `model.py`;
sentence-transformers, `static_embedding.py`. What tokenising must do for them is said at `token_ids`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError
from lemni.families.weights import Weights
from lemni.ops.base import Inputs, Ops, Tensor

NO_TOKEN = -1
"""The id whose vector is zero. A text without tokens becomes this one id, because no sequence may be empty."""


class Table:
    """Rows by token id, read from the file's memory map as they are needed.

    Attributes:
        vocabulary: token ids that have a row, 0..vocabulary-1.
        dimensions: length of a row.
        leaves_out_unknown: whether the unknown token has no part in the average, as in model2vec's layout.

    Raises:
        ModelLoadError: neither layout, or parts that do not fit each other.
    """

    def __init__(self, weights: Weights) -> None:
        self.leaves_out_unknown = "embeddings" in weights
        self._rows = weights["embeddings" if self.leaves_out_unknown else "embedding.weight"]
        self._mapping = weights.get("mapping")
        self._weights = weights.get("weights")
        if self._rows.ndim != 2:
            raise ModelLoadError(f"static embeddings must be a table, not of shape {self._rows.shape}")
        self.vocabulary = len(self._rows if self._mapping is None else self._mapping)
        self.dimensions = int(self._rows.shape[1])
        if self._mapping is not None and not 0 <= self._mapping.min() <= self._mapping.max() < len(self._rows):
            raise ModelLoadError(f"static embeddings: mapping names rows beyond the {len(self._rows)} that are there")
        if self._weights is not None and self._weights.shape != (self.vocabulary,):
            raise ModelLoadError(
                f"static embeddings: weights {self._weights.shape} do not fit a vocabulary of {self.vocabulary}"
            )

    def rows(self, ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """float32 [T, dimensions]: the weighted vectors of ids [T]; zero for `NO_TOKEN`.

        int8 tables are taken as they are, without a scale, as model2vec does.
        """
        vectors = self._rows[ids if self._mapping is None else self._mapping[ids]].astype(np.float32)
        if self._weights is not None:
            vectors *= self._weights[ids].astype(np.float32)[:, None]
        vectors[ids == NO_TOKEN] = 0
        return vectors


class Static:
    """The table over ops, for runtimes with graphs or GPUs: unfolded to float32, `NO_TOKEN` as a row in front."""

    def __init__(self, config: dict[str, Any], weights: Weights, ops: Ops) -> None:
        self.ops = ops
        self.max_positions: int | None = None
        table = Table(weights)
        ids = np.arange(NO_TOKEN, table.vocabulary, dtype=np.int32)
        self.table = ops.constant(table.rows(ids))
        self.first = ops.constant(np.array(NO_TOKEN, dtype=np.int32))

    def __call__(self, inputs: Inputs) -> Tensor:
        return self.ops.embedding(self.table, inputs.ids - self.first)


def token_ids(ids: NDArray[np.int32], unknown: int | None) -> NDArray[np.int32]:
    """What tokenising does with ids [T] made without special tokens: `unknown` goes, and nothing becomes `NO_TOKEN`.

    Args:
        unknown: from `unknown_id` if `Table.leaves_out_unknown`, else None.
    """
    kept = ids if unknown is None else ids[ids != unknown]
    return kept if len(kept) else np.array([NO_TOKEN], dtype=np.int32)


def unknown_id(tokenizer: Any) -> int | None:
    """The unknown token's id in a `tokenizers.Tokenizer`, if it has one."""
    model = tokenizer.model
    if hasattr(model, "unk_token"):  # WordPiece, BPE, WordLevel
        found: int | None = None if model.unk_token is None else tokenizer.token_to_id(model.unk_token)
        return found
    unigram: int | None = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return unigram
