"""The library: a model in this process, without a server. `lemni.load(...)` is the way in.

Runs the same engine as the server, so threads may share one `Embedder`, and async code may await it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sized
from collections.abc import Sequence as Seq
from typing import Any, TypeAlias, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from lemni.config import DEFAULT_MODEL, EngineSettings, HubSettings, MediaSettings, ModelSettings
from lemni.engine import Engine, Handle
from lemni.errors import ConfigError, DeadlineExceeded, InvalidRequest, LemniError, Overloaded
from lemni.loading import load_model
from lemni.tasks.model import LoadedModel
from lemni.tasks.tokenizer import no_item
from lemni.types import InputType, Item, Options, Priority, Request, Truncate

logger = logging.getLogger(__name__)

# Long lists go to the engine in parts, so that memory stays bounded and a list may be longer than its queue.
_PART = 512
_PARTS_IN_FLIGHT = 4
_PARTS_PER_QUEUE = 8  # a part's estimated tokens are at most the queue's by this

_Vectors: TypeAlias = NDArray[np.float32]
_Steps: TypeAlias = Generator["Handle | float", None, _Vectors]
_SECTIONS: tuple[type[BaseModel], ...] = (ModelSettings, EngineSettings, HubSettings, MediaSettings)
_Section = TypeVar("_Section", bound=BaseModel)


def load(model: str = DEFAULT_MODEL, **settings: Any) -> Embedder:
    """Load a model and be ready to embed.

    Args:
        model: a folder, a hub id, or `pypi:NAME==VERSION`.
        settings: any field of `ModelSettings`, `EngineSettings`, `HubSettings` and `MediaSettings` in `lemni.config`:
            `device="cpu"`, `dtype="bfloat16"`, `max_length=128`, `revision="main"`, `offline=True`, `threads=4`.

    Raises:
        ConfigError: an unknown setting or a bad value.
        ModelNotFound: the model is nowhere; the message says what was tried.
        ModelLoadError: its files cannot be used.
        MissingExtra: it needs an optional package.

    Example:
        >>> import lemni
        >>> with lemni.load() as model:
        ...     vectors = model.embed(["A cat sits on the mat.", "A dog runs."])
        >>> vectors.shape, vectors.dtype
        ((2, 384), dtype('float32'))
    """
    known = {name for section in _SECTIONS for name in section.model_fields}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(known - {'model'}))}")
    settings["model"] = model
    engine_settings = _section(EngineSettings, settings)
    hub, media = _section(HubSettings, settings), _section(MediaSettings, settings)
    loaded = load_model(_section(ModelSettings, settings), hub, engine_settings, media)
    try:
        return Embedder(loaded, engine_settings)
    except BaseException:
        loaded.close()
        raise


def _section(section: type[_Section], settings: dict[str, Any]) -> _Section:
    try:
        return section.model_validate({name: settings[name] for name in section.model_fields if name in settings})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}") from error


class Embedder:
    """A loaded model. Thread-safe. Close it, or use it as a context manager, to free its memory and threads."""

    def __init__(self, model: LoadedModel, settings: EngineSettings) -> None:
        self.card = model.card
        self._model = model
        self._settings = settings
        self._engine = Engine({model.card.name: model}, settings)
        self._closing = threading.Lock()
        self._closed = False
        self._engine.start()

    def embed(
        self,
        texts: str | Seq[Item],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate | None = None,
        priority: Priority = "interactive",
        deadline_s: float | None = None,
    ) -> NDArray[np.float32]:
        """Vectors of texts (or of token id lists).

        Args:
            texts: one text, or a list of texts or token id lists.
            prompt_name: one of the model's prompts, such as "query"; see `card.prompts`.
            prompt: text to put before every text instead.
            input_type: "query" or "document": takes the model's prompt for it, if it has one.
            dimensions: keep the first N values and normalise again.
            normalize: unit length or raw; default is what the model does.
            truncate: "right", "left", or "error" to refuse texts over `card.max_length`.
            priority: "bulk" yields to interactive requests on the same model.
            deadline_s: seconds until `DeadlineExceeded`; `request_timeout_s` if not given.

        Returns:
            float32 [dimensions] for one text, [texts, dimensions] for a list.

        Raises:
            InvalidRequest: and its kinds; the message names the item.
            DeadlineExceeded: not done within `deadline_s`.
        """
        options = Options(dimensions, normalize, prompt, prompt_name, input_type, truncate)
        steps = self._steps(texts, options, priority, deadline_s)
        try:
            while True:
                step = next(steps)
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    step.exception()
        except StopIteration as end:
            vectors: _Vectors = end.value
            return vectors[0] if isinstance(texts, str) else vectors
        finally:
            steps.close()

    async def aembed(
        self,
        texts: str | Seq[Item],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate | None = None,
        priority: Priority = "interactive",
        deadline_s: float | None = None,
    ) -> NDArray[np.float32]:
        """`embed` for async code: cancelling the task cancels the work."""
        options = Options(dimensions, normalize, prompt, prompt_name, input_type, truncate)
        steps = self._steps(texts, options, priority, deadline_s)
        try:
            while True:
                step = next(steps)
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    with contextlib.suppress(LemniError):  # the next step raises it
                        await asyncio.wrap_future(step)
        except StopIteration as end:
            vectors: _Vectors = end.value
            return vectors[0] if isinstance(texts, str) else vectors
        finally:
            steps.close()

    def close(self) -> None:
        """End what is in flight, stop the threads, free the memory. Idempotent."""
        self._engine.close()
        with self._closing:
            if not self._closed:
                self._closed = True
                self._model.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _steps(self, texts: str | Seq[Item], options: Options, priority: Priority, deadline_s: float | None) -> _Steps:
        """The whole of `embed`, except waiting: yields a handle to wait for, or seconds to sleep; returns the vectors.

        A part that finds the queue full comes again when an earlier one is done, or when the queue should have room.
        """
        items = self._checked(texts, options, priority, deadline_s)
        deadline_s = self._settings.request_timeout_s if deadline_s is None else deadline_s
        until = time.monotonic() + deadline_s
        handles: deque[Handle] = deque()
        parts: list[_Vectors] = []
        try:
            for part in self._parts(items, options, priority):
                if len(handles) == _PARTS_IN_FLIGHT:
                    yield handles[0]
                    parts.append(self._taken(handles.popleft()))
                while isinstance(answer := self._submit(part, until, deadline_s), float):
                    if handles:
                        yield handles[0]
                        parts.append(self._taken(handles.popleft()))
                    else:
                        yield answer
                handles.append(answer)
            while handles:
                yield handles[0]
                parts.append(self._taken(handles.popleft()))
        finally:
            for handle in handles:
                handle.cancel()
        if not parts:
            return np.zeros((0, options.dimensions or self.card.dimensions or 0), dtype=np.float32)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _taken(self, handle: Handle) -> _Vectors:
        result = handle.result()
        if result.truncated:
            message = "%d of %d texts were cut to %d tokens; truncate='error' refuses such texts"
            logger.warning(message, len(result.truncated), len(result.token_counts), self.card.max_length)
        return result.vectors

    def _submit(self, part: Request, until: float, deadline_s: float) -> Handle | float:
        """The part's handle, or the seconds after which the full queue should have room."""
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise DeadlineExceeded(f"not finished within its deadline of {deadline_s:g} s")
        try:
            return self._engine.submit(self.card.name, dataclasses.replace(part, deadline_s=left_s))
        except Overloaded as full:
            return float(min(full.retry_after_s or 1.0, left_s))

    def _checked(self, texts: Any, options: Options, priority: Any, deadline_s: Any) -> Seq[Item]:
        """The items. What the engine would not see, or see as something else, is refused here."""
        self._model.validate(Request((), options))
        if priority not in get_args(Priority):
            raise InvalidRequest(f"priority is {priority!r}; it must be 'interactive' or 'bulk'", param="priority")
        if deadline_s is not None and (
            isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not deadline_s > 0
        ):
            raise InvalidRequest(f"deadline_s is {deadline_s!r}; it must be seconds, more than 0", param="deadline_s")
        if isinstance(texts, str):
            return [texts]
        if isinstance(texts, bytes | bytearray | Mapping) or not (
            isinstance(texts, Sized) and hasattr(texts, "__getitem__")
        ):
            raise InvalidRequest(
                f"texts is of type {type(texts).__name__}; it must be a text, or a list of texts or token id lists",
                param="items",
            )
        items: Seq[Item] = texts  # type: ignore[assignment]
        return items

    def _parts(self, items: Seq[Item], options: Options, priority: Priority) -> Iterator[Request]:
        most = self._settings.max_queue_tokens // _PARTS_PER_QUEUE
        start, tokens = 0, 0
        for stop, item in enumerate(items):
            if error := no_item(item, f"input[{stop}]"):
                error.item, error.param = stop, f"input[{stop}]"
                raise error
            estimate = self._model.estimate_tokens(item, Request((), options))
            if stop > start and (stop - start == _PART or tokens + estimate > most):
                yield Request(items[start:stop], options, priority=priority, first_item=start)
                start, tokens = stop, 0
            tokens += estimate
        if start < len(items):
            yield Request(items[start:], options, priority=priority, first_item=start)
