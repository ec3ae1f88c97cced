"""A live server with the real embedding model and a small cross-encoder, and the reference on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from examples.rerank_compare import CASES

from lemni import hub
from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.examples.comparison import Printed
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load, save_classifier

KEY = "sk-test"
TRAINED = Path(__file__).parents[3] / "shared" / "models" / "ce-tiny"


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained one if it lies beside the repository, else a tiny random one."""
    if TRAINED.exists():
        return TRAINED
    folder = tmp_path_factory.mktemp("models") / "ranker"
    save_classifier(folder, "bert")
    return folder


@pytest.fixture(scope="session")
def server(minilm: hub.ModelFiles, cross_encoder: Path) -> Iterator[str]:
    """Base URL of a server that wants KEY, with the models "minilm" and "ranker"."""
    models = {
        "minilm": load(minilm.path, served_name="minilm"),
        "ranker": load(cross_encoder, served_name="ranker"),
    }
    with (
        Engine(models, EngineSettings()) as engine,
        listening(create_app(loaded(engine), server_settings(api_key=KEY))) as url,
    ):
        yield url
    for model in models.values():
        model.close()


@pytest.fixture(scope="session")
def expected(minilm: hub.ModelFiles, cross_encoder: Path) -> dict[str, Printed]:
    """By the name of the case, what sentence-transformers would print."""
    from sentence_transformers import CrossEncoder, SentenceTransformer

    bi, cross = SentenceTransformer(str(minilm.path), device="cpu"), CrossEncoder(str(cross_encoder), device="cpu")
    found = {}
    for case in CASES:
        vectors = bi.encode([case.query, *case.documents], batch_size=1)
        relevance = cross.predict([(case.query, document) for document in case.documents], batch_size=1)
        similarity = bi.similarity(vectors[:1], vectors[1:])[0]
        found[case.name] = Printed(
            case.query,
            dict(zip(case.documents, similarity.tolist(), strict=True)),
            dict(zip(case.documents, relevance.tolist(), strict=True)),
        )
    return found
