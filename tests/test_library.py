"""`lemni.load` on the real default model, against sentence-transformers on the same folder."""

from __future__ import annotations

import asyncio
import doctest
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

import lemni
import lemni.library.embedder
from lemni.errors import ConfigError, DeadlineExceeded, InputTooLong, InvalidRequest, ModelNotFound, Unavailable
from lemni.hub import ModelFiles
from tests.shared import STSB, stsb

TEXTS = [
    "A girl is styling her hair.",
    "a",
    "",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich",
    "你好，世界",
    "emoji 🙂 and\ttabs\nand lines",
    "word " * 400,
    "x" * 5000,
]

sentence_transformers = pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def model(minilm: ModelFiles) -> Iterator[lemni.Embedder]:
    with lemni.load(str(minilm.path), device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reference(minilm: ModelFiles) -> Any:
    return sentence_transformers.SentenceTransformer(str(minilm.path), device="cpu")


def test_vectors_equal_sentence_transformers(model: lemni.Embedder, reference: Any) -> None:
    np.testing.assert_allclose(model.embed(TEXTS), reference.encode(TEXTS), atol=2e-6)


def test_one_text_gives_one_vector(model: lemni.Embedder, reference: Any) -> None:
    vector = model.embed(TEXTS[0])
    assert vector.shape == (384,)
    np.testing.assert_allclose(vector, reference.encode(TEXTS[0]), atol=2e-6)


def test_alone_in_a_batch_and_in_any_order(model: lemni.Embedder) -> None:
    together = model.embed(TEXTS)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(model.embed(text), vector, atol=1e-6)
    np.testing.assert_allclose(model.embed(TEXTS[::-1])[::-1], together, atol=1e-6)


def test_long_lists_keep_their_order(model: lemni.Embedder) -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(1300)]
    vectors = model.embed(texts)
    assert vectors.shape == (1300, 384)
    for number in (0, 511, 512, 1024, 1299):
        np.testing.assert_allclose(vectors[number], model.embed(texts[number]), atol=1e-6)


def test_async_gives_the_same(model: lemni.Embedder) -> None:
    async def run() -> list[np.ndarray]:
        return await asyncio.gather(model.aembed(TEXTS), model.aembed(TEXTS[0]), model.aembed([]))

    many, one, none = asyncio.run(run())
    np.testing.assert_allclose(many, model.embed(TEXTS), atol=1e-6)
    np.testing.assert_allclose(one, many[0], atol=1e-6)
    assert none.shape == (0, 384)


def test_threads_share_a_model(model: lemni.Embedder) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: model.embed([f"text {number}", "same"]), range(40)))
    for number, vectors in enumerate(results):
        np.testing.assert_allclose(vectors, model.embed([f"text {number}", "same"]), atol=1e-6)


def test_errors_name_the_item_of_the_whole_list(model: lemni.Embedder) -> None:
    texts = ["short"] * 700 + ["word " * 300]
    with pytest.raises(InputTooLong, match=r"input\[700\] has 302 tokens.* at most 256") as caught:
        model.embed(texts, truncate="error")
    assert caught.value.item == 700
    with pytest.raises(InvalidRequest, match="1 to 384"):
        model.embed("a", dimensions=385)


@pytest.mark.skipif(not STSB.is_file(), reason="the STSb test set lies beside the repository, if anywhere")
def test_stsb(model: lemni.Embedder, reference: Any) -> None:
    first, second, scores = stsb()
    ours = model.embed(first), model.embed(second)
    assert float(spearmanr((ours[0] * ours[1]).sum(1), scores).statistic) == pytest.approx(0.8203, abs=5e-4)
    cosines = (ours[0] * reference.encode(first)).sum(1)
    assert cosines.mean() >= 0.99999
    assert cosines.min() >= 0.9999


def test_what_load_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'dtypo'"):
        lemni.load(dtypo="float32")
    with pytest.raises(ConfigError, match="max_length is 0"):
        lemni.load(max_length=0)
    with pytest.raises(ModelNotFound, match="nothing/here"):
        lemni.load("nothing/here", offline=True)


def test_closed_is_closed(minilm: ModelFiles) -> None:
    model = lemni.load(str(minilm.path), device="cpu")
    model.close()
    model.close()
    with pytest.raises(Unavailable):
        model.embed("too late")


@pytest.mark.usefixtures("minilm")
@pytest.mark.parametrize("module", [lemni.library.embedder])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
    assert doctest.testmod(module).attempted > 0  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def narrow(minilm: ModelFiles) -> Iterator[lemni.Embedder]:
    """With a queue of 2,000 tokens."""
    with lemni.load(str(minilm.path), device="cpu", max_queue_tokens=2000) as loaded:
        yield loaded


LONG_LIST = ["a cat sat on the mat and saw the dog " * (1 + number % 20) for number in range(150)]


def test_a_list_far_over_the_queue(narrow: lemni.Embedder, model: lemni.Embedder) -> None:
    wanted = model.embed(LONG_LIST)
    np.testing.assert_allclose(narrow.embed(LONG_LIST), wanted, atol=1e-6)
    np.testing.assert_allclose(asyncio.run(narrow.aembed(LONG_LIST)), wanted, atol=1e-6)
    with ThreadPoolExecutor(4) as pool:  # others fill the queue as well
        for vectors in pool.map(narrow.embed, [LONG_LIST] * 4):
            np.testing.assert_allclose(vectors, wanted, atol=1e-6)


def test_a_deadline_of_its_own(narrow: lemni.Embedder) -> None:
    with pytest.raises(DeadlineExceeded, match=r"0\.0001 s"):
        narrow.embed(LONG_LIST, deadline_s=0.0001)
    with pytest.raises(DeadlineExceeded, match=r"0\.0001 s"):
        asyncio.run(narrow.aembed(LONG_LIST, deadline_s=0.0001))
    assert narrow.embed("in time", deadline_s=300).shape == (384,)
    for wrong in (0, -1, float("nan"), True, "5"):
        with pytest.raises(InvalidRequest, match="deadline_s is"):
            narrow.embed("a", deadline_s=wrong)  # type: ignore[arg-type]


def test_cancelling_a_task_ends_its_parts(narrow: lemni.Embedder) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(narrow.aembed(LONG_LIST * 20))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    status = narrow._engine.status()[narrow.card.name]
    assert status.waiting_tokens == 0
    assert narrow.embed("afterwards").shape == (384,)


@pytest.mark.parametrize(
    ("texts", "options", "param", "says"),
    [
        (["a", None], {}, "input[1]", r"input\[1\] is None"),
        ([1.5], {}, "input[0]", r"input\[0\] is 1\.5"),
        ([101, 102], {}, "input[0]", r"input\[0\] is 101; it must be a text or a list of token ids"),
        (["a", b"b"], {}, "input[1]", r"input\[1\] is b'b'"),
        (["a", ["b", None]], {}, "input[1]", r"input\[1\] must be a list of at least one token id"),
        (["a", "b\ud800"], {}, "input[1]", r"input\[1\] holds a lone surrogate"),
        (["a"] * 600 + [None], {}, "input[600]", r"input\[600\] is None"),
        (None, {}, "items", "NoneType"),
        (b"a", {}, "items", "bytes"),
        ("a", {"truncate": "middle"}, "truncate", "'middle'"),
        ("a", {"truncate": ["right"]}, "truncate", "right"),
        ("a", {"dimensions": 3.0}, "dimensions", r"3\.0"),
        ("a", {"dimensions": True}, "dimensions", "True"),
        ("a", {"normalize": 1}, "normalize", "1"),
        ("a", {"prompt": 5}, "prompt", "5"),
        ("a", {"prompt": "\udfff"}, "prompt", "lone surrogate"),
        ("a", {"prompt_name": 5}, "prompt_name", "5"),
        ("a", {"priority": "Bulk"}, "priority", "'Bulk'"),
        ([], {"dimensions": 5000}, "dimensions", "1 to 384"),
    ],
)
def test_what_embed_refuses(model: lemni.Embedder, texts: Any, options: Any, param: str, says: str) -> None:
    for run in (lambda: model.embed(texts, **options), lambda: asyncio.run(model.aembed(texts, **options))):
        with pytest.raises(InvalidRequest, match=says) as caught:
            run()
        assert caught.value.param == param


def test_closing_frees_the_weights(minilm: ModelFiles) -> None:
    model = lemni.load(str(minilm.path), device="cpu", runtime="torch")
    backend: Any = model._model.backend
    weights = [weakref.ref(loaded) for _, loaded in backend._models]
    assert weights
    assert all(weight() is not None for weight in weights)
    model.close()
    gc.collect()
    assert all(weight() is None for weight in weights)
    model.close()


@pytest.mark.parametrize("words", [150, 250])
def test_a_program_may_end_without_closing(words: int, minilm: ModelFiles) -> None:
    """Here the express lane is being loaded for the long texts when the program ends."""
    program = f"""
import lemni
model = lemni.load({str(minilm.path)!r}, device="cpu")
model.embed("a query")
model.embed(["word " * {words}] * 4)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, "terminate" in ended.stderr) == (0, False)


def test_cut_texts_are_never_silent(model: lemni.Embedder, caplog: pytest.LogCaptureFixture) -> None:
    model.embed(["short", "word " * 300, "word " * 400])
    assert "2 of 3 inputs were cut to 256 tokens" in caplog.text
    caplog.clear()
    model.embed(["short"])
    assert caplog.text == ""
