"""What several tests of the cache need."""

from __future__ import annotations

import pytest

from lemni.client.cache import EmbeddingCache, MemoryStore


@pytest.fixture
def cache() -> EmbeddingCache:
    return EmbeddingCache(MemoryStore())
