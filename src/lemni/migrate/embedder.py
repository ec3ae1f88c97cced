"""A few texts at once with a job's model and options: samples and queries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

from lemni.bulk.plan import Model, made_for
from lemni.bulk.windows import Computer
from lemni.tasks.model import LoadedModel
from lemni.types import InputType, Request


class Embedder:
    """Args: request: without items, as the job computes documents."""

    def __init__(self, computer: Computer, request: Request) -> None:
        self._computer, self._request = computer, request

    def embed(self, texts: Seq[str], side: InputType | None = None) -> Any:
        """Dense float32 [texts, dimensions], or a list of sparse or multi-vectors.

        Args:
            side: another one than the job's; a prompt of the job does not count then.

        Raises:
            LemniError: a text that cannot be embedded.
        """
        request = self._request
        if side is not None:
            options = replace(request.options, input_type=side, prompt=None, prompt_name=None)
            request = replace(request, options=options)
        computed = self._computer.compute(self._computer.tokenize(list(texts), request))
        for error in computed.errors.values():
            raise error
        task, result = request.tasks[0], computed.result
        if task == "sparse":
            return result.sparse
        return result.multi_vectors if task == "multi_vector" else result.vectors


@contextlib.contextmanager
def embedder(model: Model, loaded: LoadedModel, request: Request) -> Iterator[Embedder]:
    with contextlib.closing(Computer(loaded, model.engine)) as computer:
        yield Embedder(computer, request)


@contextlib.contextmanager
def loaded_embedder(model: Model, request: Request) -> Iterator[Embedder]:
    """Another model, for as long as the block takes; of the request only the options that any model has."""
    loaded = model.load()
    try:
        options = replace(request.options, dimensions=None, prompt=None, prompt_name=None)
        own = replace(request, options=options, tasks=(made_for(loaded.card),))
        with embedder(model, loaded, own) as found:
            yield found
    finally:
        loaded.close()
