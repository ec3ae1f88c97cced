"""Live servers, with the real default model and with tiny ones beside it, and sentence-transformers on the same weights
as the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni import hub
from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.engine import Engine
from lemni.loading import load_model
from lemni.server.app import create_app
from tests.clients.genuine import infinity
from tests.clients.zoo import Zoo, zoo_with
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load, save_classifier
from tests.tiny_multimodal import save_clip

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
KEY = "sk-test"
INFINITY_MODELS = ["debug/small", "debug/large"]
TEXTS = [
    "A cat sits on the mat.",
    "Eine Katze sitzt auf der Matte.",
    "",
    "The stock market fell sharply on Friday, wiping out a week of gains.\nAnalysts were surprised.",
    "日本語のテキスト 🙂",
    "word " * 100,
]
QUERY = "Where do cats sleep?"
DOCUMENTS = ["Rust is a language.", "Cats sleep on sofas.", "A dog runs."]


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
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of tiny random models: "ranker", a cross-encoder; "labels", a classifier; "clip", of texts and images."""
    folder = tmp_path_factory.mktemp("tiny")
    save_classifier(folder / "ranker", "bert")
    save_classifier(folder / "labels", "bert", 3)
    save_clip(folder / "clip")
    return folder


@pytest.fixture(scope="session")
def tiny_engine(engine: Engine, tiny: Path) -> Iterator[Engine]:
    """The real default model and the tiny ones, by the names of their folders."""
    models = {name: load(tiny / name, served_name=name) for name in ("ranker", "labels", "clip")}
    with Engine({MODEL: loaded(engine).models[0], **models}, EngineSettings()) as several:
        yield several
    for model in models.values():
        model.close()


@pytest.fixture(scope="session")
def open_server(tiny_engine: Engine) -> Iterator[str]:
    """Base URL of a server that wants no key and has the tiny models too."""
    with listening(create_app(loaded(tiny_engine), server_settings())) as url:
        yield url


@pytest.fixture(scope="session")
def zoo(engine: Engine, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zoo]:
    """A server with models of every kind, and their references."""
    with zoo_with(loaded(engine).models[0], MODEL, tiny, tmp_path_factory.mktemp("zoo")) as served:
        yield served


@pytest.fixture(scope="session")
def genuine_infinity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of an Infinity 0.0.78 that serves one model and wants no key."""
    with infinity(tmp_path_factory.mktemp("infinity"), "--model-id", INFINITY_MODELS[0]) as url:
        yield url


@pytest.fixture(scope="session")
def guarded_infinity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of an Infinity 0.0.78 that serves two models and wants the key."""
    models = [argument for name in INFINITY_MODELS for argument in ("--model-id", name)]
    with infinity(tmp_path_factory.mktemp("infinity"), *models, "--api-key", KEY) as url:
        yield url


@pytest.fixture(scope="session")
def sentence_transformer(minilm: hub.ModelFiles) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm.path), device="cpu")


@pytest.fixture(scope="session")
def reference(sentence_transformer: SentenceTransformer) -> NDArray[np.float32]:
    """float32 [TEXTS, 384] by sentence-transformers."""
    vectors: NDArray[np.float32] = sentence_transformer.encode(TEXTS, batch_size=1)
    return vectors


@pytest.fixture(scope="session")
def cosines(sentence_transformer: SentenceTransformer) -> NDArray[np.float32]:
    """float32 [DOCUMENTS]: their cosine with QUERY by sentence-transformers, the scores of a model that embeds."""
    vectors: NDArray[np.float32] = sentence_transformer.encode([QUERY, *DOCUMENTS], batch_size=1)
    return vectors[1:] @ vectors[0]


@pytest.fixture(scope="session")
def relevance(tiny: Path) -> NDArray[np.float32]:
    """float32 [DOCUMENTS]: logits of the cross-encoder for QUERY, by sentence-transformers."""
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(tiny / "ranker"), device="cpu")
    pairs = [(QUERY, document) for document in DOCUMENTS]
    logits: NDArray[np.float32] = model.predict(pairs, batch_size=1, activation_fn=torch.nn.Identity())
    return logits


@pytest.fixture(scope="session")
def same(reference: NDArray[np.float32]) -> Callable[[object], None]:
    """Checks that vectors of TEXTS are the reference's."""

    def check(vectors: object) -> None:
        ours = np.asarray(vectors, dtype=np.float64)
        assert ours.shape == reference.shape
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)
        assert np.sum(ours * reference, axis=1).min() >= 0.99999

    return check
