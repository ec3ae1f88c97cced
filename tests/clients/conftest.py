"""A live server with the real default model, and sentence-transformers on the same weights as the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni import hub
from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.engine import Engine
from lemni.loading import load_model
from lemni.server.app import create_app
from tests.server.live import listening, loaded, server_settings

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
KEY = "sk-test"
TEXTS = [
    "A cat sits on the mat.",
    "Eine Katze sitzt auf der Matte.",
    "",
    "The stock market fell sharply on Friday, wiping out a week of gains.\nAnalysts were surprised.",
    "日本語のテキスト 🙂",
    "word " * 100,
]


@pytest.fixture(scope="session")
def engine(minilm: hub.ModelFiles) -> Iterator[Engine]:
    model = load_model(ModelSettings(device="cpu"), HubSettings(), EngineSettings())
    with Engine({model.card.name: model}, EngineSettings()) as engine:
        yield engine
    model.close()


@pytest.fixture(scope="session")
def server(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server that wants the key and takes 8 items at most."""
    cache = tmp_path_factory.mktemp("cache")
    with listening(create_app(loaded(engine), server_settings(api_key=KEY, max_items=8), cache_dir=cache)) as url:
        yield url


@pytest.fixture(scope="session")
def reference(minilm: hub.ModelFiles) -> NDArray[np.float32]:
    """float32 [TEXTS, 384] by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm.path), device="cpu")
    vectors: NDArray[np.float32] = model.encode(TEXTS, batch_size=1)
    return vectors


@pytest.fixture(scope="session")
def same(reference: NDArray[np.float32]) -> Callable[[object], None]:
    """Checks that vectors of TEXTS are the reference's."""

    def check(vectors: object) -> None:
        ours = np.asarray(vectors, dtype=np.float64)
        assert ours.shape == reference.shape
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)
        assert np.sum(ours * reference, axis=1).min() >= 0.99999

    return check
