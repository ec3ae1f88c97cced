"""Cohere's routes over the real default model and tiny ones: shapes, number types, classification, errors."""

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
from lemni.server.dialects import cohere
from lemni.tasks.output_types import restore
from lemni.tasks.ranges import Ranges, key_of
from tests.server.conftest import client_of
from tests.server.dialects.test_infinity import CATS, post
from tests.server.live import loaded, server_settings
from tests.tiny_multimodal import picture

TYPES = ["float", "int8", "uint8", "binary", "ubinary", "base64"]


def png(seed: int = 0) -> str:
    return "data:image/png;base64," + base64.b64encode(picture(seed=seed)).decode()


def measured(client: httpx.AsyncClient, cache: Path, **options: Any) -> NDArray[np.float32]:
    """The int8 ranges that the only model of a client's server has in the cache folder."""
    [card] = client._transport.app.state.service.names.cards.values()  # type: ignore[attr-defined]
    ranges = Ranges(cache).get(key_of(card), **options)
    assert ranges is not None
    return ranges


async def floats(client: httpx.AsyncClient, **body: Any) -> NDArray[np.float32]:
    answer = await post(client, "/v1/embeddings", body)
    return np.array([one["embedding"] for one in answer["data"]], np.float32)


async def test_v1_without_types_is_a_list_of_vectors(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/v1/embed", {"texts": CATS, "input_type": "search_document", "truncate": "END"})
    assert answer["response_type"] == "embeddings_floats"
    np.testing.assert_array_equal(np.float32(answer["embeddings"]), await floats(real, input=CATS))
    assert answer["texts"] == CATS
    assert isinstance(answer["id"], str)
    assert answer["meta"]["api_version"] == {"version": "1"}
    assert answer["meta"]["billed_units"]["input_tokens"] > len(CATS)


@pytest.mark.parametrize("path", ["/v1/embed", "/v2/embed", "/v1/v2/embed"])
async def test_all_types_at_once(real: httpx.AsyncClient, cache: Path, path: str) -> None:
    from sentence_transformers.quantization import quantize_embeddings

    answer = await post(real, path, {"texts": CATS, "input_type": "search_query", "embedding_types": TYPES})
    assert answer["response_type"] == "embeddings_by_type"
    found = answer["embeddings"]
    assert list(found) == TYPES
    vectors = np.float32(found["float"])
    np.testing.assert_array_equal([np.frombuffer(base64.b64decode(one), "<f4") for one in found["base64"]], vectors)
    for kind in ("binary", "ubinary"):
        np.testing.assert_array_equal(found[kind], quantize_embeddings(vectors, kind))
    np.testing.assert_array_equal(found["uint8"], quantize_embeddings(vectors, "uint8", ranges=measured(real, cache)))
    np.testing.assert_array_equal(np.array(found["int8"]) + 128, found["uint8"])


async def test_int8_of_a_text_is_the_same_alone_in_a_batch_and_after_a_restart(
    real: httpx.AsyncClient, real_engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"embedding_types": ["int8"], "input_type": "search_query"}
    together = (await post(real, "/v2/embed", {"texts": CATS, **body}))["embeddings"]["int8"]
    alone = (await post(real, "/v2/embed", {"texts": CATS[1:2], **body}))["embeddings"]["int8"]
    assert np.abs(np.subtract(alone[0], together[1])).max() <= 1  # a value on the border of a step
    # Another server with the same folder measures nothing again.
    monkeypatch.setattr("lemni.server.quantized.calibration_request", lambda: pytest.fail("measured again"))
    async with client_of(create_app(loaded(real_engine), server_settings(), cache_dir=cache)) as other:
        assert (await post(other, "/v2/embed", {"texts": CATS, **body}))["embeddings"]["int8"] == together


async def test_int8_ranges_are_those_of_the_dimensions(real: httpx.AsyncClient, cache: Path) -> None:
    answer = await post(real, "/v2/embed", {"texts": CATS, "embedding_types": ["int8"], "output_dimension": 64})
    codes = np.array(answer["embeddings"]["int8"], np.int8)
    again = restore(codes, "int8", ranges=measured(real, cache, dimensions=64))
    exact = await floats(real, input=CATS, dimensions=64)
    assert (np.sum(again * exact, axis=1) / np.linalg.norm(again, axis=1)).min() > 0.999


async def test_v2_gives_types_always(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/v2/embed", {"texts": CATS, "output_dimension": 32, "priority": 3})
    np.testing.assert_array_equal(
        np.float32(answer["embeddings"]["float"]), await floats(real, input=CATS, dimensions=32)
    )
    assert answer["meta"]["api_version"] == {"version": "2"}


async def test_max_tokens_and_truncate(real: httpx.AsyncClient) -> None:
    long = "one two three four five six"
    for side, kept in (("END", "one two three"), ("START", "four five six")):
        answer = await post(real, "/v2/embed", {"texts": [long], "max_tokens": 5, "truncate": side})
        np.testing.assert_allclose(answer["embeddings"]["float"], await floats(real, input=[kept]), atol=1e-5)
    error = await post(real, "/v2/embed", {"texts": ["a", long], "max_tokens": 5, "truncate": "NONE"}, 400)
    assert error.keys() == {"message"}
    assert "texts[1] has 8 tokens" in error["message"]


@pytest.mark.parametrize(
    ("word", "prompt"),
    [
        ("search_query", "query"),
        ("search_document", "document"),
        ("classification", "classification"),
        ("clustering", None),
        (None, None),
    ],
)
async def test_input_types_take_prompts(zoo: httpx.AsyncClient, word: str | None, prompt: str | None) -> None:
    answer = await post(zoo, "/v2/embed", {"model": "prompted", "texts": ["a cat", "who"], "input_type": word})
    expected = await floats(zoo, model="prompted", input=["a cat", "who"], prompt_name=prompt)
    np.testing.assert_allclose(answer["embeddings"]["float"], expected, atol=1e-6)


async def test_images_and_parts(zoo: httpx.AsyncClient) -> None:
    images = {"model": "clip", "images": [png(), png(1)], "input_type": "image", "embedding_types": ["float"]}
    v1 = await post(zoo, "/v1/embed", images)
    vectors = np.array(v1["embeddings"]["float"])
    assert vectors.shape == (2, 16)
    assert v1["meta"]["billed_units"]["images"] == 2
    assert v1["texts"] == []
    inputs = [
        {"content": [{"type": "image_url", "image_url": {"url": png(1)}}]},
        {"content": [{"type": "text", "text": "a cat"}]},
    ]
    v2 = await post(zoo, "/v2/embed", {"model": "clip", "inputs": inputs})
    np.testing.assert_allclose(v2["embeddings"]["float"][0], vectors[1], atol=1e-5)
    text = await floats(zoo, model="clip", input=["a cat"])
    np.testing.assert_allclose(v2["embeddings"]["float"][1], text[0], atol=1e-5)


async def test_an_answer_has_not_any_number_of_confidences(
    real: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cohere, "_MOST_CONFIDENCES", 5)
    examples = [{"text": text, "label": text} for text in ("a", "b")]
    await post(real, "/v1/classify", {"inputs": ["a"] * 2, "examples": examples})
    error = await post(real, "/v1/classify", {"inputs": ["a"] * 3, "examples": examples}, 400)
    assert "3 texts and examples have 2 labels" in error["message"]


async def test_classify_by_examples(real: httpx.AsyncClient) -> None:
    examples = [
        {"text": "Felines love to nap.", "label": "animals"},
        {"text": "My dog runs in the park.", "label": "animals"},
        {"text": "A compiler translates code.", "label": "computers"},
        {"text": "Python is interpreted.", "label": "computers"},
    ]
    answer = await post(real, "/v1/classify", {"inputs": CATS[:2], "examples": examples})
    found = answer["classifications"]
    assert [one["prediction"] for one in found] == ["animals", "computers"]
    assert [one["input"] for one in found] == CATS[:2]
    vectors = await floats(real, input=[*CATS[:2], *(one["text"] for one in examples)])
    weights = np.exp(vectors[:2] @ vectors[2:].T / 0.07)  # arXiv:1805.01978
    shares = weights.reshape(2, 2, 2).sum(axis=2) / weights.sum(axis=1, keepdims=True)
    for one, share in zip(found, shares, strict=True):
        labels = {label: value["confidence"] for label, value in one["labels"].items()}
        assert labels == pytest.approx({"animals": share[0], "computers": share[1]}, abs=1e-4)
        assert one["confidence"] == max(labels.values())
        assert one["classification_type"] == "single-label"


async def test_classify_by_a_classifier(zoo: httpx.AsyncClient, zoo_folder: Path) -> None:
    import transformers

    texts = ["a cat", "who is it"]
    for model in ("labels", "tags"):
        pipeline = transformers.pipeline("text-classification", str(zoo_folder / model), top_k=None, device="cpu")
        answer = await post(zoo, "/v1/classify", {"model": model, "inputs": texts})
        for one, expected in zip(answer["classifications"], pipeline(texts), strict=True):
            wanted = {entry["label"]: entry["score"] for entry in expected}
            assert {label: v["confidence"] for label, v in one["labels"].items()} == pytest.approx(wanted, abs=1e-5)
            sure = [entry["label"] for entry in expected if entry["score"] >= 0.5]
            assert one["predictions"] == (sure if model == "tags" else [expected[0]["label"]])
            assert one["prediction"] == (None if model == "tags" else expected[0]["label"])
            assert one["classification_type"] == ("multi-label" if model == "tags" else "single-label")


async def test_tokenize_and_back(real: httpx.AsyncClient) -> None:
    answer = await post(real, "/v1/tokenize", {"text": "A cat naps unbelievably."})
    assert answer["tokens"][:2] == [1037, 4937]
    assert len(answer["token_strings"]) == len(answer["tokens"])
    assert answer["token_strings"][:2] == ["A", "cat"]
    back = await post(real, "/v1/detokenize", {"tokens": answer["tokens"]})
    assert back["text"] == "a cat naps unbelievably."
    error = await post(real, "/v1/detokenize", {"tokens": [5, 99_999]}, 400)
    assert error["message"].startswith("tokens holds token id 99999")


async def test_models(real: httpx.AsyncClient) -> None:
    [model] = (await real.get("/v1/models")).json()["models"]
    assert model == {
        "name": "sentence-transformers/all-MiniLM-L6-v2",
        "endpoints": ["embed", "rerank"],
        "context_length": 256,
    }


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/embed", {}, 400, "exactly one of texts, images and inputs; it has none of them"),
        ("/v2/embed", {"texts": ["a"], "images": ["x"]}, 400, "it has texts and images"),
        ("/v2/embed", {"texts": []}, 400, "texts is an empty list"),
        ("/v2/embed", {"texts": ["a"] * 9}, 400, "texts has 9 items"),
        ("/v2/embed", {"texts": ["a", 1]}, 400, "texts[1] is a number"),
        ("/v2/embed", {"images": [1]}, 400, "images[0] is a number"),
        ("/v2/embed", {"images": [png()]}, 400, "takes no image"),
        ("/v2/embed", {"inputs": [{"content": []}]}, 400, "inputs[0].content is an empty list"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["int4"]}, 400, "'int4'"),
        ("/v2/embed", {"texts": ["a"], "input_type": "nonsense"}, 400, "clustering"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 0}, 400, "max_tokens is 0"),
        ("/v2/embed", {"texts": ["a"], "model": "embed-v4.0"}, 404, "not served here"),
        ("/v1/classify", {"inputs": ["a"]}, 400, "does not do classification"),
        ("/v1/classify", {"inputs": ["a"], "examples": [{"text": "a"}]}, 400, "examples[0] must be an object"),
        ("/v1/classify", {"inputs": ["a"], "examples": [{"text": "a", "label": "b"}]}, 400, "at least two labels"),
        ("/v1/tokenize", {}, 400, "text is missing"),
        ("/v1/detokenize", {"tokens": ["a"]}, 400, "tokens"),
    ],
)
async def test_errors(real: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, says: str) -> None:
    error = await post(real, path, body, status)
    assert error.keys() == {"message"}
    assert says in error["message"]
