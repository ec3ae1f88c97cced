"""Texts that every machine has: Python's own language reference, cut into pieces of mixed length."""

from __future__ import annotations

import random
from pydoc_data.topics import topics


def mixed(count: int, seed: int = 0, mean_words: float = 3.0, spread: float = 0.9) -> list[str]:
    """Pieces whose length in words is log-normal: many short, few long, as queries and documents are together."""
    words = " ".join(topics[name] for name in sorted(topics)).split()
    rng = random.Random(seed)
    pieces = []
    for _ in range(count):
        length = max(1, round(rng.lognormvariate(mean_words, spread)))
        start = rng.randrange(len(words) - length)
        pieces.append(" ".join(words[start : start + length]))
    return pieces
