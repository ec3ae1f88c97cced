"""Lemni turns text, images and audio into vectors, scores and labels: one server, one library, one client.

    import lemni

    with lemni.load() as model:
        vectors = model.embed(["A cat sits on the mat.", "A dog runs."])

Names are imported when they are first used, so that `import lemni` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemni.cli.deploy import ray_app
    from lemni.client import AsyncClient, Client
    from lemni.engine import Engine
    from lemni.errors import LemniError
    from lemni.library import Embedder, load
    from lemni.types import Audio, Chunks, Image, Mixed, ModelCard, Options, Pair, Request, Result, SparseVector

__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "lemni.client.async_client",
    "Audio": "lemni.types",
    "Client": "lemni.client.client",
    "Chunks": "lemni.types",
    "Image": "lemni.types",
    "Mixed": "lemni.types",
    "Pair": "lemni.types",
    "SparseVector": "lemni.types",
    "Options": "lemni.types",
    "Result": "lemni.types",
    "Embedder": "lemni.library",
    "Engine": "lemni.engine",
    "LemniError": "lemni.errors",
    "ModelCard": "lemni.types",
    "Request": "lemni.types",
    "load": "lemni.library",
    "ray_app": "lemni.cli.deploy",
}

__all__ = [
    "AsyncClient",
    "Audio",
    "Chunks",
    "Client",
    "Embedder",
    "Engine",
    "Image",
    "LemniError",
    "Mixed",
    "ModelCard",
    "Options",
    "Pair",
    "Request",
    "Result",
    "SparseVector",
    "load",
    "ray_app",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lemni' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
