"""What a task is to a loaded model, and what a kind of model is made from.

A *kind* (dense, classifier, sparse ...) is a module with `heads(spec)`, what the backend computes on top of the
encoder, and `load(parts)`, what the model can then be asked for; the table of kinds is `lemni.tasks.KINDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Protocol

from lemni.config import MediaSettings
from lemni.errors import LemniError
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import Backend
from lemni.tasks.tokenizer import Tokenizer
from lemni.types import Item, Modality, Request, Row, Sequence, Task, Truncate


class TaskModel(Protocol):
    """One task of one model. Holds nothing of a request; thread-safe."""

    def validate(self, request: Request) -> None:
        """Refuse options that no item can satisfy. Raises InvalidRequest."""
        ...

    def estimate(self, item: Item, request: Request) -> int:
        """A guess (no tokenising) at the tokens that will be computed; at least 1. Raises InvalidRequest for an item
        that the task does not take."""
        ...

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        """The sequences, or the own error, of each item from `start` to `stop`. Errors name it by `request.named`."""
        ...

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        """The fields of `Result` that this task fills, from the rows of each item's sequences."""
        ...


@dataclass(frozen=True)
class Parts:
    """What a model's tasks are made from, once its backend is loaded.

    Attributes:
        name: the served name, for messages.
        max_length: tokens of the longest sequence.
        truncate: what happens to long texts when a request does not say; None cuts on the model's own side.
        prompt_name: prompt when a request names none; None takes the model's own default.
        media: limits of images and sounds.
    """

    name: str
    spec: ModelSpec
    backend: Backend
    max_length: int
    truncate: Truncate | None = None
    prompt_name: str | None = None
    media: MediaSettings = MediaSettings.model_validate({})  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Loaded:
    """What a kind makes of a model.

    Attributes:
        tasks: what it can be asked for, the main one first.
        tokenizer: of its texts; None if it takes none.
        dimensions: length of a dense vector or of a row of a multi-vector.
        labels: names of what it classifies into.
        modalities: what items can be.
        prompts: name to text, where the kind knows more of them than `ModelSpec.prompts`.
    """

    tasks: Mapping[Task, TaskModel]
    tokenizer: Tokenizer | None
    dimensions: int | None = None
    labels: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = ("text",)
    prompts: Mapping[str, str] | None = None
