"""What goes wrong between a provider and its server, by real servers that do it: the words of faciliter-lib's page,
what to do about it, and how long it takes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response

from lemni.client import (
    BadAnswer,
    ClientError,
    ConnectionFailed,
    EmbeddingGenerationError,
    PartialFailure,
    RequestTimeout,
    StatusError,
    create_infinity_client,
    create_local_client,
    create_ollama_client,
    create_openai_client,
)
from lemni.errors import LemniError, ModelNotFound
from tests.client.provider_server import BGE, MINILM, Watched, watching
from tests.server.live import free_port

pytestmark = pytest.mark.usefixtures("bare")

MAKE: dict[str, Callable[..., Any]] = {
    "Infinity": create_infinity_client,
    "Ollama": create_ollama_client,
    "OpenAI": create_openai_client,
}
NAMES = list(MAKE)
Answer = Callable[[str, Any], Response]


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


@contextlib.contextmanager
def serving(embed: Answer, models: list[str] | None = None, *, hangs: bool = False) -> Iterator[Watched]:
    """A server that answers every POST by `embed(path, body)`, and lists models if it has a list; or hangs."""
    app = FastAPI(openapi_url=None)
    ended = threading.Event()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def all_of_them(request: Request) -> Response:
        path = request.url.path
        if hangs:
            await asyncio.to_thread(ended.wait)
        if request.method == "POST":
            return embed(path, await request.json())
        if models is None or path not in ("/models", "/api/tags"):
            return answer({"detail": "Not Found"}, 404)
        return answer({"data": [{"id": name} for name in models], "models": [{"name": name} for name in models]})

    with watching(app) as watched:
        try:
            yield watched
        finally:
            ended.set()


def refuse(path: str, body: Any) -> Response:
    raise AssertionError


def failure(client: Any, texts: Any = "Hello", *, use_async: bool = False) -> EmbeddingGenerationError:
    def ask() -> Any:
        return asyncio.run(client.agenerate_embedding(texts)) if use_async else client.generate_embedding(texts)

    with client, pytest.raises(EmbeddingGenerationError) as raised:
        ask()
    assert isinstance(raised.value, ClientError)
    assert isinstance(raised.value, LemniError)
    return raised.value


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_no_server(name: str, use_async: bool) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    began = time.monotonic()
    error = failure(MAKE[name](base_url=url), use_async=use_async)
    assert time.monotonic() - began < 1.5
    assert str(error).startswith(f"Failed to connect to {name} server at {url}: ")
    assert isinstance(error.__cause__, ConnectionFailed)
    assert error.retryable
    if name == "Infinity":
        assert f"lemni serve {BGE} --port {url.rpartition(':')[2]}" in str(error)


def test_no_host() -> None:
    error = failure(create_infinity_client(base_url="http://no-such-host.invalid:7997"))
    assert str(error).startswith("Failed to connect to Infinity server at http://no-such-host.invalid:7997: ")


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize(
    ("name", "timeout", "shown"),
    [("Infinity", 1, "1s"), ("Infinity", 0.4, "0.4s"), ("Ollama", 0.3, "0.3s"), ("OpenAI", 0.3, "0.3s")],
)
def test_a_slow_server(name: str, timeout: float, shown: str, use_async: bool) -> None:
    with serving(refuse, hangs=True) as server:
        began = time.monotonic()
        error = failure(MAKE[name](base_url=server.url, timeout=timeout), use_async=use_async)
        assert timeout * 0.9 < time.monotonic() - began < timeout + 0.7  # all in all
    assert str(error).startswith(f"{name} request timed out after {shown} (")
    assert "Raise timeout=" in str(error)
    assert isinstance(error.__cause__, RequestTimeout)


def test_the_timeout_is_for_all_requests_of_a_call() -> None:
    def busy(path: str, body: Any) -> Response:
        return answer({"error": {"message": "busy"}}, 503, **{"Retry-After": "1"})

    with serving(busy) as server:
        began = time.monotonic()
        error = failure(create_infinity_client(base_url=server.url, timeout=0.8))
        assert time.monotonic() - began < 1.2
    assert str(error).startswith("Infinity server returned HTTP error: 503 busy")
    assert error.retryable
    assert error.status == 503


def test_a_hanging_list_of_models_leaves_time_for_vectors() -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/models")
    async def models() -> Response:
        await asyncio.sleep(1)
        return answer({})

    @app.post("/embeddings")
    async def embed() -> Response:
        return answer({"data": [{"index": 0, "embedding": [3, 4]}]})

    with watching(app) as server, create_infinity_client(base_url=server.url, timeout=0.8) as client:
        assert client.generate_embedding("Hello") == pytest.approx([0.6, 0.8])


def test_retries_get_over_a_hiccup() -> None:
    replies = [answer({}, 503), answer({}, 500), answer({"data": [{"index": 0, "embedding": [3, 4]}]})]
    with serving(lambda path, body: replies.pop(0)) as server, create_infinity_client(base_url=server.url) as client:
        assert client.generate_embedding("Hello") == pytest.approx([0.6, 0.8])
        assert server.inputs == [["Hello"]] * 3


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_not_there(name: str, server: Watched, use_async: bool) -> None:
    error = failure(MAKE[name](model="no/such-model", base_url=server.url), use_async=use_async)
    assert str(error).startswith(f"{name} server returned HTTP error: 404 ")
    assert error.status == 404
    assert not error.retryable
    for word in (BGE, MINILM, "no/such-model"):
        assert word in str(error)


def test_the_models_are_asked_for_where_the_error_does_not_name_them() -> None:
    def unknown(path: str, body: Any) -> Response:
        return answer({"detail": "Not Found"}, 404)

    with serving(unknown, ["one", "two"]) as server:
        error = failure(create_infinity_client(base_url=server.url))
    assert "The server has: one, two. Choose one with model=, or serve it: lemni serve BAAI/" in str(error)
    with serving(unknown) as server:
        error = failure(create_infinity_client(base_url=server.url))
    assert "base_url is not where the server's API begins" in str(error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("status", "words"), [(401, "Give the server's key with "), (429, "overloaded"), (418, "")])
def test_other_refusals(name: str, status: int, words: str) -> None:
    with serving(lambda path, body: answer({"error": {"message": "Sorry."}}, status)) as server:
        error = failure(MAKE[name](base_url=server.url))
    assert str(error).startswith(f"{name} server returned HTTP error: {status} Sorry.")
    assert words in str(error)
    assert (error.status, error.retryable) == (status, status == 429)
    assert isinstance(error.__cause__, StatusError)


def test_a_key() -> None:
    def guarded(path: str, body: Any) -> Response:
        return answer({"data": [{"index": 0, "embedding": [3, 4]}]})

    with serving(guarded, [BGE]) as server, create_infinity_client(base_url=server.url, token="secret") as client:
        client.generate_embedding("Hello")
        assert client.get_available_models() == [BGE]
        client.health_check()
        assert {one.headers["authorization"] for one in server.asked} == {"Bearer secret"}


BROKEN: list[tuple[Any, str]] = [
    (b"<html>", "not JSON"),
    ({}, "data"),
    ({"data": []}, "0 "),
    ({"data": [{"index": 0}]}, "embedding"),
    ({"data": [{"index": 0, "embedding": ["x"]}]}, "vector"),
    ({"data": [{"index": 7, "embedding": [1, 2]}]}, "indices"),
    ({"data": [{"index": 0, "embedding": "AADAfw=="}]}, "NaN"),
]


@pytest.mark.parametrize(("content", "words"), BROKEN)
@pytest.mark.parametrize("use_async", [False, True])
def test_answers_that_are_none(content: Any, words: str, use_async: bool) -> None:
    def embed(path: str, body: Any) -> Response:
        return Response(content, media_type="application/json") if isinstance(content, bytes) else answer(content)

    with serving(embed) as server:
        error = failure(create_infinity_client(base_url=server.url), use_async=use_async)
    assert str(error).startswith("Unexpected error generating embeddings with Infinity: ")
    assert words in str(error)
    assert isinstance(error.__cause__, BadAnswer)


@pytest.mark.parametrize(
    "content", [{}, [], {"embeddings": []}, {"embeddings": [["x"]]}, {"embeddings": [[1], [2]]}, {"embeddings": [1.0]}]
)
def test_answers_that_are_none_of_ollama(content: Any) -> None:
    with serving(lambda path, body: answer(content)) as server:
        error = failure(create_ollama_client(base_url=server.url))
    assert str(error).startswith("Unexpected error generating embeddings with Ollama: ")


def test_vectors_come_by_their_index() -> None:
    def embed(path: str, body: Any) -> Response:
        rows = [{"index": place, "embedding": [float(len(text)), 0]} for place, text in enumerate(body["input"])]
        return answer({"data": rows[::-1]})

    with serving(embed) as server, create_infinity_client(base_url=server.url, use_l2_norm=False) as client:
        assert client.generate_embedding(["a", "bbb", ""]) == [[1, 0], [3, 0], [0, 0]]
    with serving(embed) as server, create_infinity_client(base_url=server.url) as client:
        assert client.generate_embedding(["a", "bbb", ""]) == [[1, 0], [1, 0], [0, 0]]  # zeros stay zero


def test_a_server_that_ignores_dimensions() -> None:
    def embed(path: str, body: Any) -> Response:
        return answer({"data": [{"index": 0, "embedding": [1, 1, 1, 1, 9, 9]}]})

    with serving(embed) as server, create_infinity_client(base_url=server.url, embedding_dim=2) as client:
        assert client.generate_embedding("a") == pytest.approx([3 / 370**0.5, 19 / 370**0.5])
        assert server.asked[-1].body["dimensions"] == 2


def test_errors_are_not_cached_and_finished_parts_are() -> None:
    poison = "poison"

    def embed(path: str, body: Any) -> Response:
        if poison in body["input"]:
            return answer({"error": {"message": "no"}}, 500)
        return answer({"data": [{"index": place, "embedding": [1, 2]} for place in range(len(body["input"]))]})

    texts = [f"Text {number}" for number in range(300)] + [poison]
    with serving(embed) as server, create_infinity_client(base_url=server.url) as client:
        with pytest.raises(EmbeddingGenerationError) as raised:
            client.generate_embedding(texts)
        assert str(raised.value).startswith("Infinity server returned HTTP error: 500 no")
        assert str(raised.value).endswith("[45 of 301 texts have no vector]")
        assert isinstance(raised.value.__cause__, PartialFailure)
        assert raised.value.__cause__.missing == list(range(256, 301))
        poison = "nothing"
        server.asked.clear()
        assert len(client.generate_embedding(texts)) == 301
        assert [len(inputs) for inputs in server.inputs] == [45]


def test_the_item_is_named() -> None:
    def embed(path: str, body: Any) -> Response:
        return answer({"error": {"message": "input[1] is too long", "param": "input[1]"}}, 400)

    with serving(embed) as server:
        error = failure(create_infinity_client(base_url=server.url), ["a", "long", "c"])
    assert error.item == 1
    assert "input[1] is too long" in str(error)


def test_another_server_takes_over(server: Watched) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    with create_infinity_client(MINILM, f"{dead}, {server.url}/") as client:
        assert client.base_url == f"{dead},{server.url}"
        assert len(client.generate_embedding("Hello")) == 384
        assert client.health_check()
    other = f"http://127.0.0.1:{free_port()}"
    error = failure(create_infinity_client(MINILM, f"{dead},{other}"))
    assert str(error).startswith(f"Failed to connect to Infinity server at {dead},{other}: ")


def test_a_hanging_server_leaves_time_for_the_other(server: Watched) -> None:
    with (
        serving(refuse, hangs=True) as slow,
        create_infinity_client(MINILM, f"{slow.url},{server.url}", timeout=2) as client,
    ):
        assert len(client.generate_embedding("Hello")) == 384


@pytest.mark.parametrize("use_async", [False, True])
def test_health(use_async: bool) -> None:
    """/health first, else a test text; never an error."""

    def healthy(client: Any) -> bool:
        with client:
            return bool(asyncio.run(client.ahealth_check()) if use_async else client.health_check())

    assert not healthy(create_infinity_client(base_url=f"http://127.0.0.1:{free_port()}"))
    good = answer({"data": [{"index": 0, "embedding": [3, 4]}]})
    with serving(lambda path, body: good) as server:
        assert healthy(create_infinity_client(base_url=server.url))
        assert [one.path for one in server.asked] == ["/health", "/embeddings"]
        assert server.inputs == [["test"]]
    for broken in (answer({}), answer({}, 500)):
        with serving(lambda path, body, broken=broken: broken) as server:  # type: ignore[misc]
            assert not healthy(create_infinity_client(base_url=server.url))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_known_without_a_server(name: str) -> None:
    with MAKE[name](base_url=f"http://127.0.0.1:{free_port()}") as client:
        assert client.get_available_models() == asyncio.run(client.aget_available_models()) == []
        unknown = {"id": client.model, "backend": "unknown", "capabilities": []}
        assert client.get_model_info() == asyncio.run(client.aget_model_info()) == unknown


@pytest.mark.parametrize(
    "fields", [{}, {"backend": "torch", "capabilities": ["embed"], "created": 7, "stats": {"a": 1}}]
)
def test_model_info(fields: dict[str, Any]) -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/models")
    async def models() -> Response:
        return answer({"data": [{"id": "other"}, {"id": BGE, "object": "model", **fields}]})

    defaults = {"backend": "unknown", "capabilities": [], "created": None, "stats": {}}
    with watching(app) as server:
        with create_infinity_client(base_url=server.url) as client:
            assert client.get_model_info() == {"id": BGE, **defaults, **fields}
        with create_infinity_client("neither", server.url) as client:
            assert client.get_model_info() == {"id": "neither", "backend": "unknown", "capabilities": []}


def test_a_revision_parts_the_cache() -> None:
    """A model that is replaced behind its name is asked again, not remembered."""
    revision = "one"
    app = FastAPI(openapi_url=None)

    @app.get("/models")
    async def models() -> Response:
        return answer({"data": [{"id": BGE, "revision": revision}]})

    @app.post("/embeddings")
    async def embed(request: Request) -> Response:
        await request.body()
        return answer({"data": [{"index": 0, "embedding": [3, 4]}]})

    with watching(app) as server, create_infinity_client(base_url=server.url) as first:
        for revision in ("one", "one", "two"):  # noqa: B007
            with create_infinity_client(base_url=server.url, cache=first.cache) as client:
                client.generate_embedding("Hello")
        assert len(server.inputs) == 2


def test_a_digest_of_ollama_parts_the_cache() -> None:
    digest = "one"
    app = FastAPI(openapi_url=None)

    @app.get("/api/tags")
    async def tags() -> Response:
        return answer({"models": [{"name": "other:latest", "digest": "x"}, {"name": "mine:latest", "digest": digest}]})

    @app.post("/api/embed")
    async def embed(request: Request) -> Response:
        await request.body()
        return answer({"embeddings": [[3, 4]]})

    with watching(app) as server, create_ollama_client("mine", base_url=server.url) as first:
        for digest in ("one", "one", "two"):  # noqa: B007
            with create_ollama_client("mine", base_url=server.url, cache=first.cache) as client:
                assert client.generate_embedding("Hello") == pytest.approx([0.6, 0.8])
        assert len(server.inputs) == 2


@pytest.mark.parametrize("use_async", [False, True])
def test_a_local_model_that_is_not_there(use_async: bool, bare: Any) -> None:
    client = create_local_client(str(bare / "nowhere"))
    error = failure(client, use_async=use_async)
    assert str(error).startswith(f"Unexpected error generating embeddings with local model {bare / 'nowhere'}: ")
    assert isinstance(error.__cause__, ModelNotFound)
    with create_local_client(str(bare / "nowhere")) as client:
        assert client.health_check() is False
        assert client.get_available_models() == []
        assert client.get_model_info()["backend"] == "unknown"
