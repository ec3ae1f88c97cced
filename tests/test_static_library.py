"""Static embeddings through the library, tokenizer and all, against model2vec on the same folder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import lemni
from lemni.config import HubSettings
from lemni.errors import InputTooLong, InvalidTokenIds
from lemni.hub import resolve
from tests.shared import STSB, stsb

model2vec = pytest.importorskip("model2vec")

REAL = "pypi:tokenlearn-static-model==0.1.1#static_model/model"
TEXTS = ["The cat sat on the mat.", "你好,世界", "naïve café 🙂", "A", "x" * 300, "Dr. Who? (1963)"]


@pytest.fixture(scope="module")
def model() -> Iterator[lemni.Embedder]:
    with lemni.load(REAL) as loaded:
        yield loaded


def test_vectors_are_those_of_model2vec(model: lemni.Embedder) -> None:
    reference = model2vec.StaticModel.from_pretrained(resolve(REAL, HubSettings()).path)
    texts = [*TEXTS, *(stsb()[0] if STSB.exists() else [])]
    assert model.card.runtime == "static"
    np.testing.assert_allclose(model.embed(texts), reference.encode(texts), atol=1e-6)


def test_texts_without_tokens_are_zero(model: lemni.Embedder) -> None:
    np.testing.assert_array_equal(model.embed(["", "\u200b"]), np.zeros((2, model.card.dimensions)))


def test_long_texts(model: lemni.Embedder) -> None:
    assert model.card.max_length == 512
    cut = model.embed("cat " * 512 + "dog " * 100)
    np.testing.assert_allclose(cut, model.embed("cat " * 512), atol=1e-6)
    with pytest.raises(InputTooLong, match=r"612 tokens.*512"):
        model.embed("cat " * 512 + "dog " * 100, truncate="error")


def test_the_id_of_no_token_is_not_for_callers(model: lemni.Embedder) -> None:
    with pytest.raises(InvalidTokenIds, match="-1"):
        model.embed([[-1]])
