"""What the engine asks of a model. The engine knows no tokenizer, no pooling and no runtime library.

`lemni.tasks.dense.DenseModel` is the real one; the engine's own tests use a toy.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.errors import LemniError
from lemni.runtimes.base import Runtime
from lemni.types import EmbedOptions, Item, ModelCard, Sequence


class Model(Protocol):
    """A loaded model as the engine sees it. All methods are thread-safe."""

    card: ModelCard

    def validate(self, options: EmbedOptions) -> None:
        """Refuse options that no item can satisfy, such as an unknown prompt name. Raises InvalidRequest."""
        ...

    def estimate_tokens(self, item: Item, options: EmbedOptions) -> int:
        """A cheap guess (no tokenising) at the tokens that will be computed, prompt included; at least 1."""
        ...

    def tokenize(self, items: Seq[Item], options: EmbedOptions, offset: int) -> list[Sequence | LemniError]:
        """One sequence (of at least one token, even for ""), or the item's own error, per item. `offset` is the
        index of the first item in its request, for messages. Releases the GIL where the library does."""
        ...

    def new_runtime(self, replica: int) -> Runtime:
        """Load replica number `replica`. Called once per replica, and again when one died."""
        ...

    def finish(self, rows: Seq[NDArray[np.float32]], options: EmbedOptions) -> NDArray[np.float32]:
        """Rows of a whole request, as the runtime gave them, into its vectors: cut, normalise. Equal texts of
        several requests share a row, so it must not be written to.
        Returns float32 [items, dimensions], C-contiguous."""
        ...
