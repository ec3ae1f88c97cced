"""A model in this process, for the commands that ask one without a server.

Items are cut into chunks that go through the engine a few at a time, so that tokenising, computing and writing overlap
and memory stays bounded by the items themselves.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING

import click

from lemni.errors import ConfigError, InvalidRequest, TaskNotSupported
from lemni.types import Request, Result

if TYPE_CHECKING:
    from lemni.config import Settings
    from lemni.engine.job import Handle

LEFT_OUT = ("served_name", "max_queue_tokens", "interactive_weight", "request_timeout_s", "forward_timeout_s")
"""Settings of a model and an engine that mean nothing where nobody else asks."""

_CHUNK_ITEMS = 256
_CHUNK_TOKENS = 16_384
_CHUNKS_IN_FLIGHT = 4


class Local:
    """The one model of the settings, and an engine that runs inside the `with` block.

    Raises:
        ConfigError: the settings name several models.
        LemniError: what `load_model` raises.
    """

    def __init__(self, settings: Settings) -> None:
        from lemni.engine.core import Engine
        from lemni.loading import load_model

        if len(settings.models) > 1:
            names = ", ".join(model.served_name or model.model for model in settings.models)
            raise ConfigError(f"the settings name several models; choose one with --model: {names}")
        self._model = load_model(settings.models[0], settings.hub, settings.engine, settings.media)
        self.card = self._model.card
        self._engine = Engine({self.card.name: self._model}, settings.engine)

    def __enter__(self) -> Local:
        self._engine.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._engine.close()
        self._model.close()

    def validate(self, request: Request, hint: str) -> None:
        """Refuse what no item can satisfy; `hint` says which models do the request's task. Raises InvalidRequest."""
        try:
            self._model.validate(request)
        except TaskNotSupported as error:
            raise TaskNotSupported(f"{error.message}. {hint}") from None

    def run(self, request: Request) -> Result:
        """One request, as long as the queue is. Raises LemniError."""
        return self._engine.submit(self.card.name, request).result()

    def results(self, request: Request, texts: Seq[str], progress: bool | None) -> Iterator[tuple[slice, Result]]:
        """The results of consecutive parts of a request of any length, in order, and which of its items they are of.

        Args:
            texts: what the items are called in errors, after their number and the request's `field`.
            progress: whether a bar is shown; None shows one on a terminal, for many items.

        Raises:
            LemniError: of an item by its number and text.
        """
        from tqdm import tqdm

        many = len(request.items) > _CHUNK_ITEMS
        show = sys.stderr.isatty() and many if progress is None else progress
        cut = 0
        with tqdm(total=len(request.items), unit=f" {request.field}s", disable=not show, file=sys.stderr) as bar:
            try:
                for part, handle in self._submitted(request):
                    result = handle.result()
                    cut += len(result.truncated)
                    yield part, result
                    bar.update(part.stop - part.start)
            except InvalidRequest as error:
                if error.item is None:
                    raise
                raise _named(error, error.item, request.field, texts[error.item]) from error
        if cut:
            what = f"{cut} of {len(request.items)} {request.field}s were cut to {self.card.max_length} tokens"
            click.echo(f"lemni: note: {what}; --truncate error refuses such texts", err=True)

    def _submitted(self, request: Request) -> Iterator[tuple[slice, Handle]]:
        """Parts, while some of those that follow are under way."""
        waiting: deque[tuple[slice, Handle]] = deque()
        for part in self._parts(request):
            if len(waiting) == _CHUNKS_IN_FLIGHT:
                yield waiting.popleft()
            own = dataclasses.replace(request, items=request.items[part], first_item=part.start)
            waiting.append((part, self._engine.submit(self.card.name, own)))
        yield from waiting

    def _parts(self, request: Request) -> Iterator[slice]:
        start, tokens = 0, 0
        for place, item in enumerate(request.items):
            estimate = self._model.estimate_tokens(item, request)
            if place > start and (place - start == _CHUNK_ITEMS or tokens + estimate > _CHUNK_TOKENS):
                yield slice(start, place)
                start, tokens = place, 0
            tokens += estimate
        yield slice(start, len(request.items))


def _named(error: InvalidRequest, item: int, field: str, text: str) -> InvalidRequest:
    """The error with its item called by its number, counted from 1, and its text."""
    shown = text if len(text) <= 40 else f"{text[:39]}…"
    return InvalidRequest(error.message.replace(f"{field}[{item}]", f"{field} {item + 1} ({shown!r})"))
