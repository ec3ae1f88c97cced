"""Vectors as JSON: the exact float32 comes back, whatever the array's layout; much of it is written in a thread."""

from __future__ import annotations

import base64
import json
import threading

import numpy as np
import pytest

from lemni.server.rows import LARGE_BYTES, base64_rows, float_rows, off_the_loop

VECTORS = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
VECTORS[0, :4] = [0.0, -0.0, 1e-45, 3.4028235e38]
LAYOUTS = {
    "plain": VECTORS,
    "fortran": np.asfortranarray(VECTORS),
    "sliced": np.repeat(VECTORS, 2, axis=1)[:, ::2],
    "big-endian": VECTORS.astype(">f4"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows(layout: str) -> None:
    vectors = LAYOUTS[layout]
    decoded = [np.frombuffer(base64.b64decode(json.loads(row)), "<f4") for row in base64_rows(vectors)]
    assert np.array(decoded, "<f4").tobytes() == VECTORS.astype("<f4").tobytes()
    numbers = np.array([json.loads(row) for row in float_rows(vectors)], "<f4")
    assert numbers.tobytes() == VECTORS.astype("<f4").tobytes()


async def test_large_answers_are_written_in_a_thread() -> None:
    here = threading.get_ident()
    assert await off_the_loop(LARGE_BYTES - 1, threading.get_ident) == here
    assert await off_the_loop(LARGE_BYTES, threading.get_ident) != here
