"""What all providers do: vectors of texts as sentence-transformers gives them, sync and async, sizes, the cache."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni import hub
from lemni.client import (
    BaseEmbeddingClient,
    EmbeddingCache,
    EmbeddingGenerationError,
    InfinityEmbeddingClient,
    create_infinity_client,
    create_local_client,
    create_ollama_client,
    create_openai_client,
)
from lemni.client.cache import MemoryStore
from lemni.client.resize import resize
from lemni.errors import InvalidRequest
from tests.client.provider_server import MINILM, Watched

pytestmark = pytest.mark.usefixtures("bare")

TEXTS = [
    "A cat sits on the mat.",
    "",
    "Eine Katze 🙂",
    "The stock market fell.\nAnalysts were surprised.",
    "word " * 100,
]
PROVIDERS = ["infinity", "ollama", "openai", "openai with /v1", "local"]


@pytest.fixture(scope="module")
def reference(minilm: hub.ModelFiles) -> NDArray[np.float32]:
    """float32 [TEXTS, 384] by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm.path), device="cpu")
    vectors: NDArray[np.float32] = model.encode(TEXTS, batch_size=1)
    return vectors


def make(provider: str, url: str, **arguments: Any) -> Any:
    arguments = {"model": MINILM, **arguments}
    if provider == "infinity":
        return create_infinity_client(base_url=url, **arguments)
    if provider == "ollama":
        return create_ollama_client(base_url=url, **arguments)
    if provider == "local":
        return create_local_client(device="cpu", **arguments)
    return create_openai_client(base_url=url + ("/v1" if "v1" in provider else ""), **arguments)


@pytest.fixture(params=PROVIDERS)
def client(request: Any, server: Watched) -> Iterator[Any]:
    with make(request.param, server.url) as client:
        yield client


def same(found: Any, expected: NDArray[np.float32]) -> None:
    assert type(found) is list
    for row in found:
        assert type(row) is list
        assert {type(value) for value in row} == {float}
    np.testing.assert_allclose(np.array(found), expected, atol=5e-6)


def test_vectors(client: Any, reference: NDArray[np.float32]) -> None:
    same(client.generate_embedding(TEXTS), reference)
    client.cache.clear()
    same([client.generate_embedding(text) for text in TEXTS], reference)
    client.cache.clear()
    same(client.generate_embedding_batch(TEXTS[::-1]), reference[::-1])
    same([client.generate_embedding_single(TEXTS[2])], reference[2:3])
    assert client.get_embedding_time_ms() == client.embedding_time_ms > 0


async def test_async_gives_the_same_floats(client: Any, reference: NDArray[np.float32]) -> None:
    found = await client.agenerate_embedding(TEXTS)
    same(found, reference)
    client.cache.clear()
    assert await asyncio.to_thread(client.generate_embedding, TEXTS) == found
    client.cache.clear()
    assert await client.agenerate_embedding_batch(TEXTS) == found
    assert await client.agenerate_embedding(TEXTS[0]) == found[0]
    assert await client.agenerate_embedding_single(TEXTS[2]) == found[2]
    assert await client.agenerate_embedding([]) == []
    assert await client.ahealth_check() is client.health_check() is True
    assert await client.aget_available_models() == client.get_available_models()
    info, again = await client.aget_model_info(), client.get_model_info()
    assert info.keys() == again.keys() >= {"id", "backend", "capabilities"}
    assert info["id"] == again["id"] == MINILM
    await client.aclose()


def test_a_client_serves_one_event_loop_after_another(client: Any, reference: NDArray[np.float32]) -> None:
    """Loops that have ended take their connections with them, without a warning."""
    for row, text in enumerate(TEXTS):
        same([asyncio.run(client.agenerate_embedding(text))], reference[row : row + 1])

    def other(row: int) -> Any:
        return asyncio.run(client.agenerate_embedding([TEXTS[row], f"other {row}"]))[0]

    with ThreadPoolExecutor(4) as pool:
        same(list(pool.map(other, range(len(TEXTS)))), reference)
    gc.collect()


def test_it_says_that_it_is_well(client: Any) -> None:
    assert client.health_check() is True
    assert MINILM in [name.removesuffix(":latest") for name in client.get_available_models()]
    info = client.get_model_info()
    assert info["id"] == MINILM
    assert info["backend"] != "unknown"


def test_the_cache_takes_what_it_has(client: Any, server: Watched, reference: NDArray[np.float32]) -> None:
    first = client.generate_embedding(TEXTS[0])
    mixed = client.generate_embedding([TEXTS[1], TEXTS[0], TEXTS[2], TEXTS[1]])
    assert mixed[1] == first
    assert mixed[0] == mixed[3]
    same(mixed, reference[[1, 0, 2, 1]])
    assert client.generate_embedding([TEXTS[1], TEXTS[0], TEXTS[2], TEXTS[1]]) == mixed
    if client.provider != "local":
        assert server.inputs == [[TEXTS[0]], [TEXTS[1], TEXTS[2]]]  # only the misses, in one request
    statistics = client.cache.statistics
    assert (statistics.hits, statistics.misses, statistics.stored) == (4, 3, 3)


@pytest.mark.parametrize("arguments", [{"cache": None}, {"cache_duration_seconds": 0}])
def test_without_a_cache(server: Watched, arguments: dict[str, Any]) -> None:
    with make("infinity", server.url, **arguments) as client:
        assert client.cache is None
        first, again = client.generate_embedding("Hello"), client.generate_embedding("Hello")
        assert first == again
    assert [one.path for one in server.asked] == ["/embeddings"] * 2
    with make("infinity", server.url) as cached:
        assert cached.generate_embedding("Hello") == cached.generate_embedding("Hello") == first


def test_a_cache_on_disk_outlives_the_client(server: Watched, bare: Path) -> None:
    arguments: dict[str, Any] = {"cache": f"disk:{bare / 'vectors'}"}
    with make("infinity", server.url, **arguments) as client:
        first = client.generate_embedding(TEXTS)
    with make("infinity", server.url, **arguments) as client:
        assert client.generate_embedding(TEXTS) == first
    assert len(server.inputs) == 1


def test_a_shared_cache_keeps_apart_what_differs(server: Watched) -> None:
    """Provider, URL, model and dimension; not what is done to a vector when it has come."""
    cache = EmbeddingCache(MemoryStore())
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("infinity", server.url, {}),
        ("openai", server.url, {}),
        ("infinity", server.url.replace("127.0.0.1", "localhost"), {}),
        ("infinity", server.url, {"embedding_dim": 128}),
        ("infinity", server.url, {"model": "BAAI/bge-small-en-v1.5"}),
    ]
    for provider, url, arguments in others:
        with make(provider, url, cache=cache, **arguments) as client:
            client.generate_embedding("Hello")
    assert len(server.inputs) == len(others)
    with make("infinity", server.url, cache=cache, use_l2_norm=False) as client:
        client.generate_embedding("Hello")
        client.close()
    assert len(server.inputs) == len(others)
    assert cache.statistics.entries == len(others)  # given, so not closed with the clients


def test_equal_misses_at_the_same_time_are_one_request(server: Watched) -> None:
    with make("infinity", server.url) as client, ThreadPoolExecutor(8) as pool:
        start = threading.Barrier(8)

        def ask(_: int) -> Any:
            start.wait()
            return client.generate_embedding("The same for all")

        rows = list(pool.map(ask, range(8)))
    assert rows == [rows[0]] * 8
    assert len(server.inputs) == 1


def test_no_texts_no_request(server: Watched) -> None:
    with make("infinity", server.url) as client:
        assert client.generate_embedding([]) == client.generate_embedding_batch([]) == []
    assert server.asked == []


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (None, "it is of type NoneType"),
        (7, "it is of type int"),
        (("a", "b"), "it is of type tuple"),
        (["a", None], "item 1 is of type NoneType"),
        (["a", "b", b"c"], "item 2 is of type bytes"),
        ([["a"]], "item 0 is of type list"),
    ],
)
def test_what_is_no_text(client: Any, texts: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^Input must be a string or list of strings; {words}$") as raised:
        client.generate_embedding(texts)
    assert isinstance(raised.value, InvalidRequest)
    with pytest.raises(ValueError, match=r"^Input must be a string or list of strings"):
        asyncio.run(client.agenerate_embedding(texts))


def test_half_a_surrogate_pair(client: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"item 1 is no valid Unicode") as raised:
        client.generate_embedding(["fine", "\ud800"])
    assert raised.value.item == 1


@pytest.mark.parametrize("size", [384, 128])
def test_sizes_that_the_model_can_give(client: Any, reference: NDArray[np.float32], size: int) -> None:
    client.embedding_dim = size
    cut = reference[:, :size] / np.linalg.norm(reference[:, :size], axis=1, keepdims=True)
    same(client.generate_embedding(TEXTS), cut)


def test_more_values_than_the_model_has(client: Any, reference: NDArray[np.float32], caplog: Any) -> None:
    """Resized here; a server that refuses is not asked so again."""
    client.embedding_dim = 500
    expected = resize(reference, 500, "interpolate")
    same(client.generate_embedding(TEXTS), expected)
    client.cache.clear()
    same(asyncio.run(client.agenerate_embedding(TEXTS)), expected)
    assert len([record for record in caplog.records if "resized here" in record.message]) == (
        client.provider in ("infinity", "openai")
    )


def test_refused_dimensions_are_sent_once(server: Watched) -> None:
    with make("infinity", server.url, embedding_dim=1024, cache=None) as client:
        for _ in range(2):
            assert len(client.generate_embedding("Hello")) == 1024
    assert [one.body.get("dimensions") for one in server.asked] == [1024, None, None]


@pytest.mark.parametrize("method", ["interpolate", "pca_approximate"])
def test_a_method_that_was_chosen_gets_the_whole_vector(
    server: Watched, reference: NDArray[np.float32], method: str
) -> None:
    with make("infinity", server.url, embedding_dim=100, norm_method=method) as client:
        same(client.generate_embedding(TEXTS), resize(reference, 100, method))
    assert "dimensions" not in server.asked[-1].body


def test_a_long_list_is_split(server: Watched) -> None:
    texts = [f"Text {number}" for number in range(600)]
    with make("infinity", server.url) as client:
        rows = client.generate_embedding(texts)
        assert len(server.inputs) == 10  # of 64
        assert rows[599] == pytest.approx(client.generate_embedding_batch(["other", texts[599]])[1], abs=1e-6)


@pytest.mark.parametrize(
    ("vector", "size", "becomes"),
    [
        ([1.0, 2.0, 3.0], 2, [1.0, 2.0]),
        ([1.0, 2.0], 2, [1.0, 2.0]),
        ([1.0], 3, [1.0, 0.0, 0.0]),
        ("no list", 2, [0.0, 0.0]),
        ([1.0], None, [1.0]),
    ],
)
def test_normalize_makes_the_size(vector: Any, size: int | None, becomes: list[float]) -> None:
    assert create_infinity_client(embedding_dim=size).normalize(vector) == becomes


def test_a_client_that_nobody_holds_closes_itself(server: Watched) -> None:
    client = make("infinity", server.url)
    client.generate_embedding("Hello")
    session = client._session
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert session._closed.is_set()


def test_a_client_that_is_forgotten_in_async_code_leaves_no_connection(server: Watched) -> None:
    async def forget() -> None:
        client = make("infinity", server.url)
        await client.agenerate_embedding("Hello")
        session = await client._async_session()
        del client
        gc.collect()
        await asyncio.sleep(0.05)
        assert session._closed

    asyncio.run(forget())


async def test_calls_side_by_side(server: Watched, reference: NDArray[np.float32]) -> None:
    async with make("infinity", server.url) as client:
        rows = await asyncio.gather(*(client.agenerate_embedding(text) for text in TEXTS * 5))
        same(rows, np.tile(reference, (5, 1)))
    assert sorted(text for inputs in server.inputs for text in inputs) == sorted(TEXTS)


def test_event_loops_in_threads_side_by_side(server: Watched, reference: NDArray[np.float32]) -> None:
    with make("infinity", server.url, cache=None) as client, ThreadPoolExecutor(8) as threads:
        for rows in threads.map(lambda _: asyncio.run(client.agenerate_embedding(TEXTS)), range(24)):
            same(rows, reference)


def test_a_closed_client_says_so(client: Any) -> None:
    client.generate_embedding("Hello")
    client.close()
    client.close()
    for text in ("Hello", "World"):
        with pytest.raises(EmbeddingGenerationError, match=r"Client is closed; make a new one"):
            client.generate_embedding(text)
        with pytest.raises(EmbeddingGenerationError, match=r"Client is closed; make a new one"):
            asyncio.run(client.agenerate_embedding(text))
    assert client.health_check() is False
    assert asyncio.run(client.ahealth_check()) is False


class Lengths(BaseEmbeddingClient):
    """A provider of one's own, by faciliter-lib's hook."""

    asked: list[list[str]]

    def _generate_embedding_raw(self, texts: list[str]) -> list[list[float]]:
        self.asked = [*getattr(self, "asked", []), texts]
        if "bad" in texts:
            raise EmbeddingGenerationError("no vectors today")
        return [[len(text), 0, 3 * len(text), 4 * len(text)] for text in texts]


def test_a_provider_of_one_s_own() -> None:
    with Lengths(model="lengths", embedding_dim=3, norm_method="truncate_or_pad") as client:
        assert client.generate_embedding(["a", ""]) == [pytest.approx([0.1**0.5, 0, 0.9**0.5]), [0, 0, 0]]
        assert len(asyncio.run(client.agenerate_embedding("ccc"))) == 3
        assert client.generate_embedding(["ccc", "a", "bb"])[1] == client.generate_embedding("a")
        assert client.asked == [["a", ""], ["ccc"], ["bb"]]
        with pytest.raises(EmbeddingGenerationError, match=r"^no vectors today$"):
            client.generate_embedding(["a", "bad"])
        assert client.health_check() is True
    with Lengths(use_l2_norm=False, cache=None) as raw:
        assert raw.generate_embedding("abc") == [3.0, 0.0, 9.0, 12.0]


def test_providers_of_one_s_own_do_not_share_vectors() -> None:
    class Halves(Lengths):
        def _generate_embedding_raw(self, texts: list[str]) -> list[list[float]]:
            return [[len(text) / 2] for text in texts]

    cache = EmbeddingCache(MemoryStore())
    assert Lengths(use_l2_norm=False, cache=cache).generate_embedding("abc") == [3.0, 0.0, 9.0, 12.0]
    assert Halves(use_l2_norm=False, cache=cache).generate_embedding("abc") == [1.5]


@pytest.mark.parametrize("cache", ["memory", None])
def test_a_provider_that_gives_too_few(cache: str | None) -> None:
    class TooFew(BaseEmbeddingClient):
        def _generate_embedding_raw(self, texts: list[str]) -> list[list[float]]:
            return [[1.0]]

    with pytest.raises(EmbeddingGenerationError, match=r"^TooFew gave 1 vectors for 2 texts$"):
        TooFew(cache=cache).generate_embedding(["a", "b"])


def test_the_base_has_no_vectors() -> None:
    with pytest.raises(NotImplementedError, match="BaseEmbeddingClient has no _generate_embedding_raw"):
        BaseEmbeddingClient().generate_embedding("text")


def test_positional_arguments_are_those_of_the_page() -> None:
    client = InfinityEmbeddingClient("my/model", 7, False, "http://host:1", 9, "key")
    assert (client.model, client.embedding_dim, client.use_l2_norm) == ("my/model", 7, False)
    assert (client.base_url, client.timeout, client.token) == ("http://host:1", 9, "key")
