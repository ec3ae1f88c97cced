"""What every provider of embeddings does the same way: it checks inputs, asks the cache, finishes vectors.

The interface is that of faciliter-lib's `BaseEmbeddingClient` (github.com/Aiuj/faciliter-lib, 2025-10). A provider of
one's own is a subclass with `_generate_embedding_raw`; ours are `infinity_provider.py` and its neighbours.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Sequence as Seq
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from lemni.client.cache import EmbeddingCache, Keys
from lemni.client.connection import check_positive, left_s
from lemni.client.environment import Environment
from lemni.client.errors import EmbeddingGenerationError, InvalidArgument, widened
from lemni.client.provider_cache import FROM_ENVIRONMENT, duration_s, provider_cache
from lemni.client.resize import best_method, check_method, resize, unit
from lemni.client.wire.inputs import check_text
from lemni.client.wire.models import Model
from lemni.errors import LemniError

__all__ = ["BaseEmbeddingClient", "EmbeddingGenerationError"]

Rows: TypeAlias = Seq[NDArray[np.float32]]


class BaseEmbeddingClient:
    """Vectors of texts as lists of Python floats. Thread-safe, and usable from any event loop.

    Subclasses implement `_generate_embedding_raw`. The methods whose names begin with an `a` are for async code.

    Attributes:
        model: the model's name.
        embedding_dim: how many values a vector has; None for as many as the model gives.
        use_l2_norm: whether vectors are made 1 long.
        norm_method: how vectors are made `embedding_dim` long, see `resize`; None for what suits the model.
        cache_duration_seconds: how long a vector is held in the cache.
        embedding_time_ms: what the last vectors that were not in the cache took.
        cache: its `statistics` say what it saved; None if there is none.
    """

    provider: ClassVar[str] = "custom"
    default_model: ClassVar[str] = ""

    def __init__(
        self,
        model: str | None = None,
        embedding_dim: int | None = None,
        use_l2_norm: bool = True,
        cache_duration_seconds: float | None = None,
        norm_method: str | None = None,
        *,
        cache: EmbeddingCache | str | None = FROM_ENVIRONMENT,
        environment: Environment | None = None,
    ) -> None:
        """
        Args:
            model: default is the variable `EMBEDDING_MODEL`, else the provider's own.
            embedding_dim: default is the variable `EMBEDDING_DIMENSION`, else what the model gives.
            use_l2_norm: False for the vectors as they come.
            cache_duration_seconds: default is the variable `EMBEDDING_CACHE_DURATION_SECONDS`, else a day; 0 for no
                cache. A cache that is given as an object has its own.
            norm_method: "truncate_or_pad", "interpolate" or "pca_approximate".
            cache: an EmbeddingCache, "memory", "disk:/folder", "redis://host", or None; default is the variable
                `EMBEDDING_CACHE`, else memory, of at most `EMBEDDING_CACHE_MAX_MB`.
            environment: the variables; read anew if not given.

        Raises:
            InvalidArgument: an argument makes no sense; it is a ValueError.
            ConfigError: a variable, or the name of a cache, makes no sense.
        """
        environment = environment or Environment()
        self.model = model or environment.text("EMBEDDING_MODEL") or self.default_model
        self.embedding_dim = embedding_dim if embedding_dim is not None else environment.integer("EMBEDDING_DIMENSION")
        if self.embedding_dim is not None and (type(self.embedding_dim) is not int or self.embedding_dim < 1):
            raise InvalidArgument(f"embedding_dim is {embedding_dim!r}; it must be 1 or more", param="embedding_dim")
        self.norm_method = None if norm_method is None else check_method(norm_method)
        self.use_l2_norm = use_l2_norm
        self.embedding_time_ms = 0.0
        self.cache_duration_seconds = duration_s(cache_duration_seconds, environment)
        if self.cache_duration_seconds != 0:
            check_positive("cache_duration_seconds", self.cache_duration_seconds)
        self.cache = provider_cache(cache, self.cache_duration_seconds, environment)
        self._owns_cache = self.cache is not cache
        self._closed = False

    def generate_embedding(self, text: str | list[str]) -> Any:
        """The vector of a text, or of each text of a list.

        Returns:
            list[float] [dim] for a text, list[list[float]] [texts, dim] for a list.

        Raises:
            InvalidArgument: it is neither; a ValueError.
            EmbeddingGenerationError: there are no vectors; the message says why, and what to do.
        """
        return self.generate_embedding_single(text) if isinstance(text, str) else self.generate_embedding_batch(text)

    def generate_embedding_single(self, text: str) -> list[float]:
        """The vector of a text."""
        return self._answer(_checked([text]))[0]

    def generate_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts, in their order. No texts, no vectors, no request."""
        return self._answer(_checked(texts))

    async def agenerate_embedding(self, text: str | list[str]) -> Any:
        """`generate_embedding` for async code."""
        if isinstance(text, str):
            return await self.agenerate_embedding_single(text)
        return await self.agenerate_embedding_batch(text)

    async def agenerate_embedding_single(self, text: str) -> list[float]:
        """`generate_embedding_single` for async code."""
        return (await self._aanswer(_checked([text])))[0]

    async def agenerate_embedding_batch(self, texts: list[str]) -> list[list[float]]:
        """`generate_embedding_batch` for async code."""
        return await self._aanswer(_checked(texts))

    def normalize(self, vec: list[float]) -> list[float]:
        """A vector with `embedding_dim` values: cut, or filled up with zeros; zeros for what is no list."""
        size = self.embedding_dim
        if not isinstance(vec, list):
            return [0.0] * (size or 0)
        return vec if size is None else vec[:size] + [0.0] * (size - len(vec))

    def get_embedding_time_ms(self) -> float:
        """What the last vectors that were not in the cache took, in milliseconds."""
        return self.embedding_time_ms

    def health_check(self) -> bool:
        """Whether there would be vectors. Never raises LemniError."""
        return True

    async def ahealth_check(self) -> bool:
        """`health_check` for async code."""
        return await asyncio.to_thread(self.health_check)

    def close(self) -> None:
        """Give back connections and memory. Idempotent. A client that nobody holds any more closes itself."""
        self._closed = True
        if self._owns_cache and self.cache is not None:
            self.cache.close()

    async def aclose(self) -> None:
        """`close` for async code."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def _generate_embedding_raw(self, texts: list[str]) -> Any:
        """The vectors of texts as the model gives them, [texts, dim]: what a provider of one's own implements."""
        raise NotImplementedError(f"{type(self).__name__} has no _generate_embedding_raw")

    # What else a provider can do its own way; `deadline` is time.monotonic() or None.

    def _deadline(self, texts: list[str]) -> float | None:
        return None

    def _source(self) -> str:
        """Where the vectors come from, for the cache. Two classes may call their models the same, or nothing."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    def _identify(self, deadline: float | None) -> Model | None:
        """Which model the name stands for, for the cache."""
        return None

    async def _aidentify(self, deadline: float | None) -> Model | None:
        return await asyncio.to_thread(self._identify, deadline)

    def _embed(self, texts: list[str], deadline: float | None) -> Any:
        return self._generate_embedding_raw(texts)

    async def _aembed(self, texts: list[str], deadline: float | None) -> Any:
        return await asyncio.to_thread(self._embed, texts, deadline)

    def _explain(self, error: LemniError, deadline: float | None) -> EmbeddingGenerationError:
        return EmbeddingGenerationError.of(error, f"Unexpected error generating embeddings: {error}")

    async def _aexplain(self, error: LemniError, deadline: float | None) -> EmbeddingGenerationError:
        return self._explain(error, deadline)

    def _wanted_dimensions(self) -> int | None:
        """How many values the model itself is asked for; a method that was chosen needs all that it has."""
        return self.embedding_dim if self.norm_method in (None, "truncate_or_pad") else None

    def _answer(self, texts: list[str]) -> list[list[float]]:
        deadline = self._deadline(texts)
        if not texts:
            return []
        self._check_open()
        try:
            if self.cache is None:
                began = time.perf_counter()
                return self._finished(self._measured(self._embed(texts, deadline), texts, began))
            keys = self._keys(texts, self._identify(deadline))

            def compute(positions: list[int]) -> Rows:
                began, some = time.perf_counter(), [texts[place] for place in positions]
                return self._measured(self._embed(some, deadline), some, began)

            rows = self.cache.through(
                keys, compute, timeout_s=left_s(deadline), widen=functools.partial(widened, len(keys))
            )
            return self._finished(rows)
        except EmbeddingGenerationError:
            raise
        except LemniError as error:
            raise self._explain(error, deadline) from error

    async def _aanswer(self, texts: list[str]) -> list[list[float]]:
        deadline = self._deadline(texts)
        if not texts:
            return []
        self._check_open()
        try:
            if self.cache is None:
                began = time.perf_counter()
                return self._finished(self._measured(await self._aembed(texts, deadline), texts, began))
            keys = self._keys(texts, await self._aidentify(deadline))

            async def compute(positions: list[int]) -> Rows:
                began, some = time.perf_counter(), [texts[place] for place in positions]
                return self._measured(await self._aembed(some, deadline), some, began)

            rows = await self.cache.athrough(
                keys, compute, timeout_s=left_s(deadline), widen=functools.partial(widened, len(keys))
            )
            return self._finished(rows)
        except EmbeddingGenerationError:
            raise
        except LemniError as error:
            raise await self._aexplain(error, deadline) from error

    def _check_open(self) -> None:
        if self._closed:
            raise EmbeddingGenerationError(f"this {type(self).__name__} is closed; make a new one")

    def _measured(self, rows: Any, texts: list[str], began: float) -> Rows:
        self.embedding_time_ms = (time.perf_counter() - began) * 1000
        if len(rows) != len(texts):
            kind = type(self).__name__
            raise EmbeddingGenerationError(f"{kind} gave {len(rows)} vectors for {len(texts)} texts")
        return [np.asarray(row, np.float32) for row in rows]

    def _keys(self, texts: list[str], model: Model | None) -> list[bytes]:
        """Of the vectors as the model gives them: all that is done to them later need not be in the key."""
        keys = Keys(
            server=self._source(),
            model=model.id if model else self.model,
            revision=model.revision if model else None,
            task="embed",
            prompt=None,
            dimensions=self._wanted_dimensions(),
            more={"provider": self.provider},
        )
        return [keys(text) for text in texts]

    def _finished(self, rows: Rows) -> list[list[float]]:
        """Resized, of length 1, as lists."""
        size = self.embedding_dim
        if size is None and len({row.shape for row in rows}) > 1:
            return [self._finished([row])[0] for row in rows]
        if size is not None and any(row.shape != (size,) for row in rows):
            rows = [resize(row[None], size, self._method(len(row), size))[0] for row in rows]
        vectors = np.stack(rows)
        finished: list[list[float]] = (unit(vectors) if self.use_l2_norm else vectors).tolist()
        return finished

    def _method(self, current: int, size: int) -> str:
        return self.norm_method or best_method(self.model, current, size)


def _checked(texts: Any) -> list[str]:
    """Raises InvalidArgument."""
    if not isinstance(texts, list):
        kind = type(texts).__name__
        raise InvalidArgument(f"Input must be a string or list of strings; it is of type {kind}", param="text")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            kind = type(text).__name__
            raise InvalidArgument(
                f"Input must be a string or list of strings; item {place} is of type {kind}", item=place, param="text"
            )
        check_text(text, f"item {place}", place)
    return texts
