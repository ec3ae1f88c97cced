"""The client's cache of vectors: keys, values, three stores, and one request for equal misses at the same time.

Light: the disk and Redis stores import their libraries when they are opened. `lemni.Client` and the providers use it;
it knows nothing of HTTP.
"""

from __future__ import annotations

from lemni.client.cache.cache import CacheStatistics, EmbeddingCache
from lemni.client.cache.keys import Keys, key_of
from lemni.client.cache.memory import MemoryStore
from lemni.client.cache.opening import open_cache
from lemni.client.cache.stores import Store, Usage

__all__ = ["CacheStatistics", "EmbeddingCache", "Keys", "MemoryStore", "Store", "Usage", "key_of", "open_cache"]
