"""What kind of model a folder holds: one row per kind, tried in order; what no row recognises is a dense text model.

A row looks at files only (config.json, modules.json, names of files); what a kind needs to know beyond that its own
module in `lemni.tasks` reads. Called by `describe`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemni.hub.jsonfile import read_json, read_json_value
from lemni.hub.spec import ModelKind


@dataclass(frozen=True)
class Folder:
    """Attributes:
    path: the model's folder.
    config: its `config.json` (of the transformer's folder where `modules.json` names another), or {}.
    sentence: its `config_sentence_transformers.json`, or {}.
    modules: the types in its `modules.json`, such as "sentence_transformers.models.Pooling"; empty without one.
    """

    path: Path
    config: dict[str, Any]
    sentence: dict[str, Any]
    modules: tuple[str, ...]

    @property
    def architecture(self) -> str:
        """The first of `architectures`, or ""."""
        return next(iter(self.config.get("architectures") or ()), "")

    def has_module(self, name: str) -> bool:
        """Whether a module has this class name."""
        return any(module.rpartition(".")[2] == name for module in self.modules)


MULTIMODAL = frozenset(
    {"clip", "siglip", "siglip2", "chinese_clip", "clap", "colpali", "colqwen2", "colmodernvbert"}
)
"""`model_type` of models of text with images or sound."""

# Kind -> whether a folder is of it.
_KINDS: list[tuple[ModelKind, Callable[[Folder], bool]]] = [
    ("multimodal", lambda f: f.config.get("model_type") in MULTIMODAL),
    # With a Pooling module it is an embedding model whose config.json still names the class it was trained from.
    ("classifier", lambda f: f.architecture.endswith("ForSequenceClassification") and not f.has_module("Pooling")),
]


def kind_of(path: Path) -> ModelKind:
    """The kind of the model in a folder. Raises ModelLoadError for a broken file."""
    folder = read_folder(path)
    return next((kind for kind, is_it in _KINDS if is_it(folder)), "dense")


def read_folder(path: Path) -> Folder:
    """What the rows look at."""
    return Folder(
        path,
        _optional(transformer_folder(path) / "config.json"),
        _optional(path / "config_sentence_transformers.json"),
        tuple(str(entry.get("type", "")) for entry in _entries(path)),
    )


def transformer_folder(path: Path) -> Path:
    """Where the transformer's own files are: the folder of the first module, or the model's."""
    entries = _entries(path)
    return path / str(entries[0].get("path", "")) if entries else path


def _entries(path: Path) -> list[dict[str, Any]]:
    listing = path / "modules.json"
    entries = read_json_value(listing) if listing.exists() else []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
