"""One live Lemni with a model of each kind, and the same weights in this process as the reference: the real MiniLM, and
tiny random models beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lemni
from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load, save_classifier
from tests.tasks.sparse_models import splade
from tests.tasks.test_colbert import encoder
from tests.tiny_multimodal import save_clip

KEY = "sk-test"
DENSE = "minilm"


@dataclass(frozen=True)
class Zoo:
    """
    Attributes:
        url: of a server with all models: "minilm", "ranker", "labels", "splade", "colbert", "clip".
        guarded: of one that wants KEY and takes 8 items at most.
        alone: of one with "minilm" only.
        engine: of all models.
    """

    url: str
    guarded: str
    alone: str
    engine: Engine
    folders: dict[str, Path]
    exits: contextlib.ExitStack

    opened: dict[str, lemni.Embedder] = field(default_factory=dict)

    def model(self, name: str) -> lemni.Embedder:
        """The model in this process."""
        if name not in self.opened:
            self.opened[name] = self.exits.enter_context(lemni.load(str(self.folders[name]), device="cpu", threads=1))
        return self.opened[name]


@contextlib.contextmanager
def open_zoo(minilm: Path, folder: Path) -> Iterator[Zoo]:
    folders = {DENSE: minilm, **{name: folder / name for name in ("ranker", "labels", "splade", "clip")}}
    save_classifier(folders["ranker"], "bert")
    save_classifier(folders["labels"], "bert", 3)
    splade(folders["splade"])
    save_clip(folders["clip"])
    encoder(folder / "colbert", {"document_length": 40})
    folders["colbert"] = folder / "colbert" / "model"
    with contextlib.ExitStack() as exits:
        models = {name: load(path, served_name=name) for name, path in folders.items()}
        for model in models.values():
            exits.callback(model.close)
        engine = exits.enter_context(Engine(models, EngineSettings()))
        alone = exits.enter_context(Engine({DENSE: models[DENSE]}, EngineSettings()))
        url = exits.enter_context(listening(create_app(loaded(engine), server_settings())))
        strict = server_settings(api_key=KEY, max_items=8)
        guarded = exits.enter_context(listening(create_app(loaded(engine), strict)))
        single = exits.enter_context(listening(create_app(loaded(alone), server_settings())))
        yield Zoo(url, guarded, single, engine, folders, exits)
