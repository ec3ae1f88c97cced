"""Weights as 8-bit codes, one scale and zero point for each row: what an int8 matrix product multiplies.

Activations are quantised when they come, in groups, by the runtime; so nothing has to be calibrated.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SMALLEST_SIDE = 64
"""Matrices with fewer rows or columns stay float32: heads of a few labels cost nothing and decide most."""


class Codes(NamedTuple):
    """weight ~ (codes - zeros) * scales.

    Attributes:
        codes: uint8 [out, in].
        zeros: uint8 [out, 1], the code of 0, which is exact.
        scales: float32 [out, 1].
    """

    codes: NDArray[np.uint8]
    zeros: NDArray[np.uint8]
    scales: NDArray[np.float32]


def is_worth_it(weight: NDArray[Any]) -> bool:
    """Whether a weight [out, in] is large enough to be quantised."""
    return weight.ndim == 2 and min(weight.shape) >= SMALLEST_SIDE


def quantize_rows(weight: NDArray[np.float32]) -> Codes:
    """Asymmetric 8 bits over the range of each row of [out, in], 0 included (NNCF's INT8_ASYM)."""
    low = np.minimum(weight.min(axis=1, keepdims=True), 0.0)
    high = np.maximum(weight.max(axis=1, keepdims=True), 0.0)
    scales = np.maximum((high - low) / 255.0, np.finfo(np.float32).tiny).astype(np.float32)
    zeros = np.clip(np.rint(-low / scales), 0, 255)
    codes = np.clip(np.rint(weight / scales) + zeros, 0, 255)
    return Codes(codes.astype(np.uint8), zeros.astype(np.uint8), scales)
