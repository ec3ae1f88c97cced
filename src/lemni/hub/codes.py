"""Weights as 8-bit codes, one scale and zero point for each row: made by `ops/int8.py`, or stored in a model's file.

The layout of a file is that of compressed-tensors, "int-quantized": beside `X` int8 [out, in] are `X_scale` and, if the
codes are not symmetric, `X_zero_point`, both [out, 1]. https://github.com/vllm-project/compressed-tensors
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ModelLoadError

SCALE, ZERO = "_scale", "_zero_point"
"""What follows a tensor's name in the names of its scales and zero points."""


@dataclass(frozen=True, eq=False)
class Codes:
    """weight ~ (codes - zeros) * scales.

    Attributes:
        codes: int8 [out, in].
        zeros: int8 [out, 1], the code of 0, which is exact.
        scales: float32 [out, 1].
    """

    codes: NDArray[np.int8]
    zeros: NDArray[np.int8]
    scales: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: slice) -> Codes:
        """Some rows, as views."""
        return Codes(self.codes[rows], self.zeros[rows], self.scales[rows])

    def floats(self) -> NDArray[np.float32]:
        """float32 [out, in]: what the codes stand for."""
        floats = self.codes.astype(np.float32)
        floats -= self.zeros
        floats *= self.scales
        return floats

    def unsigned(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """uint8 codes [out, in] and zeros [out, 1], each 128 more: the same numbers."""
        codes, zeros = (np.bitwise_xor(part.view(np.uint8), np.uint8(0x80)) for part in (self.codes, self.zeros))
        return codes, zeros


Weight: TypeAlias = NDArray[Any] | Codes
"""What `Ops.constant` takes: numbers, or the codes of a matrix [out, in]."""


def joined(weights: Seq[Weight]) -> Weight:
    """Several matrices as one, joined on their first axis; of codes and floats, floats."""
    if len(weights) == 1:
        return weights[0]
    codes = [one for one in weights if isinstance(one, Codes)]
    if len(codes) < len(weights):
        return np.concatenate([floats_of(one) for one in weights])
    return Codes(
        np.concatenate([one.codes for one in codes]),
        np.concatenate([one.zeros for one in codes]),
        np.concatenate([one.scales for one in codes]),
    )


def floats_of(weight: Weight) -> NDArray[Any]:
    """The numbers themselves; codes become float32."""
    return weight.floats() if isinstance(weight, Codes) else weight


def stored(name: str, codes: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any] | None) -> Codes:
    """What a file says of one tensor, with a scale and a zero point for each row.

    Raises:
        ModelLoadError: they do not fit each other, such as scales of groups.
    """
    sides = [side for side in (scales, zeros) if side is not None]
    count = len(codes) if codes.ndim == 2 else 0
    if codes.dtype != np.int8 or codes.ndim != 2 or not all(side.size in (1, count) for side in sides):
        shapes = ", ".join(str(side.shape) for side in sides)
        raise ModelLoadError(
            f"tensor {name!r} is {codes.dtype} {codes.shape} with scales and zero points of {shapes}; "
            "int8 codes [out, in] with one of each for every row are read"
        )
    wide = np.zeros(1, np.int8) if zeros is None else zeros.astype(np.int8)
    column = (count, 1)
    return Codes(
        codes,
        np.ascontiguousarray(np.broadcast_to(wide.reshape(-1, 1), column)),
        np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32).reshape(-1, 1), column)),
    )
