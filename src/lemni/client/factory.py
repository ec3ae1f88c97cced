"""Makes the providers of embeddings: by name, from the variables, or from an object with settings.

The functions and the class are those of faciliter-lib's `embeddings` package. Providers are a table of names; each is
imported when it is chosen.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lemni.client.embedding_client import BaseEmbeddingClient
from lemni.client.environment import Environment
from lemni.client.errors import InvalidArgument

if TYPE_CHECKING:
    from lemni.client.infinity_provider import InfinityEmbeddingClient
    from lemni.client.local_provider import LocalEmbeddingClient
    from lemni.client.ollama_provider import OllamaEmbeddingClient
    from lemni.client.openai_provider import OpenAIEmbeddingClient

DEFAULT_PROVIDER = "infinity"

_PROVIDERS = {
    "infinity": ("lemni.client.infinity_provider", "InfinityEmbeddingClient"),
    "ollama": ("lemni.client.ollama_provider", "OllamaEmbeddingClient"),
    "openai": ("lemni.client.openai_provider", "OpenAIEmbeddingClient"),
    "local": ("lemni.client.local_provider", "LocalEmbeddingClient"),
    "huggingface": ("lemni.client.local_provider", "LocalEmbeddingClient"),
}

# Fields of a settings object that are arguments of another name, by provider; the first that is set counts.
_FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "infinity": {"base_url": ("infinity_url", "base_url"), "timeout": ("infinity_timeout", "ollama_timeout")},
    "ollama": {"base_url": ("ollama_url", "ollama_host", "base_url"), "timeout": ("ollama_timeout",)},
}
_COMMON: dict[str, tuple[str, ...]] = {"embedding_dim": ("embedding_dimension", "embedding_dim")}


class EmbeddingFactory:
    """Makes clients. Each method takes the arguments of the provider's class; see there."""

    @classmethod
    def create(
        cls,
        provider: str | None = None,
        model: str | None = None,
        embedding_dim: int | None = None,
        use_l2_norm: bool = True,
        norm_method: str | None = None,
        **options: Any,
    ) -> BaseEmbeddingClient:
        """A client of the provider of this name.

        Args:
            provider: "infinity", "ollama", "openai", "local" or "huggingface", in any case; default is the variable
                `EMBEDDING_PROVIDER`, else infinity.
            model, embedding_dim, use_l2_norm, norm_method: see BaseEmbeddingClient.
            options: further arguments of the provider's class.

        Raises:
            InvalidArgument: there is no such provider; a ValueError.
            TypeError: the provider has no such option.
        """
        client: BaseEmbeddingClient = _class_of(provider)(
            model=model, embedding_dim=embedding_dim, use_l2_norm=use_l2_norm, norm_method=norm_method, **options
        )
        return client

    @classmethod
    def infinity(
        cls, model: str | None = None, embedding_dim: int | None = None, use_l2_norm: bool = True, **options: Any
    ) -> InfinityEmbeddingClient:
        """A client of an Infinity or Lemni server."""
        from lemni.client.infinity_provider import InfinityEmbeddingClient

        return InfinityEmbeddingClient(model, embedding_dim, use_l2_norm, **options)

    @classmethod
    def ollama(
        cls, model: str | None = None, embedding_dim: int | None = None, use_l2_norm: bool = True, **options: Any
    ) -> OllamaEmbeddingClient:
        """A client of an Ollama server."""
        from lemni.client.ollama_provider import OllamaEmbeddingClient

        return OllamaEmbeddingClient(model, embedding_dim, use_l2_norm, **options)

    @classmethod
    def openai(
        cls, model: str | None = None, embedding_dim: int | None = None, use_l2_norm: bool = True, **options: Any
    ) -> OpenAIEmbeddingClient:
        """A client of OpenAI, or of a server with its API."""
        from lemni.client.openai_provider import OpenAIEmbeddingClient

        return OpenAIEmbeddingClient(model, embedding_dim, use_l2_norm, **options)

    @classmethod
    def local(
        cls, model: str | None = None, embedding_dim: int | None = None, use_l2_norm: bool = True, **options: Any
    ) -> LocalEmbeddingClient:
        """A client of a model in this process."""
        from lemni.client.local_provider import LocalEmbeddingClient

        return LocalEmbeddingClient(model, embedding_dim, use_l2_norm, **options)

    @classmethod
    def from_env(cls) -> BaseEmbeddingClient:
        """A client as the variables, and the `.env` file, say."""
        return cls.create()

    @classmethod
    def from_config(cls, config: object | None = None) -> BaseEmbeddingClient:
        """A client by the attributes of an object: `provider`, `model`, `embedding_dimension`, `base_url`, `api_key`...

        Attributes that are missing, None or empty are taken from the variables; those that the provider has no use for
        are left out. Without an object it is `from_env`.
        """
        if config is None:
            return cls.from_env()
        provider = getattr(config, "provider", None)
        chosen: type[BaseEmbeddingClient] = _class_of(provider)
        fields = {**_COMMON, **_FIELDS.get(chosen.provider, {})}
        given: dict[str, Any] = {}
        for name in list(inspect.signature(chosen).parameters):
            values = (getattr(config, field, None) for field in fields.get(name, (name,)))
            if found := [value for value in values if value not in (None, "")]:
                given[name] = found[0]
        return chosen(**given)


def _class_of(provider: str | None) -> Any:
    name = provider or Environment().text("EMBEDDING_PROVIDER") or DEFAULT_PROVIDER
    if name.lower() not in _PROVIDERS:
        raise InvalidArgument(f"Unknown provider: {name}; known: {', '.join(_PROVIDERS)}", param="provider")
    module, class_name = _PROVIDERS[name.lower()]
    return getattr(import_module(module), class_name)


def create_embedding_client(
    provider: str | None = None,
    model: str | None = None,
    embedding_dim: int | None = None,
    use_l2_norm: bool = True,
    norm_method: str | None = None,
    **options: Any,
) -> BaseEmbeddingClient:
    """A client of the provider of this name, or of the one that the variable `EMBEDDING_PROVIDER` names; see
    `EmbeddingFactory.create`."""
    return EmbeddingFactory.create(provider, model, embedding_dim, use_l2_norm, norm_method, **options)


def create_client_from_env() -> BaseEmbeddingClient:
    """A client as the variables, and the `.env` file, say."""
    return EmbeddingFactory.from_env()


def get_embedding_client() -> BaseEmbeddingClient:
    """`create_client_from_env` under its older name."""
    return EmbeddingFactory.from_env()


def create_infinity_client(
    model: str | None = None, base_url: str | None = None, **options: Any
) -> InfinityEmbeddingClient:
    """A client of an Infinity or Lemni server; see InfinityEmbeddingClient."""
    return EmbeddingFactory.infinity(model, base_url=base_url, **options)


def create_ollama_client(model: str | None = None, **options: Any) -> OllamaEmbeddingClient:
    """A client of an Ollama server; see OllamaEmbeddingClient."""
    return EmbeddingFactory.ollama(model, **options)


def create_openai_client(model: str | None = None, api_key: str | None = None, **options: Any) -> OpenAIEmbeddingClient:
    """A client of OpenAI, or of a server with its API; see OpenAIEmbeddingClient."""
    return EmbeddingFactory.openai(model, api_key=api_key, **options)


def create_local_client(model: str | None = None, device: str | None = None, **options: Any) -> LocalEmbeddingClient:
    """A client of a model in this process; see LocalEmbeddingClient."""
    return EmbeddingFactory.local(model, device=device, **options)
