"""What the engine asks of a model. The engine knows no tokenizer, no pooling and no runtime library.

`lemni.tasks.model.LoadedModel` is the real one; the engine's own tests use a toy.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

from lemni.errors import LemniError
from lemni.runtimes.base import Runtime
from lemni.types import Item, ModelCard, Request, Result, Row, Sequence


class Model(Protocol):
    """A loaded model as the engine sees it. All methods are thread-safe."""

    card: ModelCard

    def validate(self, request: Request) -> None:
        """Refuse what no item can satisfy, such as an unknown prompt name, before anything is queued; looks at no
        item. Raises InvalidRequest."""
        ...

    def estimate_tokens(self, item: Item, request: Request) -> int:
        """A cheap guess (no tokenising) at the tokens that will be computed, prompt included; at least 1."""
        ...

    def tokenize(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        """The items from `start` to `stop`: at least one sequence (of at least one token, even for ""), or the item's
        own error, per item. Releases the GIL where the library does."""
        ...

    def new_runtime(self, replica: int) -> Runtime:
        """Load replica number `replica`. Called once per replica, and again when one died."""
        ...

    def express_runtime(self) -> Runtime:
        """Load a replica for small batches that runs beside the others; called where `Limits.express` says so."""
        ...

    def finish(self, items: Seq[Seq[Row]], request: Request) -> Result:
        """Rows of a whole request, as the runtime gave them, into its result: cut, normalise, score. Equal sequences
        of several requests share rows, so they must not be written to. Sequences have lost their features."""
        ...
