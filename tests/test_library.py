"""`lemni.load` on the real default model, against sentence-transformers on the same folder."""

from __future__ import annotations

import asyncio
import doctest
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

import lemni
import lemni.library
from lemni.errors import ConfigError, InputTooLong, InvalidRequest, ModelNotFound, Unavailable
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
@pytest.mark.parametrize("module", [lemni.library])
def test_examples_in_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]
    assert doctest.testmod(module).attempted > 0  # type: ignore[arg-type]
