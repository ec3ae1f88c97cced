"""From a word to a cache: "memory", "disk:/folder", "redis://host:6379/0"."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lemni.client.cache.cache import EmbeddingCache
from lemni.client.cache.stores import Store
from lemni.errors import ConfigError

# Word before the colon -> module, class, and whether it wants the whole word or what follows the colon. Imported when
# it is chosen.
_STORES: dict[str, tuple[str, str]] = {
    "memory": ("lemni.client.cache.memory", "MemoryStore"),
    "disk": ("lemni.client.cache.disk", "DiskStore"),
    **dict.fromkeys(
        ("redis", "rediss", "unix", "valkey", "valkeys"),
        ("lemni.client.cache.redis", "RedisStore"),
    ),
}


def open_cache(where: str | None, *, ttl_s: float | None = None, max_bytes: int | None = None) -> EmbeddingCache | None:
    """A cache by the name of its place.

    Args:
        where: "memory", "disk:" and a folder, a URL of a Redis or Valkey server; None or "none" for no cache.
        ttl_s: how long a vector is held; 0 for no cache; None for the store's own default, one day.
        max_bytes: the most that it may take; None for the store's own default. Redis has a limit of its own.

    Raises:
        ConfigError: an unknown word, a folder that is missing in it, or a limit that the store does not have.
        MissingExtra: the store's library is not installed.
    """
    if where is None or where == "none" or ttl_s == 0:
        return None
    name, _, rest = where.partition(":")
    if name not in _STORES:
        raise ConfigError(
            f'unknown cache {name!r}: choose "memory", "disk:/folder", a URL with redis:// or valkey://, or None',
            param="cache",
        )
    options: dict[str, Any] = {}
    if ttl_s is not None:
        options["ttl_s"] = ttl_s
    if max_bytes is not None:
        if name not in ("memory", "disk"):
            raise ConfigError("a Redis server limits its memory itself (its setting maxmemory)", param="max_bytes")
        options["max_bytes"] = max_bytes
    if name == "disk":
        if not rest:
            raise ConfigError(f'the cache {where!r} names no folder: write "disk:/folder"', param="cache")
        options["folder"] = rest
    elif name == "memory":
        if rest:
            raise ConfigError(f'the cache "memory" takes nothing after its name: {where!r}', param="cache")
    else:
        options["url"] = where
    module, class_name = _STORES[name]
    store: Store = getattr(import_module(module), class_name)(**options)
    return EmbeddingCache(store)
