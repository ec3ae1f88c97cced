"""Which cache a provider of embeddings has: its argument, else the variables, else memory."""

from __future__ import annotations

from urllib.parse import quote

from lemni.client.cache import EmbeddingCache, open_cache
from lemni.client.environment import Environment

DAY_S = 86400

FROM_ENVIRONMENT = "environment"
"""The word for: as the variables say."""


def duration_s(given: float | None, environment: Environment) -> float:
    """How long a vector is held, by the argument, `EMBEDDING_CACHE_DURATION_SECONDS`, or one day; 0 is not at all."""
    if given is not None:
        return given
    seconds = environment.number("EMBEDDING_CACHE_DURATION_SECONDS", zero=True)
    return DAY_S if seconds is None else seconds


def provider_cache(
    given: EmbeddingCache | str | None, seconds: float, environment: Environment
) -> EmbeddingCache | None:
    """The cache, or None for none. Raises ConfigError for an unknown word, and what opening it raises.

    The variables: `EMBEDDING_CACHE` ("memory", "disk:/folder", "redis://host", "none"); without it, faciliter-lib's
    `CACHE_BACKEND` with `REDIS_HOST`, `REDIS_PORT`, `REDIS_DB` and `REDIS_PASSWORD`; `EMBEDDING_CACHE_MAX_MB`.
    """
    if seconds == 0 or given is None:
        return None
    if isinstance(given, EmbeddingCache):
        return given
    where = given
    if where == FROM_ENVIRONMENT:
        where = environment.text("EMBEDDING_CACHE") or _redis_url(environment) or "memory"
    if where.lower() == "none":
        return None
    max_mb = environment.number("EMBEDDING_CACHE_MAX_MB") if where.startswith(("memory", "disk")) else None
    return open_cache(where, ttl_s=seconds, max_bytes=None if max_mb is None else int(max_mb * 2**20))


def _redis_url(environment: Environment) -> str | None:
    if (environment.text("CACHE_BACKEND") or "").lower() not in ("redis", "valkey"):
        return None
    password = environment.text("REDIS_PASSWORD")
    account = f":{quote(password, safe='')}@" if password else ""
    host, port = environment.text("REDIS_HOST") or "localhost", environment.text("REDIS_PORT") or "6379"
    return f"redis://{account}{host}:{port}/{environment.text('REDIS_DB') or '0'}"
