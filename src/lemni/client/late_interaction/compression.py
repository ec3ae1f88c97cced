"""Multi-vectors in a quarter or a thirty-second of the bytes, scored against float queries (asymmetric).

Codes are decoded block by block while scoring, so what is kept in memory is the codes. Each token is coded by itself:
nothing is calibrated, so a large collection can be coded in parts, and `top_k` takes an iterator of them.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lemni.client.late_interaction.packed import MultiVector, PackedMultiVectors, Vectors, pack
from lemni.errors import InvalidRequest

_CODED_AT_ONCE = 16384
"""Tokens: bounds the temporary arrays."""


class Int8MultiVectors(PackedMultiVectors):
    """A signed byte per value and a scale per token: dim + 4 bytes a token; a value is off by half a scale at most.

    Attributes:
        codes: int8 [tokens, dim], -127 to 127.
        scales: float32 [tokens], the largest magnitude of the token's vector over 127.
    """

    def __init__(self, codes: NDArray[np.int8], scales: NDArray[np.float32], lengths: ArrayLike) -> None:
        super().__init__(lengths, *codes.shape)
        self.codes = codes
        self.scales = scales

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def decode(self, start: int, stop: int) -> Vectors:
        return self.codes[start:stop] * self.scales[start:stop, None]

    def _view(self, first: int, last: int, start: int, stop: int) -> PackedMultiVectors:
        return Int8MultiVectors(self.codes[start:stop], self.scales[start:stop], self.lengths[first:last])


class BinaryMultiVectors(PackedMultiVectors):
    """The signs alone: dim / 8 bytes a token. Decoded, a value is +-dim**-0.5: every vector has unit length.

    Attributes:
        codes: uint8 [tokens, ceil(dim / 8)], a bit per value, the first the highest; 1 for values over 0
            (the layout of sentence-transformers' "ubinary" and of Vespa's `unpack_bits`).
    """

    def __init__(self, codes: NDArray[np.uint8], dim: int, lengths: ArrayLike) -> None:
        super().__init__(lengths, len(codes), dim)
        self.codes = codes

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes

    def decode(self, start: int, stop: int) -> Vectors:
        bits = np.unpackbits(self.codes[start:stop], axis=1, count=self.dim)
        size = max(self.dim, 1) ** -0.5
        vectors = bits.astype(np.float32)
        vectors *= 2 * size
        vectors -= size
        return vectors

    def _view(self, first: int, last: int, start: int, stop: int) -> PackedMultiVectors:
        return BinaryMultiVectors(self.codes[start:stop], self.dim, self.lengths[first:last])


def quantize(
    multi_vectors: Seq[MultiVector] | MultiVector | PackedMultiVectors, precision: Literal["int8", "binary"]
) -> Int8MultiVectors | BinaryMultiVectors:
    """Codes of documents, for `maxsim` and `top_k` as they are; queries stay float.

    Args:
        multi_vectors: a list of [tokens, dim], one of them, or packed.
        precision: "int8", symmetric with a scale per token; ranks as float32 does. "binary", signs, for vectors of unit
            length; ranks a little worse.

    Raises:
        InvalidRequest: another precision, or as `pack` does.

    References: absmax scaling per row, arXiv:2208.07339, section 2; signs of documents against float queries,
    https://blog.vespa.ai/announcing-colbert-embedder-in-vespa/.
    """
    if precision not in ("int8", "binary"):
        raise InvalidRequest(f'precision is {precision!r}; it must be "int8" or "binary"', param="precision")
    packed = multi_vectors if isinstance(multi_vectors, PackedMultiVectors) else pack(multi_vectors)
    starts = range(0, packed.tokens, _CODED_AT_ONCE)
    parts = [packed.decode(start, min(start + _CODED_AT_ONCE, packed.tokens)) for start in starts]
    if precision == "binary":
        bits = [np.packbits(part > 0, axis=1) for part in parts]
        none = np.zeros((0, -(-packed.dim // 8)), np.uint8)
        return BinaryMultiVectors(np.concatenate([none, *bits]), packed.dim, packed.lengths)
    scales = [np.abs(part).max(axis=1) / np.float32(127) for part in parts]
    codes = [_int8(part, scale) for part, scale in zip(parts, scales, strict=True)]
    return Int8MultiVectors(
        np.concatenate([np.zeros((0, packed.dim), np.int8), *codes]),
        np.concatenate([np.zeros(0, np.float32), *scales]),
        packed.lengths,
    )


def _int8(vectors: Vectors, scales: NDArray[np.float32]) -> NDArray[np.int8]:
    smallest = np.finfo(np.float32).tiny  # a vector of zeros stays one
    codes: NDArray[np.int8] = np.rint(vectors / np.maximum(scales, smallest)[:, None]).clip(-127, 127).astype(np.int8)
    return codes
