"""Embeddings as a safetensors file, read by the real package, against the numbers of the JSON answer."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server import rows
from lemni.server.app import create_app
from lemni.server.safetensors import prefers
from tests.engine.toy import expected
from tests.server.conftest import client_of
from tests.server.live import loaded, server_settings
from tests.tasks.classifiers import load
from tests.tasks.test_bge_m3 import save_m3
from tests.tiny_multimodal import picture, save_colpali

ACCEPT = {"accept": "application/x-safetensors"}
TEXTS = ["hello world", "a", "the cat sat on the mat", "a 7 b 7 ?", ""]
DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "binary": torch.int8,
    "ubinary": torch.uint8,
    "int8_scaled": torch.int8,
}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Tiny models: "m3" gives dense, sparse and multi-vectors; "pages" multi-vectors of texts and images."""
    folder = tmp_path_factory.mktemp("several")
    save_m3(folder / "m3", dim=12)
    save_colpali(folder / "pages")
    models = {name: load(folder / name, served_name=name) for name in ("m3", "pages")}
    with Engine(models, EngineSettings()) as engine:
        yield engine
    for model in models.values():
        model.close()


@pytest.fixture
async def tiny(several: Engine, cache: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(create_app(loaded(several), server_settings(), cache_dir=cache)) as client:
        yield client


async def both(
    client: httpx.AsyncClient, body: dict[str, Any], path: str = "/v1/embeddings"
) -> tuple[Any, dict[str, torch.Tensor], dict[str, str]]:
    """The JSON answer; the tensors and the metadata of the file, which are checked for what every file has."""
    plain = await client.post(path, json=body)
    raw = await client.post(path, json={**body, "encoding_format": "base64"}, headers=ACCEPT)
    for answer, media in ((plain, "application/json"), (raw, "application/x-safetensors")):
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == media
        assert answer.headers["vary"] == "Accept"
    [length] = struct.unpack("<Q", raw.content[:8])
    assert length % 8 == 0
    header = json.loads(raw.content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    wide = {"I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}
    assert all(one["data_offsets"][0] % wide[one["dtype"]] == 0 for one in header.values())
    json_answer = plain.json()
    usage = {key: str(count) for key, count in json_answer["usage"].items()}
    assert metadata == {"model": json_answer["model"], **usage}
    return json_answer["data"], safetensors.torch.load(raw.content), metadata


def split(vectors: torch.Tensor, lengths: torch.Tensor) -> list[NDArray[np.float32]]:
    assert lengths.dtype == torch.int64
    return [part.numpy() for part in vectors.split(lengths.tolist())]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/", "/invocations"])
@pytest.mark.parametrize("given", ["3 1 4", ["3 1 4", "1 5"], [[3, 1, 4], "2 | 4", "9 9"]])
async def test_dense(client: httpx.AsyncClient, path: str, given: Any) -> None:
    _, tensors, metadata = await both(client, {"input": given}, path)
    items = [given] if isinstance(given, str) else given
    assert list(tensors) == ["embeddings"]
    assert tensors["embeddings"].dtype == torch.float32
    assert tensors["embeddings"].tolist() == [expected(item) for item in items]
    assert metadata["model"] == "toy"


async def test_many_vectors_as_a_file(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large as what a thread writes."""
    monkeypatch.setattr(rows, "LARGE_BYTES", 1)
    texts = [f"{n} {n % 7 + 1}" for n in range(1, 2049)]
    answer = await client.post("/v1/embeddings", json={"input": texts, "dimensions": 3}, headers=ACCEPT)
    (tmp_path / "vectors.safetensors").write_bytes(answer.content)
    with safe_open(tmp_path / "vectors.safetensors", "numpy") as file:
        assert file.metadata() == {"model": "toy", "prompt_tokens": "4096", "total_tokens": "4096"}
        assert file.get_tensor("embeddings").tolist() == [expected(text)[:3] for text in texts]


@pytest.mark.parametrize("output_type", DTYPES)
async def test_every_output_type(real: httpx.AsyncClient, output_type: str) -> None:
    """Dimensions that make no whole number of bytes, and rows that no longer lie end to end."""
    body = {"input": ["A cat sits on the mat.", "A dog runs.", ""], "dimensions": 99, "output_type": output_type}
    data, tensors, _ = await both(real, body)
    found = tensors.pop("embeddings")
    assert found.dtype == DTYPES[output_type]
    assert found.shape == (3, 13 if "binary" in output_type else 99)
    assert found.float().tolist() == np.array([one["embedding"] for one in data], np.float32).tolist()
    if output_type == "int8_scaled":
        scales = tensors.pop("scales")
        assert scales.dtype == torch.float32
        np.testing.assert_array_equal(scales, np.array([one["scale"] for one in data], np.float32))
    assert not tensors


@pytest.mark.parametrize(
    "outputs",
    [
        ["sparse"],
        ["multi_vector"],
        ["dense", "multi_vector"],
        ["multi_vector", "dense"],
        ["sparse", "multi_vector"],
        ["multi_vector", "sparse", "dense"],
    ],
)
async def test_several_outputs(tiny: httpx.AsyncClient, outputs: list[str]) -> None:
    body = {"model": "m3", "input": TEXTS, "outputs": outputs}
    data, tensors, _ = await both(tiny, body)
    if "dense" in outputs:
        numbers = np.array([one["embedding"] for one in data], np.float32)
        np.testing.assert_array_equal(tensors.pop("embeddings"), numbers, strict=True)
    if "multi_vector" in outputs:
        key, shape_key = ("multi_vector", "multi_vector_shape") if "dense" in outputs else ("embedding", "shape")
        found = split(tensors.pop("multi_vectors"), tensors.pop("lengths"))
        assert [len(one) for one in found] == [len(one[key]) for one in data]
        assert len({len(one) for one in found}) > 1
        coded = (await tiny.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()["data"]
        for one, other, vectors in zip(data, coded, found, strict=True):
            np.testing.assert_array_equal(vectors, np.array(one[key], np.float32), strict=True)
            flat = np.frombuffer(base64.b64decode(other[key]), "<f4")
            np.testing.assert_array_equal(flat.reshape(other[shape_key]), vectors)
            assert {name for name in other if "shape" in name} == {shape_key}
            assert not any("shape" in name for name in one)
    if "sparse" in outputs:
        lengths = tensors.pop("sparse_lengths")
        indices, values = tensors.pop("sparse_indices"), tensors.pop("sparse_values")
        assert (indices.dtype, values.dtype) == (torch.int32, torch.float32)
        pairs = [(i.tolist(), v) for i, v in zip(split(indices, lengths), split(values, lengths), strict=True)]
        for (index, value), one in zip(pairs, data, strict=True):
            assert index == one["sparse_embedding"]["indices"]
            np.testing.assert_array_equal(value, np.array(one["sparse_embedding"]["values"], np.float32))
    assert not tensors


async def test_sparse_vectors_without_terms(tiny: httpx.AsyncClient) -> None:
    _, tensors, _ = await both(tiny, {"model": "m3", "input": ["", ""], "outputs": ["sparse"]})
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {
        "sparse_indices": [],
        "sparse_values": [],
        "sparse_lengths": [0, 0],
    }


@pytest.mark.parametrize(
    ("path", "modality"), [("/embeddings", "text"), ("/v1/embeddings", "image"), ("/embeddings_image", None)]
)
async def test_infinity(tiny: httpx.AsyncClient, path: str, modality: str | None) -> None:
    """Late interaction: the file, and base64 with the shape."""
    images = [base64.b64encode(picture(seed=seed)).decode() for seed in (0, 1)]
    body = {"model": "pages", "input": ["a cat", "a dog on a mat"] if modality == "text" else images}
    body |= {} if modality is None else {"modality": modality}
    data, tensors, _ = await both(tiny, body, path)
    found = split(tensors.pop("multi_vectors"), tensors.pop("lengths"))
    assert not tensors
    coded = (await tiny.post(path, json={**body, "encoding": "base64"})).json()["data"]
    for one, other, vectors in zip(data, coded, found, strict=True):
        np.testing.assert_array_equal(vectors, np.array(one["embedding"], np.float32), strict=True)
        flat = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        np.testing.assert_array_equal(flat.reshape(other["shape"]), vectors)
        assert "shape" not in one


async def test_infinity_s_dense_vectors(client: httpx.AsyncClient) -> None:
    _, tensors, _ = await both(client, {"input": ["3 1 4", "1 5"], "modality": "text", "dimensions": 2}, "/embeddings")
    assert tensors["embeddings"].tolist() == [expected("3 1 4")[:2], expected("1 5")[:2]]
    coded = await client.post("/embeddings", json={"input": "3", "modality": "text", "encoding": "base64"})
    assert "shape" not in coded.json()["data"][0]


async def test_truncated_items_are_named(client: httpx.AsyncClient) -> None:
    for extra in ({}, {"modality": "text"}):
        answer = await client.post("/v1/embeddings", json={"input": ["1", "77", "5 77"], **extra}, headers=ACCEPT)
        assert answer.headers["x-lemni-truncated"] == "1,2"
        assert len(safetensors.torch.load(answer.content)["embeddings"]) == 3


@pytest.mark.parametrize(
    ("body", "status"),
    [({"input": []}, 400), ({"input": ["1", "refused"]}, 400), ({"input": "1", "model": "nope"}, 404)],
)
async def test_errors_stay_json(client: httpx.AsyncClient, body: dict[str, Any], status: int) -> None:
    for extra in ({}, {"modality": "text"}):
        answer = await client.post("/v1/embeddings", json={**body, **extra}, headers=ACCEPT)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        assert answer.json()["error"]["message"]
        with pytest.raises(SafetensorError):
            safetensors.torch.load(answer.content)


SAFETENSORS = [
    "application/x-safetensors",
    "Application/X-Safetensors",
    " application/x-safetensors ; q=1.000 ",
    "application/x-safetensors;q=0.001",
    "application/x-safetensors, application/json",
    "application/json, application/x-safetensors",
    "*/*, application/x-safetensors",
    "application/json;q=0.9,\tapplication/x-safetensors",
    "application/json;q=0, */*, application/x-safetensors;q=0.1",
    "application/x-safetensors;q=0.5, application/*;q=0.2, */*",
    "application/json;q=huge, application/x-safetensors;q=0.5",
    'text/html;a="x, y;q=1", application/x-safetensors;Q=0.5',
    "application/x-safetensors;version=1",
    ",;,application/x-safetensors,;;",
]
JSON = [
    "",
    "*/*",
    "application/*",
    "application/json",
    "text/html, application/xhtml+xml",
    "application/x-safetensors;q=0",
    "application/x-safetensors;q=0.000, application/json;q=0",
    "application/json, application/x-safetensors;q=0.5",
    "application/x-safetensors;q=0.5, */*;q=0.8",
    "application/x-safetensors; q = 0.2, application/json; q=0.3",
    "application/x-safetensors;q=0.5, application/*;q=0.8, */*;q=0.1",
    "application/x-safetensors;q=2",
    "application/x-safetensors;q=-1",
    "application/x-safetensors;q=1e0",
    "application/x-safetensors;q=nan",
    "application/x-safetensors;q=",
    "application/x-safetensors;q=٠.٥",
    "application/x-safetensors2",
    "x-application/x-safetensors",
    'text/plain;a="application/x-safetensors, application/x-safetensors"',
    'text/plain;a="b\\", application/x-safetensors',
    '\\""application/x-safetensors\x00\xff;;;q,q=;,=',
]


@pytest.mark.parametrize(("header", "expected"), [(one, True) for one in SAFETENSORS] + [(one, False) for one in JSON])
def test_the_accept_header(header: str, expected: bool) -> None:
    assert prefers(header) is expected


async def test_several_accept_headers_are_one(client: httpx.AsyncClient) -> None:
    for second, media in (("application/json;q=0.1", "application/x-safetensors"), ("*/*", "application/json")):
        headers = [("accept", "application/x-safetensors;q=0.5"), ("accept", second)]
        answer = await client.post("/v1/embeddings", json={"input": "1"}, headers=headers)
        assert answer.headers["content-type"] == media


def test_it_is_documented(several: Engine) -> None:
    paths = create_app(loaded(several), server_settings()).openapi()["paths"]
    for path in ("/v1/embeddings", "/embeddings", "/embeddings_image"):
        content = paths[path]["post"]["responses"]["200"]["content"]
        assert content["application/x-safetensors"]["schema"] == {"type": "string", "format": "binary"}
        assert "application/json" in content
