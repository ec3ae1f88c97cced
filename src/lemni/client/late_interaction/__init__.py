"""Late interaction (ColBERT, arXiv:2004.12832) over what a server answered: scores, search, and smaller vectors.

A *multi-vector* is a float array [tokens, dim] or nested lists of it. Everything here runs on the caller's CPU with
numpy alone; only pooling wants scipy (extra `late-interaction`). Exhaustive: there is no index.
"""

from lemni.client.late_interaction.compression import BinaryMultiVectors, Int8MultiVectors, quantize
from lemni.client.late_interaction.packed import MultiVectors, PackedMultiVectors, pack
from lemni.client.late_interaction.pooling import pool_tokens
from lemni.client.late_interaction.scoring import maxsim, top_k

__all__ = [
    "BinaryMultiVectors",
    "Int8MultiVectors",
    "MultiVectors",
    "PackedMultiVectors",
    "maxsim",
    "pack",
    "pool_tokens",
    "quantize",
    "top_k",
]
