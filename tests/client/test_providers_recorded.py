"""The Infinity provider and what a genuine Infinity 0.0.78 has answered to the requests of its page."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from lemni.client import EmbeddingGenerationError, StatusError, create_infinity_client
from lemni.client.resize import resize
from tests.client.recordings import recorded, replaying

pytestmark = pytest.mark.usefixtures("bare")

HELLO = "Hello, world!"
FOUR = ["Hello", "World", "Embedding", "Test"]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def same(found: Any, name: str) -> None:
    """Of length 1, so but for the last bit."""
    np.testing.assert_allclose(found, np.stack(recorded(name).vectors()), atol=1e-7)


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize(
    ("texts", "arguments", "name"),
    [
        (HELLO, {}, "dense-one-base64"),
        (HELLO, {"embedding_dim": 384}, "dense-one-384-base64"),
        (FOUR, {}, "dense-four-base64"),
        (FOUR, {"embedding_dim": 384}, "dense-four-384-base64"),
        ("Test", {"model": MINILM}, "dense-other-model-base64"),
        ("Test text", {}, "dense-error-handling-base64"),
    ],
)
def test_vectors(texts: Any, arguments: Any, name: str, use_async: bool) -> None:
    with replaying("models", name) as replay, create_infinity_client(base_url=replay.url, **arguments) as client:
        found = asyncio.run(client.agenerate_embedding(texts)) if use_async else client.generate_embedding(texts)
        assert client.generate_embedding(texts) == found
        assert replay.answered == ["models", name]
    same([found] if isinstance(texts, str) else found, name)


def test_raw_vectors_are_to_the_bit_those_of_the_server() -> None:
    with replaying("models", "dense-one-base64") as replay:
        client = create_infinity_client(base_url=replay.url, use_l2_norm=False)
        assert client.generate_embedding(HELLO) == recorded("dense-one-float").reply["data"][0]["embedding"]


def test_only_the_misses_of_a_batch() -> None:
    with replaying("models", "dense-one-base64", "dense-four-base64") as replay:
        client = create_infinity_client(base_url=replay.url)
        client.generate_embedding(FOUR)
        found = client.generate_embedding(["Test", HELLO, "Hello"])
        assert replay.answered == ["models", "dense-four-base64", "dense-one-base64"]
    four, (one,) = recorded("dense-four-base64").vectors(), recorded("dense-one-base64").vectors()
    np.testing.assert_allclose(found, np.stack([four[3], one, four[0]]), atol=1e-7)


def test_more_values_than_the_model_has() -> None:
    with replaying("models", "dense-385", "dense-one-base64") as replay:
        client = create_infinity_client(base_url=replay.url, embedding_dim=385)
        found = client.generate_embedding(HELLO)
        assert replay.answered == ["models", "dense-385", "dense-one-base64"]
    expected = resize(np.stack(recorded("dense-one-base64").vectors()), 385, "interpolate")
    np.testing.assert_allclose([found], expected, atol=1e-6)


def test_health_and_models() -> None:
    with replaying("health", "models") as replay:
        client = create_infinity_client(base_url=replay.url)
        assert client.health_check()
        listed = recorded("models").reply["data"]
        assert client.get_available_models() == [model["id"] for model in listed]
        wanted = {name: listed[0][name] for name in ("id", "backend", "capabilities", "created", "stats")}
        assert client.get_model_info() == wanted


def test_an_unknown_model() -> None:
    with replaying("models", "unknown-model") as replay:
        client = create_infinity_client("no/such-model", replay.url)
        with pytest.raises(EmbeddingGenerationError) as raised:
            client.generate_embedding("Hello")
    words = str(raised.value)
    assert words.startswith("Infinity server returned HTTP error: 400 Invalid model: Engine for model name")
    assert isinstance(raised.value.__cause__, StatusError)
    assert "lemni serve no/such-model --port" in words
    assert words.count("BAAI/bge-small-en-v1.5") == 1  # the server has said what it has
