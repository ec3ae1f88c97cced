"""What the tests of models of text with images or sound share: a tiny model opened by Lemni, and its rows."""

from __future__ import annotations

import io
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from PIL import Image as Pillow

from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings
from lemni.errors import LemniError
from lemni.loading import load_model
from lemni.tasks.model import LoadedModel
from lemni.types import Image, Item, Options, PackedBatch, Request, Result, Row, Task
from tests import tiny_multimodal as tiny

DEFAULTS = Options()
TOLERANCE = 1e-5
SIZES = ((64, 48), (100, 200), (33, 31), (200, 100), (56, 84), (84, 56), (320, 40))
"""Width and height: in every aspect, some of them with equally many patches."""

TEXTS = ("a cat", "Two DOGS run; one sits.", "", "a", "x" * 12, "the cat sat on the mat")


@dataclass(frozen=True)
class Model:
    """A tiny model twice: as Lemni loads it, and as transformers does."""

    folder: Path
    lemni: LoadedModel
    reference: Any

    @property
    def task(self) -> Task:
        return self.lemni.card.tasks[0]

    @property
    def processor(self) -> Any:
        return transformers.AutoProcessor.from_pretrained(self.folder)

    def encode(self, items: Seq[Item], options: Options = DEFAULTS, task: Task | None = None) -> list[Any]:
        request = Request(items, options, tasks=(task or self.task,))
        self.lemni.validate(request)
        for item in items:
            assert self.lemni.estimate_tokens(item, request) >= 1
        return self.lemni.tokenize(request, 0, len(items))

    def rows(self, items: Seq[Item], options: Options = DEFAULTS) -> list[NDArray[np.float32]]:
        """What the runtime gives for the items, computed as one batch."""
        sequences = [one for [one] in self.encode(items, options)]
        computed = self.lemni.new_runtime(0).run(PackedBatch.pack(sequences))
        return [row[sequence.outputs[0]] for row, sequence in zip(computed, sequences, strict=True)]

    def result(self, items: Seq[Item], options: Options = DEFAULTS, task: Task | None = None) -> Result:
        """The whole way but for the engine. Raises the first item's own error."""
        encoded = self.encode(items, options, task)
        for one in encoded:
            if isinstance(one, LemniError):
                raise one
        flat = [sequence for sequences in encoded for sequence in sequences]
        computed = iter(self.lemni.new_runtime(0).run(PackedBatch.pack(flat)))
        rows = [[Row(sequence, next(computed)) for sequence in sequences] for sequences in encoded]
        return self.lemni.finish(rows, Request(items, options, tasks=(task or self.task,)))


def open_model(folder: Path, media: MediaSettings | None = None, **settings: Any) -> Model:
    wanted = ModelSettings.model_validate({"model": str(folder), "device": "cpu", **settings})
    model = load_model(wanted, HubSettings(offline=True), EngineSettings(threads=1), media)
    reference = getattr(transformers, model.card.architecture)
    return Model(folder, model, reference.from_pretrained(folder).eval())


def pictures() -> list[Image]:
    return [Image(tiny.picture(*size, seed=seed)) for seed, size in enumerate(SIZES)]


def opened(image: Image) -> Any:
    """As a user of transformers would open it."""
    return Pillow.open(io.BytesIO(image.data)).convert("RGB")


def far(found: Seq[NDArray[np.float32]], expected: Seq[NDArray[np.float32]]) -> float:
    """The largest difference; shapes must be equal, and the expected ones must say something."""
    assert [one.shape for one in found] == [one.shape for one in expected]
    assert min(float(np.abs(one).max()) for one in expected) > 0.01
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
