"""Models of text with images or sound, by transformers' own classes (extra `torch`).

A batch's sequences are grouped by modality and by the shapes of their arrays; texts are padded on the right under a
mask. No row depends on what else is in the batch. A group of model classes is one adapter file here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from lemni.errors import ModelLoadError
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import BackendOptions, Blueprint
from lemni.runtimes.multimodal.base import Adapter
from lemni.runtimes.padding import Rectangle, rectangles
from lemni.runtimes.torch_backend import DeviceBackend
from lemni.runtimes.torch_devices import torch_limits
from lemni.runtimes.transformers import check_transformers
from lemni.types import TOKEN_OUTPUTS, Features, Outputs, PackedBatch, Sequence


class MultimodalBackend(DeviceBackend):
    """A model of text with images or sound on one or several torch devices.

    Raises:
        MissingExtra: transformers is not installed.
        ModelLoadError: it is no such model, or the weights do not fit it.
    """

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        check_transformers("a model of images or sound")
        super().__init__("multimodal", options, lambda device, dtype: _Model(blueprint.spec, options, device, dtype))


class _Model:
    """A model's adapter on one device, fed in rectangles of like sequences."""

    def __init__(self, spec: ModelSpec, options: BackendOptions, device: torch.device, dtype: torch.dtype) -> None:
        self._device, self._dtype = device, dtype
        self._cells = torch_limits(options).batch_tokens
        self._adapter: Adapter = _adapter(spec, options, dtype, device)
        self.outputs = frozenset((self._adapter.output,))
        self.max_positions = self._adapter.max_positions

    def __call__(self, batch: PackedBatch) -> list[Outputs]:
        rows: list[Outputs] = [{} for _ in range(len(batch))]
        for members, group in _groups(batch):
            for rectangle in rectangles(group, self._cells):
                for row, place in zip(self._compute(group, rectangle), rectangle.sequences, strict=True):
                    rows[members[place]] = row
        return rows

    def _compute(self, group: PackedBatch, rectangle: Rectangle) -> list[Outputs]:
        """What the sequences of one rectangle of a group give, in its order."""
        adapter = self._adapter
        ids = torch.from_numpy(rectangle.fill(group.ids, adapter.pad_id)).to(self._device)
        mask = torch.from_numpy(rectangle.mask.astype(np.int64)).to(self._device)
        features = [group.features[place] for place in rectangle.sequences]
        rows = adapter(ids, mask, self._stacked(features)).float().cpu().numpy()
        if adapter.output not in TOKEN_OUTPUTS:
            return [{adapter.output: row} for row in rows]
        return [{adapter.output: row[keep]} for row, keep in zip(rows, rectangle.mask, strict=True)]

    def _stacked(self, features: list[Features | None]) -> dict[str, torch.Tensor]:
        """The arrays of each name, [G, ...]; floats in the precision of the computation."""
        stacked = {}
        arrays = [one.arrays for one in features if one is not None]
        for name in arrays[0] if arrays else ():
            tensor = torch.from_numpy(np.stack([one[name] for one in arrays]))
            stacked[name] = tensor.to(self._device, self._dtype if tensor.is_floating_point() else None)
        return stacked


def _groups(batch: PackedBatch) -> list[tuple[list[int], PackedBatch]]:
    """Sequences whose arrays can be stacked: their places in the batch, and a batch of them."""
    alike: dict[object, list[int]] = defaultdict(list)
    for place, features in enumerate(batch.features):
        arrays = {} if features is None else features.arrays
        alike[tuple(sorted((name, array.shape) for name, array in arrays.items()))].append(place)
    ids = np.split(batch.ids, batch.starts[1:])
    return [
        (places, PackedBatch.pack([Sequence(ids[place], features=batch.features[place]) for place in places]))
        for places in alike.values()
    ]


def _adapter(spec: ModelSpec, options: BackendOptions, dtype: torch.dtype, device: torch.device) -> Any:
    from lemni.runtimes.multimodal.late_interaction import LATE_INTERACTION, LateInteraction
    from lemni.runtimes.multimodal.towers import TOWERS, Towers

    if spec.model_type in LATE_INTERACTION:
        return LateInteraction(spec, options, dtype, device)
    if spec.model_type in TOWERS:
        return Towers(spec, options, dtype, device)
    known = ", ".join(sorted({*LATE_INTERACTION, *TOWERS}))
    raise ModelLoadError(f"{spec.files.id}: {spec.model_type!r} is no model of images or sound; known: {known}")
