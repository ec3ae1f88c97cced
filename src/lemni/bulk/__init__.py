"""Whole files and tables into vectors: streamed, resumable, exactly once.

    import lemni.bulk

    lemni.bulk.embed("texts.jsonl", "vectors.parquet", text="body")

`sources/` has one file per kind of input, `outputs/` one per format; `run.py` is the way from one to the other.
"""

from lemni.bulk.embedding import embed, estimate
from lemni.bulk.estimate import Estimate
from lemni.bulk.run import Summary

__all__ = ["Estimate", "Summary", "embed", "estimate"]
