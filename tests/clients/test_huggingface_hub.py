"""huggingface_hub's InferenceClient with a URL: it posts to that URL as it is, so to the root of a bare host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from numpy.typing import NDArray

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.clients.conftest import KEY, TEXTS
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load, save_classifier

Same = Callable[[object], None]


@pytest.fixture(params=["", "/embed"], ids=["root", "embed"])
def client(request: pytest.FixtureRequest, server: str) -> InferenceClient:
    return InferenceClient(model=f"{server}{request.param}", token=KEY)


def test_feature_extraction(client: InferenceClient, same: Same) -> None:
    found = client.feature_extraction(TEXTS)
    assert found.dtype == np.float32
    same(found)
    same(np.concatenate([client.feature_extraction(text) for text in TEXTS]))


async def test_async(server: str, same: Same) -> None:
    async with AsyncInferenceClient(model=server, token=KEY) as client:
        same(await client.feature_extraction(TEXTS))


def test_options(client: InferenceClient, reference: NDArray[np.float32]) -> None:
    long = "word " * 600
    found = client.feature_extraction(
        [TEXTS[0], long], normalize=True, truncate=True, truncation_direction="left", dimensions=64
    )
    assert found.shape == (2, 64)
    cut = reference[0, :64] / np.linalg.norm(reference[0, :64])
    np.testing.assert_allclose(found[0], cut, atol=1e-4)
    raw = client.feature_extraction(TEXTS[0], normalize=False)
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    with pytest.raises(HfHubHTTPError, match="at most 256") as refused:
        client.feature_extraction(long, truncate=False)
    assert refused.value.response.status_code == 422


def test_sentence_similarity(server: str, reference: NDArray[np.float32]) -> None:
    for path in ("", "/similarity"):
        client = InferenceClient(model=f"{server}{path}", token=KEY)
        found = client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:])
        np.testing.assert_allclose(found, reference[1:] @ reference[0], atol=1e-4)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Base URL of a server with a tiny classifier, and its folder."""
    folder = tmp_path_factory.mktemp("classifier")
    save_classifier(folder, "bert", 3)
    model = load(folder, served_name="labels")
    with (
        Engine({"labels": model}, EngineSettings()) as engine,
        listening(create_app(loaded(engine), server_settings())) as url,
    ):
        yield url, folder
    model.close()


def test_text_classification(classifier: tuple[str, Path]) -> None:
    from transformers import pipeline

    url, folder = classifier
    [expected] = pipeline("text-classification", model=str(folder), device="cpu")(["hello world"], top_k=None)
    for path in ("", "/predict"):
        client = InferenceClient(model=f"{url}{path}")
        found = client.text_classification("hello world")
        assert [one.label for one in found] == [one["label"] for one in expected]
        np.testing.assert_allclose([one.score for one in found], [one["score"] for one in expected], atol=1e-4)
        [best] = client.text_classification("hello world", top_k=1)
        assert best.label == expected[0]["label"]
        raw = client.text_classification("hello world", function_to_apply="none")
        exponents = np.exp([one.score for one in raw])
        np.testing.assert_allclose(exponents / exponents.sum(), [one["score"] for one in expected], atol=1e-4)


def test_errors(server: str) -> None:
    with pytest.raises(HfHubHTTPError, match="does not do classification") as refused:
        InferenceClient(model=f"{server}/predict", token=KEY).text_classification("a")
    assert refused.value.response.status_code == 424
    with pytest.raises(HfHubHTTPError) as refused:
        InferenceClient(model=server, token="wrong").feature_extraction("a")
    assert refused.value.response.status_code == 401


def test_several_models_are_told_apart_by_what_is_asked(open_server: str) -> None:
    client = InferenceClient(model=open_server, token=KEY)
    found = client.text_classification("Buy cheap pills now!")
    assert len(found) > 1
    assert sum(one.score for one in found) == pytest.approx(1, abs=1e-4)
    assert [one.score for one in client.text_classification("Buy pills", top_k=1)] == [
        client.text_classification("Buy pills")[0].score
    ]
    with pytest.raises(HfHubHTTPError, match="model is missing"):  # two of them embed texts
        client.feature_extraction("Buy cheap pills now!")
