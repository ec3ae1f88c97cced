"""Tiny random encoders of transformers, and how their hidden states are compared with Lemni's families."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from lemni.families import family_class
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.runtimes.base import BackendOptions, Blueprint
from lemni.types import Sequence
from tests.families.decoders import BACKENDS, HIDDEN, TOLERANCE, config_of, run, save

__all__ = ["BACKENDS", "SIZES", "TOLERANCE", "config_of", "save"]

VOCABULARY = 99
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 160,
}

Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(ids [1, tokens], token types [1, tokens]) -> hidden states [1, tokens, hidden]."""


def sequences(*lengths: int, types: int = 1, seed: int = 0) -> list[Sequence]:
    """Random tokens that are never padding (0 or 1), which RoBERTa's positions leave out."""
    random = np.random.default_rng(seed)
    return [
        Sequence(
            random.integers(2, VOCABULARY, n, dtype=np.int32),
            token_types=random.integers(0, types, n, dtype=np.int32),
        )
        for n in lengths
    ]


def forward_of(model: Any, *, types: bool) -> Forward:
    def forward(ids: torch.Tensor, token_types: torch.Tensor) -> torch.Tensor:
        extra = {"token_type_ids": token_types} if types else {}
        hidden: torch.Tensor = model(input_ids=ids, **extra).last_hidden_state
        return hidden

    return forward


def expected(forward: Forward, items: Seq[Sequence]) -> NDArray[np.float32]:
    """Hidden states [T, hidden] of the reference, one sequence at a time."""
    rows = []
    with torch.inference_mode():
        for item in items:
            assert item.token_types is not None
            ids, types = (torch.from_numpy(array.astype(np.int64))[None] for array in (item.ids, item.token_types))
            rows.append(forward(ids, types)[0].float().numpy())
    return np.concatenate(rows)


class Loaded:
    """A folder's model on one backend."""

    def __init__(self, folder: Path, backend: str, config: dict[str, Any] | None = None) -> None:
        config = config_of(folder) if config is None else config
        store = TensorStore(sorted(folder.glob("*.safetensors")))
        blueprint: Any = Blueprint(
            None,  # type: ignore[arg-type]  # a family needs no more than its config
            lambda ops: family_class(config["model_type"], config)(config, Weights(store), ops),
            HIDDEN,
        )
        self.backend = BACKENDS[backend](blueprint, BackendOptions(threads=1))
        self.max_positions = self.backend.max_positions
        self._replica = self.backend.replica(0)

    def __call__(self, items: Seq[Sequence]) -> NDArray[np.float32]:
        """Hidden states [T, hidden], all sequences in one batch."""
        return run(self._replica, items)


def worst(folder: Path, forward: Forward, items: Seq[Sequence], config: dict[str, Any] | None = None) -> float:
    """Largest difference from the reference over both runtimes."""
    states = expected(forward, items)
    assert np.abs(states).max() > 0.5  # differences mean something
    return max(float(np.abs(Loaded(folder, name, config)(items) - states).max()) for name in BACKENDS)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Save the weights again under other names, or in another precision."""
    path = folder / "model.safetensors"
    tensors = change(load_file(path))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
