"""Lemni turns texts into vectors: one server, one library.

    import lemni

    with lemni.load() as model:
        vectors = model.embed(["A cat sits on the mat.", "A dog runs."])

Names are imported when they are first used, so that `import lemni` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemni.engine import Engine
    from lemni.errors import LemniError
    from lemni.library import Embedder, load
    from lemni.types import ModelCard, Options, Request, Result

__version__ = "0.1.0"

_HOMES = {
    "Options": "lemni.types",
    "Result": "lemni.types",
    "Embedder": "lemni.library",
    "Engine": "lemni.engine",
    "LemniError": "lemni.errors",
    "ModelCard": "lemni.types",
    "Request": "lemni.types",
    "load": "lemni.library",
}

__all__ = ["Embedder", "Engine", "LemniError", "ModelCard", "Options", "Request", "Result", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lemni' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
