"""Which files are a model: folder, installed package, local caches, Hugging Face hub, package index; and what kind.

`resolve` finds the files, `describe` reads what they say, `TensorStore` maps the weights. Nothing heavy is imported
until a place needs it.
"""

from __future__ import annotations

from lemni.hub.cache import CachedFile, CachedModel
from lemni.hub.describe import describe
from lemni.hub.places import list_models, locate, pull, remove_model, resolve, show_model
from lemni.hub.spec import DenseLayer, ModelFiles, ModelSpec, PoolingMode
from lemni.hub.tensors import TensorStore

__all__ = [
    "CachedFile",
    "CachedModel",
    "DenseLayer",
    "ModelFiles",
    "ModelSpec",
    "PoolingMode",
    "TensorStore",
    "describe",
    "list_models",
    "locate",
    "pull",
    "remove_model",
    "resolve",
    "show_model",
]
