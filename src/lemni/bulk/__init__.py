"""Whole files and tables into vectors: streamed, resumable, exactly once.

    import lemni.bulk

    lemni.bulk.embed("texts.jsonl", "vectors.parquet", text="body")

`sources/` has one file per kind of input, `outputs/` one per format; `run.py` is the way from one to the other. Names
are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemni.bulk.embedding import embed, estimate
    from lemni.bulk.run import Summary
    from lemni.bulk.sample import Estimate

_HOMES = {
    "Estimate": "lemni.bulk.sample",
    "Summary": "lemni.bulk.run",
    "embed": "lemni.bulk.embedding",
    "estimate": "lemni.bulk.embedding",
}

__all__ = ["Estimate", "Summary", "embed", "estimate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lemni.bulk' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
