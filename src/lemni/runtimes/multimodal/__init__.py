"""Models of text with images or sound, by transformers' own classes (extra `torch`).

A batch's sequences are grouped by modality and by the shapes of their arrays; texts are padded on the right under a
mask. No row depends on what else is in the batch. A group of model classes is one adapter file here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lemni.errors import ModelLoadError, missing_extra
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import BackendOptions, Blueprint, Limits
from lemni.runtimes.multimodal.base import Adapter
from lemni.runtimes.padding import Rectangle, rectangles
from lemni.types import TOKEN_OUTPUTS, Features, Outputs, PackedBatch, Sequence

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Loaded:
    device: torch.device
    adapter: Adapter


class MultimodalBackend:
    """A model of text with images or sound on one or several torch devices.

    Raises:
        MissingExtra: torch or transformers is not installed.
        ModelLoadError: it is no such model, or the weights do not fit it.
    """

    name = "multimodal"

    def __init__(self, blueprint: Blueprint, options: BackendOptions) -> None:
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise missing_extra(error.name or "transformers", "torch", "a model of images or sound") from None
        from lemni.runtimes.torch_devices import loading_on, torch_limits, use_threads

        self.device = ",".join(options.devices)
        self.dtype = options.dtype
        self._torch_dtype: torch.dtype = getattr(torch, options.dtype)
        use_threads(options)
        self._loaded = []
        for name in options.devices:
            device = torch.device(name)
            with loading_on(name):
                adapter = _adapter(blueprint.spec, options, self._torch_dtype, device)
            self._loaded.append(_Loaded(device, adapter))
        self.outputs = frozenset((self._loaded[0].adapter.output,))
        self.max_positions = self._loaded[0].adapter.max_positions
        self.limits = torch_limits(options)

    def replica(self, index: int) -> MultimodalRuntime:
        return MultimodalRuntime(self._loaded[index % len(self._loaded)], self._torch_dtype, self.limits)

    def close(self) -> None:
        self._loaded = []


class MultimodalRuntime:
    """One replica; replicas on the same device share the model."""

    def __init__(self, loaded: _Loaded, dtype: torch.dtype, limits: Limits) -> None:
        self.device = str(loaded.device)
        self.limits = limits
        self._loaded: _Loaded | None = loaded
        self._dtype = dtype

    def run(self, batch: PackedBatch) -> list[Outputs]:
        from lemni.runtimes.torch_devices import running

        if self._loaded is None:
            raise RuntimeError("the replica is closed")
        rows: list[Outputs] = [{} for _ in range(len(batch))]
        with running():
            for members, group in _groups(batch):
                for rectangle in rectangles(group, self.limits.batch_tokens):
                    computed = self._compute(self._loaded, group, rectangle)
                    for row, place in zip(computed, rectangle.sequences, strict=True):
                        rows[members[place]] = row
        return rows

    def close(self) -> None:
        self._loaded = None

    def _compute(self, loaded: _Loaded, group: PackedBatch, rectangle: Rectangle) -> list[Outputs]:
        """What the sequences of one rectangle of a group give, in its order."""
        import torch

        adapter = loaded.adapter
        ids = torch.from_numpy(rectangle.fill(group.ids, adapter.pad_id)).to(loaded.device)
        mask = torch.from_numpy(rectangle.mask.astype(np.int64)).to(loaded.device)
        features = [group.features[place] for place in rectangle.sequences]
        rows = adapter(ids, mask, self._stacked(loaded.device, features)).float().cpu().numpy()
        if adapter.output not in TOKEN_OUTPUTS:
            return [{adapter.output: row} for row in rows]
        return [{adapter.output: row[keep]} for row, keep in zip(rows, rectangle.mask, strict=True)]

    def _stacked(self, device: torch.device, features: list[Features | None]) -> dict[str, torch.Tensor]:
        """The arrays of each name, [G, ...]; floats in the precision of the computation."""
        import torch

        stacked = {}
        arrays = [one.arrays for one in features if one is not None]
        for name in arrays[0] if arrays else ():
            tensor = torch.from_numpy(np.stack([one[name] for one in arrays]))
            stacked[name] = tensor.to(device, self._dtype if tensor.is_floating_point() else None)
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
