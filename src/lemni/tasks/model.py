"""A loaded model: its tasks behind the one face that the engine knows.

Checks what holds for every task (types of options, which tasks and which kinds of items the model takes) and hands
the rest to the task. A request with several tasks is computed in one forward pass, if they need the same tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any, get_args

from lemni.errors import InvalidRequest, LemniError, TaskNotSupported
from lemni.runtimes.base import Backend, ExpressBackend, Runtime
from lemni.tasks.base import Loaded, TaskModel
from lemni.tasks.tokenizer import Tokenizer, is_unicode
from lemni.types import (
    TASK_WORDS,
    Activation,
    Audio,
    Image,
    InputType,
    Item,
    ModelCard,
    Options,
    Output,
    Request,
    Result,
    Row,
    Sequence,
    Task,
    Truncate,
)


class LoadedModel:
    """Implements `lemni.engine.model.Model`."""

    def __init__(self, card: ModelCard, loaded: Loaded, backend: Backend) -> None:
        self.card = card
        self.backend = backend
        self.tasks: Mapping[Task, TaskModel] = loaded.tasks
        self.tokenizer: Tokenizer | None = loaded.tokenizer

    def validate(self, request: Request) -> None:
        _check_types(request.options)
        for task in request.tasks:
            if task not in self.tasks:
                does = ", ".join(TASK_WORDS[other] for other in self.tasks)
                raise TaskNotSupported(
                    f"{self.card.name} does not do {TASK_WORDS[task]}; it does {does}", param="model"
                )
        for task in request.tasks:
            self.tasks[task].validate(request)

    def estimate_tokens(self, item: Item, request: Request) -> int:
        if isinstance(item, Image | Audio) and (kind := type(item).__name__.lower()) not in self.card.modalities:
            raise InvalidRequest(f"{self.card.name} takes no {kind}; it takes {', '.join(self.card.modalities)}")
        return self.tasks[request.tasks[0]].estimate(item, request)

    def tokenize(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        outcomes = self.tasks[request.tasks[0]].encode(request, start, stop)
        if len(request.tasks) == 1:
            return outcomes
        others = [self.tasks[task].encode(request, start, stop) for task in request.tasks[1:]]
        return [_joined(alternatives) for alternatives in zip(outcomes, *others, strict=True)]

    def new_runtime(self, replica: int) -> Runtime:
        return self.backend.replica(replica)

    def express_runtime(self) -> Runtime:
        if not isinstance(self.backend, ExpressBackend):
            raise NotImplementedError(f"{self.backend.name} has no express replicas")
        return self.backend.express()

    def finish(self, items: Seq[Seq[Row]], request: Request) -> Result:
        fields: dict[str, Any] = {}
        for task in request.tasks:
            fields.update(self.tasks[task].finish(items, request))
        return Result.of(items, **fields)

    def close(self) -> None:
        """Free the weights."""
        self.backend.close()


def _joined(alternatives: Seq[list[Sequence] | LemniError]) -> list[Sequence] | LemniError:
    """One item as several tasks encode it: the same tokens, and the outputs of all.

    Raises:
        InvalidRequest: they need different tokens, such as ColBERT's markers.
    """
    first = alternatives[0]
    if isinstance(first, LemniError):
        return first
    outputs: dict[Output, None] = dict.fromkeys(output for one in first for output in one.outputs)
    for other in alternatives[1:]:
        if isinstance(other, LemniError):
            return other
        if [one.ids.tobytes() for one in other] != [one.ids.tobytes() for one in first]:
            raise InvalidRequest("these tasks need forward passes of their own on this model: ask for one at a time")
        outputs.update(dict.fromkeys(output for one in other for output in one.outputs))
    return [dataclasses.replace(one, outputs=tuple(outputs)) for one in first]


_CHOICES: dict[str, tuple[str, ...]] = {
    "truncate": get_args(Truncate),
    "input_type": get_args(InputType),
    "activation": get_args(Activation),
}
_KINDS: dict[str, tuple[type, str]] = {
    "dimensions": (int, "a whole number"),
    "max_tokens": (int, "a whole number"),
    "normalize": (bool, "True or False"),
    "prompt": (str, "a text"),
    "prompt_name": (str, "a text"),
}


def _check_types(options: Options) -> None:
    """Callers in Python are not checked by anything else."""
    for name, (kind, words) in _KINDS.items():
        value = getattr(options, name)
        if value is not None and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise InvalidRequest(f"{name} is {repr(value)[:100]}; it must be {words}", param=name)
    for name, choices in _CHOICES.items():
        value = getattr(options, name)
        if value is not None and value not in choices:
            words = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
            raise InvalidRequest(f"{name} is {repr(value)[:100]}; it must be {words}", param=name)
    if options.max_tokens is not None and options.max_tokens < 1:
        raise InvalidRequest(f"max_tokens is {options.max_tokens}; it must be at least 1", param="max_tokens")
    if options.prompt is not None and not is_unicode(options.prompt):
        raise InvalidRequest("prompt holds a lone surrogate, which is no character", param="prompt")
