"""What kind of model a folder holds: one row per kind, tried in order; what no row recognises is a dense text model.

A row looks at files only (config.json, modules.json, names of files); what a kind needs to know beyond that its own
module in `lemni.tasks` reads. Called by `describe`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemni.errors import ModelLoadError
from lemni.hub.chat_templates import names_pair_roles
from lemni.hub.jsonfile import read_json, read_json_value
from lemni.hub.router import Router, read_router
from lemni.hub.spec import ModelFiles, ModelKind


@dataclass(frozen=True)
class Folder:
    """Attributes:
    path: the model's folder.
    config: its `config.json` (of the transformer's folder where `modules.json` names another), or {}.
    sentence: its `config_sentence_transformers.json`, or {}.
    modules: the types in its `modules.json`, such as "sentence_transformers.models.Pooling", those of a Router's routes
        among them; empty without one.
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


MULTIMODAL = frozenset({"clip", "siglip", "siglip2", "chinese_clip", "clap", "colpali", "colqwen2", "colmodernvbert"})
"""`model_type` of models of text with images or sound."""


def named_like(config: dict[str, Any], path: Path, word: str) -> bool:
    """Whether a folder's files or its path give it a name with this word, in small letters."""
    # In caches the last parts of a path are the model's name and its revision.
    names = [str(config.get("_name_or_path", "")), *path.resolve().parts[-3:]]
    return any(word in name.lower() for name in names)


def _is_splade(folder: Folder) -> bool:
    """Whether a folder without `modules.json` is a SPLADE model by its name; other masked language models are not."""
    named = named_like(folder.config, folder.path, "splade")
    return named and not folder.modules and folder.architecture.endswith("ForMaskedLM")


def _is_causal_reranker(folder: Folder) -> bool:
    """Whether a model answers by its next token: by its modules, its chat template or its name."""
    if folder.modules:
        return folder.has_module("LogitScore")
    is_causal = folder.architecture.endswith("ForCausalLM")
    return is_causal and (names_pair_roles(folder.path) or named_like(folder.config, folder.path, "rerank"))


# The words by which a kind is known, those that say more than the kind first.
_WORDS: dict[ModelKind, tuple[str, ...]] = {"sparse": ("splade",), "causal_reranker": ("mxbai-rerank", "rerank")}


def name_in_config(files: ModelFiles) -> str | None:
    """The `_name_or_path` that a copy of a model needs in its config.json, where the kind is known by the path alone.

    Raises:
        ModelLoadError: a broken file.
    """
    path = files.path
    folder = read_folder(path)
    words = _WORDS.get(kind_of(path), ())
    if folder.modules or names_pair_roles(path):
        return None
    own = str(folder.config.get("_name_or_path", ""))
    asked = [] if files.source == "folder" else [files.id]
    names = [own, *asked, *reversed(path.resolve().parts[-3:])]
    found = next((name for word in words for name in names if word in name.lower()), None)
    return None if found == own else found


def _is_colbert(folder: Folder) -> bool:
    """ColBERT as Stanford, PyLate and sentence-transformers save it."""
    if not folder.modules:
        return "HF_ColBERT" in (folder.config.get("architectures") or ())
    late = folder.sentence.get("model_type") in ("ColBERT", "MultiVectorEncoder") or "query_prefix" in folder.sentence
    return late or folder.has_module("MultiVectorMask") or any(m.startswith("pylate.") for m in folder.modules)


_SPARSE_MODULES = ("SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder")
_BGE_M3_LAYERS = ("sparse_linear", "colbert_linear")

# Kind -> whether a folder is of it.
_KINDS: list[tuple[ModelKind, Callable[[Folder], bool]]] = [
    ("multimodal", lambda f: f.config.get("model_type") in MULTIMODAL),
    # With a Pooling module it is an embedding model whose config.json still names the class it was trained from.
    ("classifier", lambda f: f.architecture.endswith("ForSequenceClassification") and not f.has_module("Pooling")),
    ("causal_reranker", _is_causal_reranker),
    ("sparse", lambda f: any(map(f.has_module, _SPARSE_MODULES)) or _is_splade(f)),
    ("colbert", _is_colbert),
    ("bge_m3", lambda f: all(bge_m3_layer(f.path, name) for name in _BGE_M3_LAYERS)),
]


def bge_m3_layer(path: Path, name: str) -> Path | None:
    """The file of one of BGE-M3's extra layers, "sparse_linear" or "colbert_linear", safetensors first."""
    files = (path / f"{name}{suffix}" for suffix in (".safetensors", ".pt"))
    return next((file for file in files if file.is_file()), None)


def kind_of(path: Path) -> ModelKind:
    """The kind of the model in a folder. Raises ModelLoadError for a broken file."""
    folder = read_folder(path)
    return next((kind for kind, is_it in _KINDS if is_it(folder)), "dense")


def read_folder(path: Path) -> Folder:
    """What the rows look at. Raises ModelLoadError for a module outside of the folder, and for a broken file."""
    entries = _entries(path)
    for entry in entries:
        # Files of a Hugging Face cache are links to blobs; folders are real.
        if not (path / str(entry.get("path", ""))).resolve().is_relative_to(path.resolve()):
            raise ModelLoadError(
                f"{path / 'modules.json'}: the module path {entry.get('path')!r} leads out of the model's folder"
            )
    router = router_of(path)
    modules = [str(entry.get("type", "")) for entry in entries]
    return Folder(
        path,
        _optional(transformer_folder(path) / "config.json"),
        _optional(path / "config_sentence_transformers.json"),
        (*modules, *(module.type for module in router.modules)) if router else tuple(modules),
    )


def router_of(path: Path) -> Router | None:
    """The Router that `modules.json` starts with, if it does."""
    first = next(iter(_entries(path)), {})
    return read_router(path / str(first.get("path", ""))) if str(first.get("type", "")).endswith(".Router") else None


def transformer_folder(path: Path) -> Path:
    """Where the transformer's own files are: the folder of the first module, of a Router's first transformer, or the
    model's."""
    if (router := router_of(path)) and router.transformer:
        return router.transformer
    entries = _entries(path)
    return path / str(entries[0].get("path", "")) if entries else path


def _entries(path: Path) -> list[dict[str, Any]]:
    listing = path / "modules.json"
    entries = read_json_value(listing) if listing.exists() else []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
