"""Vectors as JSON and bytes: the exact value comes back, whatever type and layout; a thread writes the large ones."""

from __future__ import annotations

import base64
import json
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lemni.errors import InvalidRequest
from lemni.server.rows import (
    LARGE_BYTES,
    EmbedDtype,
    Endianness,
    base64_rows,
    base64_string,
    float_rows,
    off_the_loop,
    raw_rows,
    row_bytes,
    sparse_pair_rows,
    sparse_rows,
)
from lemni.tasks.output_types import OUTPUT_TYPES, OutputType, convert, restore
from lemni.types import SparseVector

VECTORS = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
VECTORS[0, :4] = [0.0, -0.0, 1e-45, 3.4028235e38]
LAYOUTS = {
    "plain": VECTORS,
    "fortran": np.asfortranarray(VECTORS),
    "sliced": np.repeat(VECTORS, 2, axis=1)[:, ::2],
    "big-endian": VECTORS.astype(">f4"),
}
SMALL = VECTORS[1:]
RANGES = np.stack([SMALL.min(0), SMALL.max(0)])
MATRICES = [SMALL[:3], SMALL[:0], SMALL[2:]]
BYTES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "i1", "uint8": "u1", "binary": "i1"}
FORMATS: dict[EmbedDtype, tuple[torch.dtype, torch.dtype]] = {
    "float32": (torch.float32, torch.int32),
    "float16": (torch.float16, torch.int16),
    "bfloat16": (torch.bfloat16, torch.int16),
    "fp8_e4m3": (torch.float8_e4m3fn, torch.int8),
    "fp8_e5m2": (torch.float8_e5m2, torch.int8),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows(layout: str) -> None:
    vectors = LAYOUTS[layout]
    decoded = [np.frombuffer(base64.b64decode(json.loads(row)), "<f4") for row in base64_rows(vectors)]
    assert np.array(decoded, "<f4").tobytes() == VECTORS.astype("<f4").tobytes()
    numbers = np.array([json.loads(row) for row in float_rows(vectors)], "<f4")
    assert numbers.tobytes() == VECTORS.astype("<f4").tobytes()


@pytest.mark.parametrize("output_type", OUTPUT_TYPES)
def test_every_output_type(output_type: OutputType) -> None:
    for rows in (convert(SMALL, output_type, RANGES), convert(MATRICES, output_type, RANGES)):
        floats = output_type in ("float32", "float16", "bfloat16")
        for row, text, packed in zip(rows, float_rows(rows, output_type), base64_rows(rows, output_type), strict=True):
            numbers: Any = json.loads(text)
            kinds = {type(number) for number in np.array(numbers, dtype=object).ravel()}
            assert kinds <= {float if floats else int}
            expected = restore(row, output_type) if floats else row
            assert np.array(numbers, dtype=expected.dtype).reshape(expected.shape).tolist() == expected.tolist()
            flat = np.frombuffer(base64.b64decode(json.loads(packed)), BYTES.get(output_type, "u1"))
            np.testing.assert_array_equal(flat.reshape(row.shape), row)


def test_matrices_are_nested_lists() -> None:
    assert [np.shape(json.loads(text)) for text in float_rows(MATRICES)] == [(3, 7), (0,), (2, 7)]
    assert list(float_rows([np.asfortranarray(np.eye(2, dtype=">f4"))])) == [b"[[1.0,0.0],[0.0,1.0]]"]


def test_sparse_rows() -> None:
    indices = np.array([3, 17, 30521], dtype=np.int32)
    rows = [
        SparseVector(indices, np.array([0.1, 2.5, 1e-9], dtype=np.float32)),
        SparseVector(indices[:0], np.zeros(0, dtype=np.float32)),
        SparseVector(indices[::2], np.array([1, 2, 3], dtype=np.float32)[::2]),
    ]
    expected = [
        '[{"index":3,"value":0.1},{"index":17,"value":2.5},{"index":30521,"value":1e-9}]',
        "[]",
        '[{"index":3,"value":1.0},{"index":30521,"value":3.0}]',
    ]
    assert [row.decode() for row in sparse_pair_rows(rows)] == expected
    assert [json.loads(row) for row in sparse_rows(rows)] == [
        {"indices": [3, 17, 30521], "values": [0.1, 2.5, 1e-9]},
        {"indices": [], "values": []},
        {"indices": [3, 30521], "values": [1.0, 3.0]},
    ]


@pytest.mark.parametrize("endianness", ["native", "big", "little"])
@pytest.mark.parametrize("embed_dtype", FORMATS)
def test_raw_rows_are_vllms(embed_dtype: EmbedDtype, endianness: Endianness) -> None:
    swapped = endianness not in ("native", sys.byteorder)
    for rows in (SMALL, MATRICES, np.asfortranarray(SMALL)):
        parts = raw_rows(rows, embed_dtype, endianness)
        body = b"".join(parts)
        for row, part, place in zip(rows, parts, row_bytes(rows, embed_dtype), strict=True):
            assert part == _vllm(row, embed_dtype, swapped)
            assert part == body[place.start : place.end]
            assert place.shape == row.shape
            assert json.loads(base64_string(part)) == base64.b64encode(part).decode()


def test_raw_rows_name_the_item_that_does_not_fit() -> None:
    with pytest.raises(InvalidRequest, match=r"item 0: the value 3\.40282e"):
        raw_rows(VECTORS, "float16")


async def test_large_answers_are_written_in_a_thread() -> None:
    here = threading.get_ident()
    assert await off_the_loop(LARGE_BYTES - 1, threading.get_ident) == here
    assert await off_the_loop(LARGE_BYTES, threading.get_ident) != here


def _vllm(row: NDArray[np.float32], embed_dtype: EmbedDtype, swapped: bool) -> bytes:
    """As vLLM's `tensor2binary`: convert in torch, look at the bits through numpy, swap."""
    dtype, bits = FORMATS[embed_dtype]
    seen = torch.from_numpy(np.ascontiguousarray(row)).to(dtype).view(bits).numpy()
    return (seen.byteswap() if swapped else seen).tobytes()
