"""`InfinityEmbeddings` beyond its page: what a genuine Infinity answered, errors and retries, copies, event loops."""

from __future__ import annotations

import asyncio
import copy
import gc
import io
import logging
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import lemni
from lemni.client import InfinityEmbeddings
from lemni.client.connection import Connection
from lemni.client.errors import StatusError
from lemni.client.late_interaction import maxsim
from lemni.client.loops import LoopSessions
from lemni.errors import InvalidRequest
from tests.client.late_interaction_server import COLBERT, COLPALI, COLQWEN, WIDTH, Live
from tests.client.recordings import recorded, replaying

QUESTION = "What is retrieval augmented generation?"
TEXTS = ["a cat", "two dogs, and a cat", "", "what is generated", "a longer text. and more of it!", "zz top", "a"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INFINITY_API_URL", "INFINITY_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Connections that forgotten objects leave open become warnings, which are errors."""
    yield
    gc.collect()


def near(found: Any, expected: Any) -> bool:
    """Equal but for what another batch changes in the last bits."""
    return all(np.allclose(one, other, rtol=0, atol=1e-5) for one, other in zip(found, expected, strict=True))


def real_rows(name: str) -> list[NDArray[np.float32]]:
    """A recording's multi-vectors without the padding."""
    return [rows[rows.any(axis=1)] for rows in recorded(name).vectors(WIDTH)]


def as_lists(rows: list[NDArray[np.float32]]) -> list[Any]:
    return [one.tolist() for one in rows]


def test_genuine_multi_vectors_are_given_their_shape() -> None:
    with replaying() as replay, InfinityEmbeddings(replay.url + "/") as embeddings:
        assert [embeddings.embed_text(QUESTION)] == as_lists(real_rows("colqwen2-query-base64"))
        assert [embeddings.embed_query("What is RAG?")] == as_lists(real_rows("colqwen2-short-query-base64"))
        documents = embeddings.embed_documents(["Document 1", "Document 2", "Document 3"])
        assert documents == as_lists(real_rows("colqwen2-documents-base64"))
        for name in ("colqwen2-two-images-base64", "colqwen2-three-images-base64"):
            pictures = recorded(name).pictures
            assert embeddings.embed_images(pictures) == as_lists(real_rows(name))  # type: ignore[arg-type]
            assert embeddings.embed_images([io.BytesIO(one) for one in pictures]) == as_lists(real_rows(name))
        assert [embeddings.embed_image(recorded("colqwen2-image-base64").pictures[0])] == as_lists(
            real_rows("colqwen2-image-base64")
        )
        assert replay.answered.count("colqwen2-one-token-float") == 1  # the length of a vector is asked for once
        assert replay.answered[1] == "colqwen2-one-token-float"


async def test_genuine_multi_vectors_for_asyncio() -> None:
    with replaying() as replay:
        async with InfinityEmbeddings(replay.url) as embeddings:
            text, query, documents = await asyncio.gather(
                embeddings.aembed_text("async text"),
                embeddings.aembed_query("async query"),
                embeddings.aembed_documents(["doc1", "doc2"]),
            )
    assert [text] == as_lists(real_rows("colqwen2-async-text-base64"))
    assert [query] == as_lists(real_rows("colqwen2-async-query-base64"))
    assert documents == as_lists(real_rows("colqwen2-async-documents-base64"))


def test_genuine_padding_is_dropped() -> None:
    with replaying() as replay, InfinityEmbeddings(replay.url) as embeddings:
        short, long = embeddings.embed_arrays(["cat", "What is the image?"])
    assert (short.shape, long.shape) == ((13, WIDTH), (17, WIDTH))
    np.testing.assert_array_equal(short, recorded("colqwen2-uneven-base64").vectors(WIDTH)[0][4:])


def test_a_wrong_length_is_warned_of_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    with replaying() as replay, InfinityEmbeddings(replay.url, hidden_dim=64) as embeddings:
        assert [embeddings.embed_text(QUESTION)] == as_lists(real_rows("colqwen2-query-base64"))
        embeddings.embed_text(QUESTION)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"hidden_dim is 64, but the vectors of {COLQWEN} have 128 dimensions; their own length is used"
    )


def test_genuine_floats(caplog: pytest.LogCaptureFixture) -> None:
    texts = ["A cat", "The image is a test"]
    with replaying() as replay, InfinityEmbeddings(replay.url, COLBERT, "float", 8) as embeddings:
        assert embeddings.embed_documents(texts) == [rows.tolist() for rows in recorded("colbert-float").vectors(8)]
        assert replay.answered == ["colbert-float"]  # nothing to ask for
    assert not caplog.records


def test_genuine_errors() -> None:
    with replaying() as replay:
        with InfinityEmbeddings(replay.url, "no/such-model") as embeddings, pytest.raises(StatusError) as caught:
            embeddings.embed_text("Hello")
        assert caught.value.status == 400
        assert "no/such-model" in caught.value.message
        assert replay.answered == ["unknown-model"]
        clip = InfinityEmbeddings(replay.url, "openai/clip-vit-base-patch32", "float")
        with clip, pytest.raises(StatusError, match="blacklisted"):
            clip.embed_image("http://127.0.0.1:1/cat.jpg")


def test_sync_and_async_are_equal_and_batches_join(late: Live) -> None:
    with InfinityEmbeddings(late.url, embed_batch_size=3) as embeddings:

        async def everything() -> list[Any]:
            async with embeddings:
                return [
                    await embeddings.aembed_text(TEXTS[0]),
                    await embeddings.aembed_documents(TEXTS),
                    await embeddings.aembed_documents_batch(TEXTS),
                    await embeddings.aembed_images_batch(pixels),
                    await embeddings.aembed_image(pixels[0]),
                ]

        pixels = list(np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), dtype=np.uint8))
        documents, images = embeddings.embed_documents(TEXTS), embeddings.embed_images(pixels)
        assert near(embeddings.embed_documents_batch(TEXTS), documents)
        assert near(embeddings.embed_images_batch(pixels), images)
        found = asyncio.run(everything())
    expected = [[embeddings.embed_query(TEXTS[0])], documents, documents, images, images[:1]]
    assert all(map(near, [found[0:1], *found[1:4], found[4:]], expected))
    assert [len(body["input"]) for body in late.asked[:2]] == [7, 4]
    embeddings.close()


def test_arrays(late: Live) -> None:
    with InfinityEmbeddings(late.url, COLBERT, embed_batch_size=3) as embeddings:
        for side in ("query", "document"):
            arrays = embeddings.embed_arrays(TEXTS, input_type=side)  # type: ignore[arg-type]
            assert {(one.dtype, one.ndim, one.shape[1]) for one in arrays} == {(np.dtype(np.float32), 2, WIDTH)}
            found = embeddings.embed_documents(TEXTS) if side == "document" else [*map(embeddings.embed_text, TEXTS)]
            assert near(arrays, found)
        assert near(asyncio.run(embeddings.aembed_arrays(TEXTS)), found)
        with pytest.raises(InvalidRequest, match="must be text or image"):
            embeddings.embed_arrays(TEXTS, "audio")  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [COLBERT, COLQWEN, COLPALI])
def test_maxsim_of_query_and_documents_is_the_server_s_own_score(late: Live, model: str) -> None:
    with InfinityEmbeddings(late.url, model) as embeddings, lemni.Client(late.url, model=model) as client:
        scores = maxsim(embeddings.embed_query(QUESTION), embeddings.embed_documents(TEXTS))
        ranked = client.rerank(QUESTION, TEXTS, raw_scores=True)
    assert [one.index for one in ranked] == np.argsort(-scores, kind="stable").tolist()
    np.testing.assert_allclose([one.score for one in ranked], np.sort(scores)[::-1], atol=1e-4)


def test_no_inputs_are_no_request() -> None:
    embeddings = InfinityEmbeddings("http://127.0.0.1:1")
    assert embeddings.embed_documents([]) == embeddings.embed_images([]) == []
    assert (
        embeddings.embed_documents_batch([]) == embeddings.embed_images_batch([]) == embeddings.embed_arrays([]) == []
    )

    async def nothing() -> list[Any]:
        return [await embeddings.aembed_documents([]), await embeddings.aembed_images_batch([])]

    assert asyncio.run(nothing()) == [[], []]


def test_progress(late: Live, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    with InfinityEmbeddings(late.url, embed_batch_size=3, concurrency=1) as embeddings:
        embeddings.embed_documents_batch(TEXTS, show_progress=lambda done, total: seen.append((done, total)))
        assert seen == [(3, 7), (6, 7), (7, 7)]
        assert capsys.readouterr().err == ""
        embeddings.embed_documents_batch(TEXTS, show_progress=True)
        assert "7.00/7.00" in capsys.readouterr().err
        asyncio.run(embeddings.aembed_documents_batch(TEXTS, True))
        assert "7.00/7.00" in capsys.readouterr().err


def test_a_file_that_is_missing_is_known_before_anything_is_sent(late: Live, tmp_path: Path) -> None:
    good = np.zeros((30, 30, 3), np.uint8)
    with InfinityEmbeddings(late.url, embed_batch_size=1) as embeddings:
        calls: list[Callable[[], Any]] = [
            lambda: embeddings.embed_image(tmp_path / "no.png"),
            lambda: embeddings.embed_images_batch([good, tmp_path / "no.png"]),
            lambda: asyncio.run(embeddings.aembed_images([good, tmp_path / "no.png"])),
        ]
        for call in calls:
            with pytest.raises(FileNotFoundError, match=r"no\.png"):
                call()
        with pytest.raises(TypeError, match="Unsupported image type: <class 'int'>"):
            embeddings.embed_image(7)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match=r"texts\[1\] is of type int"):
            embeddings.embed_documents(["a", 1])  # type: ignore[list-item]
        with pytest.raises(InvalidRequest, match="must be a list of texts"):
            embeddings.embed_documents("a text")
    assert late.asked == []


def test_a_model_that_the_server_does_not_have(late: Live) -> None:
    with InfinityEmbeddings(late.url, "no/such-model") as embeddings, pytest.raises(StatusError) as caught:
        embeddings.embed_text("Hello")
    assert caught.value.status == 404
    assert len(late.asked) == 1


def test_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    embeddings = InfinityEmbeddings()
    assert (embeddings.url, embeddings.model_name, embeddings.encoding) == ("http://localhost:7997", COLQWEN, "base64")
    assert (embeddings.hidden_dim, embeddings.timeout) == (128, 60.0)
    assert (embeddings.max_retries, embeddings.embed_batch_size, embeddings.api_key) == (3, 10, None)
    (tmp_path / ".env").write_text("INFINITY_API_URL=http://file:1/\nINFINITY_API_KEY=from-file\n")
    assert InfinityEmbeddings().url == "http://file:1"
    monkeypatch.setenv("INFINITY_API_URL", "http://variable:1//")
    assert InfinityEmbeddings().url == "http://variable:1"
    assert InfinityEmbeddings(url="http://argument:1/v1/").url == "http://argument:1/v1"
    assert InfinityEmbeddings().api_key == "from-file"
    assert "from-file" not in repr(InfinityEmbeddings())


@pytest.mark.parametrize(
    "settings",
    [
        {"encoding": "int8"},
        {"hidden_dim": 0},
        {"max_retries": 0},
        {"embed_batch_size": 0},
        {"embed_batch_size": 2.5},
        {"concurrency": 0},
        {"timeout": 0},
        {"url": "localhost:7997"},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    [name] = settings
    with pytest.raises(InvalidRequest, match=rf"^(base_)?{name} is "):
        InfinityEmbeddings(**settings)


def test_an_unknown_keyword() -> None:
    with pytest.raises(TypeError, match="modelname"):
        InfinityEmbeddings(modelname="x")  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="timeout"):
        InfinityEmbeddings().timeout = 5.0  # type: ignore[misc]


def test_copies_have_their_own_connections(late: Live) -> None:
    with InfinityEmbeddings(late.url, embed_batch_size=4, api_key="sk-1", concurrency=2) as embeddings:
        expected = embeddings.embed_text("a cat")
        copies = [pickle.loads(pickle.dumps(embeddings)), copy.deepcopy(embeddings), copy.copy(embeddings)]
        copies.append(replace(embeddings, timeout=5.0))
    for one in copies[:3]:
        assert one == embeddings
        assert hash(one) == hash(embeddings)
    for one in copies:
        assert one.api_key == "sk-1"
        with one:
            assert one.embed_text("a cat") == expected


def test_event_loops_one_after_another_and_side_by_side(late: Live) -> None:
    embeddings = InfinityEmbeddings(late.url)
    expected = embeddings.embed_text("a cat")
    found = [asyncio.run(embeddings.aembed_text("a cat")) for _ in range(3)]
    threads = [
        threading.Thread(target=lambda: found.append(asyncio.run(embeddings.aembed_text("a cat")))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6


def test_sessions_of_loops_that_are_gone_are_let_go() -> None:
    sessions = LoopSessions(Connection("http://127.0.0.1:1"))
    loop = asyncio.new_event_loop()
    first = weakref.ref(loop.run_until_complete(sessions.session()))
    loop.close()  # without a word to the generators, unlike `asyncio.run`
    assert first() is not None
    second = weakref.ref(asyncio.run(sessions.session()))
    gc.collect()
    assert (first(), second()) == (None, None)


async def test_a_cancelled_call_leaves_nothing(late: Live) -> None:
    async with InfinityEmbeddings(late.url, embed_batch_size=1) as embeddings:
        call = asyncio.ensure_future(embeddings.aembed_documents_batch(TEXTS * 20))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(await embeddings.aembed_text("a cat")) > 1


def test_closing_is_not_the_end(late: Live) -> None:
    embeddings = InfinityEmbeddings(late.url)
    for _ in range(2):
        assert len(embeddings.embed_text("a cat")) > 1
        embeddings.close()
        embeddings.close()
