"""The official openai client, sync and async, against a live server with the real model."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterator

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from lemni.server.app import create_app
from tests.clients.conftest import KEY, MODEL, TEXTS
from tests.engine.toy import Gate, ToyModel, engine_of, expected, request
from tests.server.live import PATIENCE_S, listening, loaded, server_settings

Check = Callable[[object], None]


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def test_default_is_base64_and_right(client: openai.OpenAI, same: Check) -> None:
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=TEXTS)
    assert b'"encoding_format":"base64"' in raw.http_request.content
    assert raw.http_response.json()["data"][0]["embedding"][:4].isalnum()
    answer = raw.parse()
    assert [entry.index for entry in answer.data] == list(range(len(TEXTS)))
    assert answer.model == MODEL
    same([entry.embedding for entry in answer.data])
    assert raw.request_id


def test_float_equals_base64(client: openai.OpenAI) -> None:
    base64 = client.embeddings.create(model=MODEL, input=TEXTS)
    floats = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    for one, other in zip(base64.data, floats.data, strict=True):
        np.testing.assert_array_equal(np.float32(one.embedding), np.float32(other.embedding))
    assert base64.usage == floats.usage


def test_usage_is_what_the_tokenizer_counts(client: openai.OpenAI) -> None:
    usage = client.embeddings.create(model=MODEL, input=["A cat sits on the mat.", ""]).usage
    assert (usage.prompt_tokens, usage.total_tokens) == (11, 11)  # [CLS] a cat sits on the mat . [SEP]; [CLS] [SEP]


def test_text_and_token_ids(client: openai.OpenAI) -> None:
    ids = [101, 1037, 4937, 102]  # [CLS] a cat [SEP]
    by_text = client.embeddings.create(model=MODEL, input="a cat").data[0].embedding
    np.testing.assert_allclose(client.embeddings.create(model=MODEL, input=ids).data[0].embedding, by_text, atol=1e-6)
    listed = client.embeddings.create(model=MODEL, input=[ids, ids])
    for entry in listed.data:
        np.testing.assert_allclose(entry.embedding, by_text, atol=1e-6)


def test_dimensions(client: openai.OpenAI, reference: NDArray[np.float32]) -> None:
    for size in (1, 64, 384):
        answer = client.embeddings.create(model=MODEL, input=TEXTS, dimensions=size)
        cut = reference[:, :size] / np.linalg.norm(reference[:, :size], axis=1, keepdims=True)
        np.testing.assert_allclose([entry.embedding for entry in answer.data], cut, atol=1e-4)


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "lemni")
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.models.retrieve("text-embedding-3-small")


def test_a_base_url_without_v1(server: str, same: Check) -> None:
    for base in (server, f"{server}/"):
        with openai.OpenAI(base_url=base, api_key=KEY, max_retries=0) as client:
            same([entry.embedding for entry in client.embeddings.create(model=MODEL, input=TEXTS).data])
            (model,) = client.models.list().data  # this path is Infinity's too, whose clients insist on the owner
            assert (model.id, model.object, model.owned_by) == (MODEL, "model", "infinity")


async def test_async(server: str, same: Check) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key=KEY, max_retries=0) as client:
        same([entry.embedding for entry in (await client.embeddings.create(model=MODEL, input=TEXTS)).data])
        assert [model.id async for model in client.models.list()] == [MODEL]
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model="nothing", input="a")


def test_error_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"input has 9 items.*at most 8") as bad:
        client.embeddings.create(model=MODEL, input=["a"] * 9)
    assert (bad.value.type, bad.value.param, bad.value.code) == ("invalid_request_error", "input", "too_many_items")
    with pytest.raises(openai.BadRequestError, match="dimensions is 385"):
        client.embeddings.create(model=MODEL, input="a", dimensions=385)
    with pytest.raises(openai.NotFoundError, match="'text-embedding-3-small' is not served") as unknown:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError, match="API key is wrong"):
        client.with_options(api_key="sk-wrong").models.list()
    assert client.embeddings.create(model=MODEL, input="a").data


def test_overload_is_a_rate_limit_and_is_tried_again() -> None:
    toy = ToyModel()
    toy.gates[9] = gate = Gate()
    with (
        engine_of(toy, max_queue_tokens=20) as engine,
        listening(create_app(loaded(engine), server_settings())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        held = engine.submit("toy", request("9"))
        gate.wait_entered()
        waiting = engine.submit("toy", request("1 " * 18))
        with pytest.raises(openai.RateLimitError, match="the queue holds") as limited:
            client.embeddings.create(model="toy", input="5 5 5")
        assert limited.value.code == "overloaded"
        assert "retry-after" in limited.value.response.headers
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            patient = client.with_options(max_retries=8)
            again = pool.submit(patient.embeddings.create, model="toy", input="5 5 5")
            until = time.monotonic() + PATIENCE_S
            while engine.status()["toy"].errors["overloaded"] < 2 and time.monotonic() < until:
                time.sleep(0.005)
            gate.open()
            assert again.result(PATIENCE_S).data[0].embedding == expected("5 5 5")
        assert held.result(PATIENCE_S).vectors.shape == waiting.result(PATIENCE_S).vectors.shape == (1, 4)
