"""Which weights become 8-bit codes, and how: what an int8 matrix product multiplies.

Activations are quantised when they come, in groups, by the runtime; so nothing has to be calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.hub.codes import Codes

SMALLEST_SIDE = 64
"""Matrices with fewer rows or columns stay float32: heads of a few labels cost nothing and decide most."""

SMALLEST_TABLE = 4096
"""Tables of embeddings with fewer rows stay float32: positions and types are small, and in every token's sum."""

_VALUES_AT_ONCE = 1 << 20  # the steps between need several times the memory of what they work on


def is_worth_it(shape: Seq[int]) -> bool:
    """Whether a matrix [out, in] of a linear layer is large enough to be quantised."""
    return len(shape) == 2 and min(shape) >= SMALLEST_SIDE


def is_large_table(shape: Seq[int]) -> bool:
    """Whether a table of embeddings [rows, dim] is large enough to be quantised."""
    return is_worth_it(shape) and shape[0] >= SMALLEST_TABLE


def quantize_rows(weight: NDArray[Any]) -> Codes:
    """Asymmetric 8 bits over the range of each row of [out, in], 0 included (NNCF's INT8_ASYM)."""
    count = len(weight)
    found = Codes(np.empty(weight.shape, np.int8), np.empty((count, 1), np.int8), np.empty((count, 1), np.float32))
    at_once = max(1, _VALUES_AT_ONCE // max(1, weight.shape[1]))
    for start in range(0, count, at_once):
        rows = slice(start, start + at_once)
        _quantize(weight[rows].astype(np.float32, copy=False), found[rows])
    return found


def _quantize(weight: NDArray[np.float32], into: Codes) -> None:
    low = np.minimum(weight.min(axis=1, keepdims=True), 0.0)
    high = np.maximum(weight.max(axis=1, keepdims=True), 0.0)
    scales = np.maximum((high - low) / 255.0, np.finfo(np.float32).tiny).astype(np.float32)
    zeros = np.clip(np.rint(-low / scales), 0, 255)
    codes = np.clip(np.rint(weight / scales) + zeros, 0, 255)
    into.codes[:], into.zeros[:], into.scales[:] = codes - 128, zeros - 128, scales
