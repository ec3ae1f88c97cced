"""Dense embeddings: the engine's view of a model that gives one vector per item.

The runtime computes encoder, pooling and Dense modules; normalising and cutting to `dimensions` are done here, on
whole requests, so that requests with different options share batches.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, LemniError
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import Backend, Runtime
from lemni.tasks.tokenizer import Tokenizer, is_unicode
from lemni.types import EmbedOptions, Item, ModelCard, Sequence, Truncate


class DenseModel:
    """Implements `lemni.engine.model.Model`.

    Args:
        truncate: what happens to long texts when a request does not say; None cuts on the model's own side.
        prompt_name: prompt when a request names none; None takes the model's own default.
    """

    def __init__(
        self,
        card: ModelCard,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        backend: Backend,
        *,
        truncate: Truncate | None = None,
        prompt_name: str | None = None,
    ) -> None:
        self.card = card
        self.spec = spec
        self.tokenizer = tokenizer
        self.backend = backend
        self._truncate: Truncate = truncate or spec.truncation_side
        self._prompt_name = prompt_name or spec.default_prompt_name
        if self._prompt_name is not None:
            self._named_prompt(self._prompt_name)

    def validate(self, options: EmbedOptions) -> None:
        size = self.card.dimensions
        _check_types(options)
        if options.dimensions is not None and not 1 <= options.dimensions <= size:
            raise InvalidRequest(
                f"dimensions is {options.dimensions}, but {self.card.name} gives vectors of 1 to {size}",
                param="dimensions",
            )
        if options.prompt is None and options.prompt_name is not None:
            self._named_prompt(options.prompt_name)

    def estimate_tokens(self, item: Item, options: EmbedOptions | None = None) -> int:
        return self.tokenizer.estimate(item, "" if options is None else self.prompt(options))

    def tokenize(self, items: Seq[Item], options: EmbedOptions, offset: int) -> list[Sequence | LemniError]:
        prompt = self.prompt(options)
        start = self.tokenizer.prompt_tokens(prompt) if prompt and not self.spec.include_prompt else 0
        return self.tokenizer.encode(items, options.truncate or self._truncate, prompt, start, offset)

    def new_runtime(self, replica: int) -> Runtime:
        return self.backend.replica(replica)

    def finish(self, rows: Seq[NDArray[np.float32]], options: EmbedOptions) -> NDArray[np.float32]:
        vectors = np.stack(rows)
        normalize = self.spec.normalize if options.normalize is None else options.normalize
        if options.dimensions is None:
            # sentence-transformers cuts to `truncate_dim` last, and leaves the cut vectors short.
            vectors = unit_length(vectors) if normalize else vectors
            return np.ascontiguousarray(vectors[:, : self.spec.truncate_dim])
        # A cut vector is no longer of unit length, so `dimensions` normalises unless told otherwise (as OpenAI does).
        vectors = np.ascontiguousarray(vectors[:, : options.dimensions])
        return vectors if options.normalize is False else unit_length(vectors)

    def prompt(self, options: EmbedOptions) -> str:
        """The text that goes before every item."""
        if options.prompt is not None:
            return options.prompt
        name = options.prompt_name or self._prompt_name
        return "" if name is None else self._named_prompt(name)

    def close(self) -> None:
        """Free the weights."""
        self.backend.close()

    def _named_prompt(self, name: str) -> str:
        if name not in self.spec.prompts:
            known = ", ".join(repr(known) for known in self.spec.prompts) or "none"
            raise InvalidRequest(
                f"prompt_name {name!r} is no prompt of {self.card.name}; it has: {known}", param="prompt_name"
            )
        return self.spec.prompts[name]


def _check_types(options: EmbedOptions) -> None:
    """Callers in Python are not checked by anything else."""
    wanted: dict[str, tuple[type, str]] = {
        "dimensions": (int, "a whole number"),
        "normalize": (bool, "True or False"),
        "prompt": (str, "a text"),
        "prompt_name": (str, "a text"),
        "truncate": (str, "'right', 'left' or 'error'"),
    }
    for name, (kind, words) in wanted.items():
        value = getattr(options, name)
        good = value is None or (isinstance(value, kind) and not (kind is int and isinstance(value, bool)))
        if not good or (name == "truncate" and value is not None and value not in get_args(Truncate)):
            raise InvalidRequest(f"{name} is {repr(value)[:100]}; it must be {words}", param=name)
    if options.prompt is not None and not is_unicode(options.prompt):
        raise InvalidRequest("prompt holds a lone surrogate, which is no character", param="prompt")


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """x / max(|x|, 1e-12) by row, as torch.nn.functional.normalize; a zero vector stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    unit: NDArray[np.float32] = vectors / np.maximum(norms, np.float32(1e-12))[:, None]
    return unit
