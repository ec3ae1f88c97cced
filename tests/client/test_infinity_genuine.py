"""`InfinityEmbeddings` and a live Infinity 0.0.78, whose only engine here has one vector per text."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from lemni.client import InfinityEmbeddings
from lemni.client.errors import BadAnswer, StatusError
from tests.clients.conftest import INFINITY_MODELS, KEY
from tests.clients.genuine import infinity
from tests.tiny_multimodal import picture


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server that serves two models and wants a key."""
    models = [argument for name in INFINITY_MODELS for argument in ("--model-id", name)]
    with infinity(tmp_path_factory.mktemp("infinity"), *models, "--api-key", KEY) as url:
        yield url


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_one_vector_per_text_is_not_cut_into_many(url: str, encoding: str) -> None:
    """13 numbers, of which `hidden_dim=13` would make a multi-vector of one row."""
    embeddings = InfinityEmbeddings(url + "/", INFINITY_MODELS[1], encoding, 13, api_key=KEY)  # type: ignore[arg-type]
    with embeddings:
        with pytest.raises(BadAnswer, match="one vector per input"):
            embeddings.embed_text("text")
        with pytest.raises(BadAnswer, match="one vector per input"):
            asyncio.run(embeddings.aembed_documents(["text", "another"]))


def test_what_the_server_refuses(url: str) -> None:
    with InfinityEmbeddings(url, INFINITY_MODELS[0]) as embeddings, pytest.raises(StatusError, match="401"):
        embeddings.embed_text("text")
    with InfinityEmbeddings(url, "no/such-model", api_key=KEY) as embeddings:
        with pytest.raises(StatusError, match="Invalid model") as caught:
            embeddings.embed_documents_batch(["text"] * 30)
        assert caught.value.status == 400


def test_a_data_uri_is_an_image_to_the_server(url: str) -> None:
    """It says that the model sees nothing, not that this is no image (tests/clients/test_genuine_infinity.py)."""
    with InfinityEmbeddings(url, INFINITY_MODELS[0], api_key=KEY) as embeddings:
        for image in (picture(), picture(kind="JPEG"), picture(kind="GIF")):
            with pytest.raises(StatusError, match="does not support `embed` for modality `image`"):
                embeddings.embed_images([image])
