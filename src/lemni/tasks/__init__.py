"""What is asked for of a model. The table holds names only: a kind is imported when a model is of it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

# `ModelSpec.kind` -> module with `heads(spec)` and `load(parts)`; see `lemni.tasks.base`.
KINDS: dict[str, str] = {
    "bge_m3": "lemni.tasks.bge_m3",
    "causal_reranker": "lemni.tasks.causal_reranker",
    "classifier": "lemni.tasks.classifier",
    "colbert": "lemni.tasks.colbert",
    "dense": "lemni.tasks.dense",
    "sparse": "lemni.tasks.sparse",
    "multimodal": "lemni.tasks.multimodal",
}


def kind_module(kind: str) -> ModuleType:
    """The module of a kind of model."""
    return import_module(KINDS[kind])
