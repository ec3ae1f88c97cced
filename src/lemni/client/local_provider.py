"""Embeddings from a model in this process: no server. Needs what `lemni.load` needs, and loads on first use."""

from __future__ import annotations

import asyncio
import itertools
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from lemni.client.cache import EmbeddingCache
from lemni.client.embedding_client import BaseEmbeddingClient
from lemni.client.environment import Environment
from lemni.client.errors import EmbeddingGenerationError
from lemni.client.provider_cache import FROM_ENVIRONMENT
from lemni.client.wire.models import Model
from lemni.errors import LemniError, MissingExtra

if TYPE_CHECKING:
    from lemni import Embedder

_YES = ("1", "true", "yes", "on")


class LocalEmbeddingClient(BaseEmbeddingClient):
    """Vectors of texts from a model that is loaded here. See BaseEmbeddingClient for its methods.

    Clients with the same settings share one loaded model; the last one that is closed frees it.
    """

    provider = "local"
    default_model = "sentence-transformers/all-MiniLM-L6-v2"

    def __init__(
        self,
        model: str | None = None,
        embedding_dim: int | None = None,
        use_l2_norm: bool = True,
        device: str | None = None,
        cache_dir: str | None = None,
        trust_remote_code: bool | None = None,
        use_sentence_transformers: bool = True,
        *,
        norm_method: str | None = None,
        cache_duration_seconds: float | None = None,
        cache: EmbeddingCache | str | None = FROM_ENVIRONMENT,
    ) -> None:
        """
        Args:
            model: a folder, a hub id, or `pypi:NAME==VERSION`; default is the variable `EMBEDDING_MODEL`, else
                sentence-transformers/all-MiniLM-L6-v2.
            embedding_dim: default is `EMBEDDING_DIMENSION`, else what the model gives.
            use_l2_norm: False for the vectors as the model's own modules give them.
            device: "cpu", "cuda", "auto"; default is `EMBEDDING_DEVICE`, else auto.
            cache_dir: where the model's files are kept; default is `EMBEDDING_CACHE_DIR`, else Lemni's own.
            trust_remote_code: run code that comes with the model; default is `EMBEDDING_TRUST_REMOTE_CODE`, else no.
            use_sentence_transformers: changes nothing: vectors are those of sentence-transformers, without it.
            norm_method, cache_duration_seconds, cache: see BaseEmbeddingClient.

        Raises:
            InvalidRequest: an argument makes no sense.
            ConfigError: a variable makes no sense.
        """
        environment = Environment()
        super().__init__(
            model,
            embedding_dim,
            use_l2_norm,
            cache_duration_seconds,
            norm_method,
            cache=cache,
            environment=environment,
        )
        self.device = device or environment.text("EMBEDDING_DEVICE") or "auto"
        self.cache_dir = cache_dir or environment.text("EMBEDDING_CACHE_DIR")
        if trust_remote_code is None:
            trust_remote_code = (environment.text("EMBEDDING_TRUST_REMOTE_CODE") or "").lower() in _YES
        self.trust_remote_code = trust_remote_code
        self._lock = threading.Lock()
        self._settings = _Settings(self.model, self.device, self.cache_dir, self.trust_remote_code)
        self._user = next(_numbers)
        self._loaded: Embedder | None = None
        self._give_back = weakref.finalize(self, _give_aside, self._settings, self._user)
        self._give_back.atexit = False  # no thread can be started then, and the process frees it all

    def health_check(self) -> bool:
        """Whether the model can be loaded and embeds a text. Never raises LemniError."""
        try:
            self._embed(["test"], None)
        except LemniError:
            return False
        return True

    def get_available_models(self) -> list[str]:
        """The model's name; empty if it cannot be loaded."""
        return [self.model] if self.health_check() else []

    def get_model_info(self) -> dict[str, Any]:
        """`id`, `backend`, `capabilities`, `created`, `stats`; the first three if the model cannot be loaded."""
        try:
            card = self._embedder().card
        except LemniError:
            return {"id": self.model, "backend": "unknown", "capabilities": []}
        return {
            "id": self.model,
            "backend": card.runtime,
            "capabilities": sorted(card.tasks),
            "created": None,
            "stats": {},
        }

    async def aget_available_models(self) -> list[str]:
        """`get_available_models` for async code."""
        return await asyncio.to_thread(self.get_available_models)

    async def aget_model_info(self) -> dict[str, Any]:
        """`get_model_info` for async code."""
        return await asyncio.to_thread(self.get_model_info)

    def close(self) -> None:
        """Give the model back; the last client with the same settings frees it. Idempotent."""
        super().close()
        with self._lock:
            self._loaded = None
            if self._give_back.detach() is not None:
                _give(self._settings, self._user)

    async def aclose(self) -> None:
        """`close` for async code."""
        await asyncio.to_thread(self.close)

    def _embedder(self) -> Embedder:
        with self._lock:
            if self._loaded is None:
                self._check_open()
                self._loaded = _take(self._settings, self._user)
            return self._loaded

    def _identify(self, deadline: float | None) -> Model | None:
        card = self._embedder().card
        return Model(card.model_id, revision=card.revision)

    def _generate_embedding_raw(self, texts: list[str]) -> Any:
        embedder = self._embedder()
        return embedder.embed(texts, dimensions=self._possible_dimensions(embedder))

    async def _aembed(self, texts: list[str], deadline: float | None) -> Any:
        embedder = await asyncio.to_thread(self._embedder)
        return await embedder.aembed(texts, dimensions=self._possible_dimensions(embedder))

    def _possible_dimensions(self, embedder: Embedder) -> int | None:
        """What the model can do of `embedding_dim`; the rest is resized."""
        size = self._wanted_dimensions()
        return size if size is not None and size <= (embedder.card.dimensions or 0) else None

    def _explain(self, error: LemniError, deadline: float | None) -> EmbeddingGenerationError:
        words = f"Unexpected error generating embeddings with local model {self.model}: {error}"
        return EmbeddingGenerationError.of(error, words)


class _Settings(NamedTuple):
    """What makes two clients use the same loaded model."""

    model: str
    device: str
    cache_dir: str | None
    trust_remote_code: bool


class _Shared:
    """A loaded model and the numbers of the clients that use it."""

    def __init__(self) -> None:
        self.loading = threading.Lock()
        self.users: set[int] = set()
        self.embedder: Embedder | None = None


_numbers = itertools.count()
_shared: dict[_Settings, _Shared] = {}
_lock = threading.Lock()


def _take(settings: _Settings, user: int) -> Embedder:
    with _lock:
        shared = _shared.setdefault(settings, _Shared())
        shared.users.add(user)
    try:
        with shared.loading:
            if shared.embedder is None:
                import lemni

                given = {name: value for name, value in settings._asdict().items() if value is not None}
                shared.embedder = lemni.load(**given)
            return shared.embedder
    except ModuleNotFoundError as error:
        _give(settings, user)
        raise MissingExtra(
            f"computing in this process needs all of Lemni's packages, and {error.name!r} is missing: pip install lemni"
        ) from error
    except BaseException:
        _give(settings, user)
        raise


def _give(settings: _Settings, user: int) -> None:
    with _lock:
        shared = _shared.get(settings)
        if shared is None or user not in shared.users:
            return
        shared.users.remove(user)
        if shared.users:
            return
        del _shared[settings]
    with shared.loading:
        if shared.embedder is not None:
            shared.embedder.close()


def _give_aside(settings: _Settings, user: int) -> None:
    """From a thread of its own: a client may be collected in any thread, one that holds the lock among them."""
    threading.Thread(target=_give, args=(settings, user), name="lemni-local-close").start()
