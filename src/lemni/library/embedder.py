"""A loaded model and what can be asked of it, sync and async. `load` makes one."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sized
from collections.abc import Sequence as Seq
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from typing_extensions import TypedDict, Unpack

from lemni.config import DEFAULT_MODEL, EngineSettings, HubSettings, MediaSettings, ModelSettings
from lemni.engine import Engine
from lemni.errors import ConfigError, InvalidRequest, LemniError
from lemni.library.parts import Steps, steps
from lemni.loading import load_model
from lemni.ranking import Label, Ranked, labelled, ranked
from lemni.tasks.model import LoadedModel
from lemni.types import (
    Activation,
    Audio,
    Chunks,
    Image,
    InputType,
    Item,
    Mixed,
    Options,
    Pair,
    Priority,
    Request,
    Result,
    SparseVector,
    Task,
    Truncate,
)

_SECTIONS: tuple[type[BaseModel], ...] = (ModelSettings, EngineSettings, HubSettings, MediaSettings)
_Section = TypeVar("_Section", bound=BaseModel)
_Vectors = NDArray[np.float32]


class How(TypedDict, total=False):
    """Options that every method takes by keyword.

    Attributes:
        prompt_name: one of the model's prompts, such as "query"; see `card.prompts`.
        prompt: text to put before every text instead.
        input_type: "query" or "document": takes the model's prompt or markers for it, if it has some.
        dimensions: keep the first N values and normalise again.
        normalize: unit length or raw; default is what the model does.
        truncate: "right", "left", "error" to refuse texts over `card.max_length`, or "chunk" to average its parts.
        max_tokens: cut texts to so many tokens.
        activation: "none", "sigmoid" or "softmax" for scores and labels; default is the model's own.
        priority: "bulk" yields to interactive requests on the same model.
        deadline_s: seconds until `DeadlineExceeded`; `request_timeout_s` if not given.
    """

    prompt_name: str | None
    prompt: str | None
    input_type: InputType | None
    dimensions: int | None
    normalize: bool | None
    truncate: Truncate | None
    max_tokens: int | None
    activation: Activation | None
    priority: Priority
    deadline_s: float | None


def load(model: str = DEFAULT_MODEL, **settings: Any) -> Embedder:
    """Load a model and be ready.

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
    """A loaded model. Thread-safe. Close it, or use it as a context manager, to free its memory and threads.

    What it can do is up to the model: `card.tasks`. Every method raises InvalidRequest and its kinds, with a message
    that names the item; TaskNotSupported if the model does something else; DeadlineExceeded if it is not done in time.
    Methods that begin with an `a` are for async code: cancelling the task cancels the work.
    """

    def __init__(self, model: LoadedModel, settings: EngineSettings) -> None:
        self.card = model.card
        self._model = model
        self._settings = settings
        self._engine = Engine({model.card.name: model}, settings)
        self._closing = threading.Lock()
        self._closed = False
        self._engine.start()
        self._process = os.getpid()
        atexit.register(self._at_exit)

    def embed(self, texts: Item | Seq[Item], **how: Unpack[How]) -> _Vectors:
        """Dense vectors of texts, token id lists, images or sounds (`lemni.Image(data)`, `lemni.Audio(data)`).

        Returns:
            float32 [dimensions] for one item, [items, dimensions] for a list.
        """
        return self._vectors(texts, self.run(self._request(texts, ("embed",), how)), how)

    async def aembed(self, texts: Item | Seq[Item], **how: Unpack[How]) -> _Vectors:
        """`embed` for async code."""
        return self._vectors(texts, await self.arun(self._request(texts, ("embed",), how)), how)

    def sparse(self, texts: Seq[Item], **how: Unpack[How]) -> list[SparseVector]:
        """Term weights of each text: (indices int32 [n], values float32 [n])."""
        return list(self.run(self._request(texts, ("sparse",), how)).sparse)

    async def asparse(self, texts: Seq[Item], **how: Unpack[How]) -> list[SparseVector]:
        """`sparse` for async code."""
        return list((await self.arun(self._request(texts, ("sparse",), how))).sparse)

    def multi_vector(self, items: Seq[Item], **how: Unpack[How]) -> list[_Vectors]:
        """Late-interaction vectors of each item: float32 [tokens, dimensions]."""
        return list(self.run(self._request(items, ("multi_vector",), how)).multi_vectors)

    async def amulti_vector(self, items: Seq[Item], **how: Unpack[How]) -> list[_Vectors]:
        """`multi_vector` for async code."""
        return list((await self.arun(self._request(items, ("multi_vector",), how))).multi_vectors)

    def rerank(
        self,
        query: str | Image | Mixed,
        documents: Seq[str | Image | Mixed],
        *,
        top_n: int | None = None,
        **how: Unpack[How],
    ) -> list[Ranked]:
        """Documents by their relevance to the query, the best first; the first `top_n` if given.

        By a cross-encoder's own score, by the similarity of vectors, or by MaxSim: whatever the model is made for.
        """
        return ranked(self.run(self._pairs(query, documents, how)).scores, top_n)

    async def arerank(
        self,
        query: str | Image | Mixed,
        documents: Seq[str | Image | Mixed],
        *,
        top_n: int | None = None,
        **how: Unpack[How],
    ) -> list[Ranked]:
        """`rerank` for async code."""
        return ranked((await self.arun(self._pairs(query, documents, how))).scores, top_n)

    def score(self, pairs: Seq[Pair], **how: Unpack[How]) -> _Vectors:
        """Scores of pairs: float32 [pairs]."""
        return self.run(self._request(pairs, ("score",), how)).scores

    async def ascore(self, pairs: Seq[Pair], **how: Unpack[How]) -> _Vectors:
        """`score` for async code."""
        return (await self.arun(self._request(pairs, ("score",), how))).scores

    def classify(self, texts: Seq[Item], *, top_k: int | None = None, **how: Unpack[How]) -> list[list[Label]]:
        """Labels of each text (or pair of texts) with their scores, the best first; the first `top_k` if given."""
        return labelled(self.run(self._request(texts, ("classify",), how)).labels, self.card.labels, top_k)

    async def aclassify(self, texts: Seq[Item], *, top_k: int | None = None, **how: Unpack[How]) -> list[list[Label]]:
        """`classify` for async code."""
        result = await self.arun(self._request(texts, ("classify",), how))
        return labelled(result.labels, self.card.labels, top_k)

    def run(self, request: Request) -> Result:
        """Any request, of any length: what the methods above are made of."""
        way = self._steps(request)
        try:
            while True:
                step = next(way)
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    step.exception()
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            way.close()

    async def arun(self, request: Request) -> Result:
        """`run` for async code."""
        way = self._steps(request)
        try:
            while True:
                step = next(way)
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    with contextlib.suppress(LemniError):  # the next step raises it
                        await asyncio.wrap_future(step)
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            way.close()

    def close(self) -> None:
        """End what is in flight, stop the threads, free the memory. Idempotent."""
        atexit.unregister(self._at_exit)
        self._engine.close()
        with self._closing:
            if not self._closed:
                self._closed = True
                self._model.close()

    def _at_exit(self) -> None:
        """A thread that is inside of OpenVINO when Python ends aborts the process; a forked child has none."""
        if os.getpid() == self._process:
            self.close()

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def __aenter__(self) -> Embedder:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await asyncio.to_thread(self.close)

    def _steps(self, request: Request) -> Steps:
        _check(request)
        self._model.validate(request)
        return steps(self._engine, self._model, self._settings, request)

    def _request(self, items: Item | Seq[Item], tasks: tuple[Task, ...], how: How) -> Request:
        if unknown := sorted(set(how) - set(How.__annotations__)):
            raise TypeError(f"unexpected keyword argument {unknown[0]!r}; known: {', '.join(How.__annotations__)}")
        options = Options(
            how.get("dimensions"),
            how.get("normalize"),
            how.get("prompt"),
            how.get("prompt_name"),
            how.get("input_type"),
            how.get("truncate"),
            how.get("max_tokens"),
            how.get("activation"),
        )
        lone = isinstance(items, _SINGLE)
        listed: Any = [items] if lone else items
        return Request(listed, options, tasks, how.get("priority", "interactive"), how.get("deadline_s"), lone=lone)

    def _pairs(self, query: str | Image | Mixed, documents: Seq[str | Image | Mixed], how: How) -> Request:
        if isinstance(documents, str) or not isinstance(documents, Iterable):
            kind = "a text" if isinstance(documents, str) else f"of type {type(documents).__name__}"
            raise InvalidRequest(f"documents is {kind}; it must be a list of texts", param="documents")
        pairs = [Pair(query, document) for document in documents]
        request = self._request(pairs, ("score",), how)
        return Request(pairs, request.options, ("score",), request.priority, request.deadline_s, field="documents")

    def _vectors(self, texts: Item | Seq[Item], result: Result, how: How) -> _Vectors:
        if not len(result.token_counts):
            return np.zeros((0, how.get("dimensions") or self.card.dimensions or 0), dtype=np.float32)
        return result.vectors[0] if isinstance(texts, _SINGLE) and not isinstance(texts, Chunks) else result.vectors


_SINGLE = (str, Image, Audio, Mixed, Chunks, Pair)


def _check(request: Request) -> None:
    """What the engine would not see, or see as something else, is refused here."""
    priority, deadline_s, items = request.priority, request.deadline_s, request.items
    if priority not in get_args(Priority):
        raise InvalidRequest(f"priority is {priority!r}; it must be 'interactive' or 'bulk'", param="priority")
    if deadline_s is not None and (
        isinstance(deadline_s, bool) or not isinstance(deadline_s, int | float) or not deadline_s > 0
    ):
        raise InvalidRequest(f"deadline_s is {deadline_s!r}; it must be seconds, more than 0", param="deadline_s")
    if isinstance(items, bytes | bytearray | Mapping) or not (
        isinstance(items, Sized) and hasattr(items, "__getitem__")
    ):
        raise InvalidRequest(
            f"texts is of type {type(items).__name__}; it must be a text, or a list of texts or token id lists",
            param="items",
        )
