"""`output_type` at /v1/embeddings, over the real default model."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.engine import Engine
from lemni.server.app import create_app
from lemni.tasks.output_types import restore
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings

TEXTS = ["A cat sits on the mat.", "A dog runs.", "Stocks fell."]
NUMPY = {"float16": "<f2", "bfloat16": "<u2", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}


async def ask(client: httpx.AsyncClient, **options: Any) -> list[Any]:
    answer = await client.post("/v1/embeddings", json={"input": TEXTS, **options})
    assert answer.status_code == 200, answer.text
    data: list[Any] = answer.json()["data"]
    return data


def cosines(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    cos: NDArray[Any] = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return cos


@pytest.mark.parametrize("output_type", NUMPY)
async def test_numbers_and_bytes_are_the_same_and_near_the_vectors(
    real_engine: Engine, tmp_path: Path, output_type: Any
) -> None:
    async with client_of(create_app(loaded(real_engine), server_settings(), cache_dir=tmp_path)) as client:
        floats = np.array([one["embedding"] for one in await ask(client)], np.float32)
        numbers = [one["embedding"] for one in await ask(client, output_type=output_type)]
        coded = await ask(client, output_type=output_type, encoding_format="base64")
    raw = np.stack([np.frombuffer(base64.b64decode(one["embedding"]), NUMPY[output_type]) for one in coded])
    if output_type == "bfloat16":
        values = (raw.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(values, np.array(numbers, np.float32))
        assert cosines(values, floats).min() > 0.9999
        return
    np.testing.assert_array_equal(raw, np.array(numbers).astype(raw.dtype))
    if output_type == "float16":
        assert cosines(raw.astype(np.float32), floats).min() > 0.99999
    elif output_type in ("binary", "ubinary"):
        np.testing.assert_array_equal(np.sign(restore(raw, output_type, dimensions=384)), np.where(floats > 0, 1, -1))


async def test_a_scale_of_each_vector(real: httpx.AsyncClient) -> None:
    floats = np.array([one["embedding"] for one in await ask(real)], np.float32)
    for encoding in ("float", "base64"):
        scaled = await ask(real, output_type="int8_scaled", encoding_format=encoding)
        rows = [one["embedding"] for one in scaled]
        if encoding == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "i1") for row in rows]
        restored = np.array(rows, np.float32) * np.array([[one["scale"]] for one in scaled])
        np.testing.assert_allclose(restored, floats, atol=max(one["scale"] for one in scaled) / 2 + 1e-6)


async def test_what_does_not_fit(real: httpx.AsyncClient) -> None:
    for body, says in (
        ({"output_type": "int4"}, "output_type"),
        ({"output_type": "int8", "outputs": ["multi_vector"]}, "is for dense vectors"),
    ):
        answer = await real.post("/v1/embeddings", json={"input": "a", **body})
        assert answer.status_code == 400
        assert says in answer.json()["error"]["message"]
