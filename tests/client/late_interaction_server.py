"""A live Lemni with tiny random late-interaction models under the names of the real ones, which writes down what it is
asked; and transformers and sentence-transformers on the same weights."""

from __future__ import annotations

import contextlib
import io
import json
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests import tiny_multimodal as tiny
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load
from tests.tasks.test_colbert import encoder, projection

COLQWEN = "michaelfeil/colqwen2-v0.1"
COLPALI = "vidore/colpali-v1.3"
COLBERT = "colbert-ir/colbertv2.0"
WIDTH = 128


@dataclass
class Live:
    """The server.

    Attributes:
        folders: of the models, by their names.
        asked: bodies of requests, in order.
    """

    folders: dict[str, Path]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def of(self, model: str) -> Reference:
        return Reference(self.folders[model])


class Reference:
    """ColPali or ColQwen2 as transformers computes it, one input at a time."""

    def __init__(self, folder: Path) -> None:
        import transformers

        self._processor = transformers.AutoProcessor.from_pretrained(folder)
        config = transformers.AutoConfig.from_pretrained(folder)
        self._model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()

    def query(self, text: str) -> NDArray[np.float32]:
        return self._vectors(self._processor.process_queries([text]))

    def document(self, text: str) -> NDArray[np.float32]:
        """A text without what only queries have: the prefix, and the augmentation tokens at the end."""
        return self._vectors(self._processor.tokenizer([text], return_tensors="pt"))

    def image(self, file: bytes) -> NDArray[np.float32]:
        from PIL import Image

        return self._vectors(self._processor.process_images(images=[Image.open(io.BytesIO(file)).convert("RGB")]))

    def _vectors(self, inputs: Any) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            vectors: NDArray[np.float32] = self._model(**inputs).embeddings[0].numpy()
        return vectors


@contextlib.contextmanager
def late_interaction_server(folder: Path) -> Iterator[Live]:
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "DIMENSIONS", WIDTH)
        folders = {COLQWEN: tiny.save_colqwen2(folder / "colqwen2"), COLPALI: tiny.save_colpali(folder / "colpali")}
    mask = MultiVectorMask(skiplist_words=list(string.punctuation))
    modules = [projection(WIDTH), mask, Normalize(module_input_name="token_embeddings")]
    expansion = {"query_expansion": {"strategy": "fixed", "attend": True, "length": 16}, "document_length": 40}
    encoder(folder / "colbert", expansion, modules)
    folders[COLBERT] = folder / "colbert" / "model"
    models = {name: load(path, served_name=name) for name, path in folders.items()}
    live = Live(folders)
    with Engine(models, EngineSettings()) as engine:
        app = create_app(loaded(engine), server_settings())

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            body = b""

            async def reading() -> Any:
                nonlocal body
                message = await receive()
                body += message.get("body", b"")
                return message

            await app(scope, reading, send)
            if body:
                live.asked.append(json.loads(body))

        with listening(watched) as live.url:  # type: ignore[arg-type]
            yield live
    for model in models.values():
        model.close()
