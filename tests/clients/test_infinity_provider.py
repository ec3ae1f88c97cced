"""The Infinity provider and a live, genuine Infinity 0.0.78: its debugengine gives 13 times a text's length."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.client import EmbeddingGenerationError, create_embedding_client, create_infinity_client
from lemni.client.resize import resize
from tests.clients.conftest import INFINITY_MODELS, KEY
from tests.clients.genuine import DIMENSIONS

TEXTS = [" four  ", "", "seven.."]
RAW = [[length] * DIMENSIONS for length in (4.0, 0.0, 7.0)]


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` and no variable that the client reads."""
    for name in ("INFINITY_TOKEN", "EMBEDDING_TOKEN", "EMBEDDING_MODEL", "EMBEDDING_DIMENSION", "EMBEDDING_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("use_async", [False, True])
def test_vectors(genuine_infinity: str, use_async: bool) -> None:
    def ask(client: Any, texts: Any) -> Any:
        with client:
            return asyncio.run(client.agenerate_embedding(texts)) if use_async else client.generate_embedding(texts)

    raw = create_infinity_client(INFINITY_MODELS[0], genuine_infinity, use_l2_norm=False)
    assert ask(raw, TEXTS) == RAW
    unit = ask(create_infinity_client(INFINITY_MODELS[0], genuine_infinity), TEXTS)
    even = 13**-0.5
    np.testing.assert_allclose(unit, [[even] * 13, [0.0] * 13, [even] * 13], atol=1e-6)
    assert ask(create_infinity_client(INFINITY_MODELS[0], genuine_infinity), "four") == unit[0]


def test_the_environment_is_enough(genuine_infinity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PROVIDER", "infinity")
    monkeypatch.setenv("INFINITY_URL", genuine_infinity + "/")
    with create_embedding_client() as client:  # one model answers to every name
        assert len(client.generate_embedding("Hello, world!")) == DIMENSIONS
        assert client.health_check()


@pytest.mark.parametrize("size", [1, 4, DIMENSIONS, DIMENSIONS + 1, 50])
def test_sizes(genuine_infinity: str, size: int) -> None:
    with create_infinity_client(INFINITY_MODELS[0], genuine_infinity, embedding_dim=size, cache=None) as client:
        found = client.generate_embedding(TEXTS)
        assert client.generate_embedding(TEXTS) == found
    expected = resize(np.array(RAW, np.float32), size, "interpolate" if size > DIMENSIONS else "truncate_or_pad")
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected / np.where(lengths > 0, lengths, 1), atol=1e-6)


def test_long_lists(genuine_infinity: str) -> None:
    """More than the server takes at once."""
    texts = ["a" * (number % 97) for number in range(2500)]
    with create_infinity_client(INFINITY_MODELS[0], genuine_infinity, use_l2_norm=False) as client:
        assert [row[0] for row in client.generate_embedding(texts)] == [len(text) for text in texts]


def test_models(guarded_infinity: str) -> None:
    with create_infinity_client(INFINITY_MODELS[1], guarded_infinity, token=KEY) as client:
        assert client.health_check()
        assert client.get_available_models() == INFINITY_MODELS
        info = client.get_model_info()
        assert info.keys() == {"id", "backend", "capabilities", "created", "stats"}
        assert (info["id"], info["backend"], info["capabilities"]) == (INFINITY_MODELS[1], "debugengine", ["embed"])
        assert len(client.generate_embedding("Hello")) == DIMENSIONS


def test_a_wrong_key(guarded_infinity: str) -> None:
    for token in (None, "wrong"):
        with create_infinity_client(INFINITY_MODELS[0], guarded_infinity, token=token) as client:
            assert client.health_check()  # which needs none
            assert client.get_available_models() == []
            assert client.get_model_info() == {"id": INFINITY_MODELS[0], "backend": "unknown", "capabilities": []}
            with pytest.raises(EmbeddingGenerationError, match=r"^Infinity server returned HTTP error: 401 ") as raised:
                client.generate_embedding("Hello")
        assert "token= or INFINITY_TOKEN" in str(raised.value)


def test_an_unknown_model(guarded_infinity: str) -> None:
    with (
        create_infinity_client("no/such-model", guarded_infinity, token=KEY) as client,
        pytest.raises(EmbeddingGenerationError, match=r"^Infinity server returned HTTP error: 400 ") as raised,
    ):
        client.generate_embedding("Hello")
    for name in INFINITY_MODELS:
        assert name in str(raised.value)
    assert "lemni serve no/such-model --port" in str(raised.value)
