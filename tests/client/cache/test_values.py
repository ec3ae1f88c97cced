"""Arrays come back to the bit; what is damaged does not come back at all."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lemni.client.cache.values import from_bytes, to_bytes
from lemni.errors import InvalidRequest

DTYPES = st.sampled_from(["<f4", ">f4", "<f2", "<f8", "i1", "u1"])
ARRAYS = arrays.arrays(DTYPES, arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6))


@given(ARRAYS)
def test_back_to_the_bit(array: np.ndarray) -> None:
    back = from_bytes(to_bytes(array))
    assert back is not None
    assert back.shape == array.shape
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.astype(array.dtype).tobytes() == array.tobytes()
    assert back.flags.writeable
    assert back.flags.c_contiguous


def test_views_of_a_matrix() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (matrix[1], matrix[:, 1], matrix[::-1], matrix.T):
        np.testing.assert_array_equal(from_bytes(to_bytes(view)), view)


def test_changing_the_array_changes_nothing_else() -> None:
    value = to_bytes(np.ones(3, np.float32))
    first = from_bytes(value)
    assert first is not None
    first[:] = 7
    np.testing.assert_array_equal(from_bytes(value), np.ones(3, np.float32))


@given(ARRAYS, st.data())
def test_a_damaged_value_reads_as_nothing(array: np.ndarray, data: st.DataObject) -> None:
    value = to_bytes(array)
    cut = data.draw(st.integers(0, len(value) - 1))
    assert from_bytes(value[:cut]) is None
    assert from_bytes(value + b"\0") is None
    flipped = bytearray(value)
    flipped[cut] ^= 1 << data.draw(st.integers(0, 7))
    assert from_bytes(bytes(flipped)) is None


@given(st.binary(max_size=64))
def test_foreign_bytes_read_as_nothing(body: bytes) -> None:
    assert from_bytes(body) is None
    sealed = from_bytes(zlib.crc32(body).to_bytes(4, "little") + body)  # what a foreigner with the right checksum gets
    assert sealed is None or sealed.nbytes <= len(body)


def test_another_version_reads_as_nothing() -> None:
    body = bytearray(to_bytes(np.ones(3, np.float32))[4:])
    body[0] += 1
    assert from_bytes(zlib.crc32(body).to_bytes(4, "little") + bytes(body)) is None


@pytest.mark.parametrize(
    "array", [np.ones(3, np.int64), np.ones((1, 1, 1), np.float32), np.float32(1), np.array(["a"])]
)
def test_other_arrays_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match="the cache keeps float32"):
        to_bytes(array)
