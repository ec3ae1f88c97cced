"""A server with a model of every kind that the integrations use, and sentence-transformers on the same weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.live import listening, loaded, server_settings
from tests.tasks import classifiers, sparse_models, test_colbert, tiny

PROMPTS = {"query": "ask: ", "document": "tell: "}


@dataclass(frozen=True)
class Zoo:
    """Tiny random models beside the real default one.

    Attributes:
        url: of the server, which wants no key.
        sided: "sided", a dense model with different prompts for queries and documents, compared by the dot product.
        splade: "splade", a sparse model.
        colbert: "colbert", a model of late interaction.
    """

    url: str
    sided: Any
    splade: Any
    colbert: Any

    def sides(self, documents: list[str], query: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """float32 [documents, 32] and [32]: what "sided" makes of them, by sentence-transformers."""
        encode = self.sided.encode
        return encode(documents, batch_size=1, prompt_name="document"), encode(query, prompt_name="query")


@contextlib.contextmanager
def zoo_with(default: Any, name: str, tiny_models: Path, folder: Path) -> Iterator[Zoo]:
    """Serve the default model, "ranker" and "clip" from `tiny_models`, and those that are made here in `folder`."""
    from sentence_transformers.models import Normalize, Pooling

    modules = [Pooling(32), Normalize()]
    sided = tiny.sentence_model(folder / "sided", modules, prompts=PROMPTS, similarity_fn_name="dot")
    splade = sparse_models.splade(folder / "splade")
    colbert = test_colbert.encoder(folder / "colbert", {})
    folders = {
        "sided": folder / "sided" / "model",
        "splade": folder / "splade",
        "colbert": folder / "colbert" / "model",
        "ranker": tiny_models / "ranker",
        "clip": tiny_models / "clip",
    }
    models = {served: classifiers.load(where, served_name=served) for served, where in folders.items()}
    with (
        Engine({name: default, **models}, EngineSettings()) as engine,
        listening(create_app(loaded(engine), server_settings())) as url,
    ):
        yield Zoo(url, sided, splade, colbert)
    for model in models.values():
        model.close()
