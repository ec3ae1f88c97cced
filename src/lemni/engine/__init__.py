"""Requests into packed batches into results: admission, tokenising, fair scheduling, replicas, life cycle.

Knows no HTTP, no tokenizer, no pooling and no runtime library: `model.Model` is all it sees of a model.
"""

from lemni.engine.core import Engine
from lemni.engine.job import Handle
from lemni.engine.model import Model
from lemni.engine.status import ModelStatus

__all__ = ["Engine", "Handle", "Model", "ModelStatus"]
