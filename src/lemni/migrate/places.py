"""Which collections a migration is between, what they are called, and where its own files are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from lemni.errors import ConfigError
from lemni.stores import is_store
from lemni.stores.place import Place, parse

_NAME_LENGTH = 63  # of a table in PostgreSQL, which has the shortest names
_LEAST = 8  # characters of a model's name that stay


@dataclass(frozen=True, slots=True)
class Places:
    """Both sides of a migration.

    Attributes:
        source: of a store; None where the source is files.
        files: the source as it was given, where it is no store.
        target: the collection that is written.
        alias: the name that is switched to the new collection; None if there is nothing to switch.
        folder: of the job's records, the journal and the report.
    """

    source: Place | None
    files: str
    target: Place
    alias: str | None
    folder: Path

    @property
    def source_name(self) -> str:
        return self.files if self.source is None else str(self.source)

    @property
    def is_same_store(self) -> bool:
        return self.source is not None and replace(self.source, collection="") == replace(self.target, collection="")


def places(
    source: str, target: str | None, model: str, *, dimensions: int | None, alias: str | None, folder: Path | None
) -> Places:
    """Raises StoreError for an address that is none, ConfigError where the target is missing or the source itself."""
    if source == "-":
        raise ConfigError("standard input can be read only once, and a source is read again to verify: give a file")
    if is_store(source):
        here, files = parse(source), ""
    else:
        here, files = None, source
    if target is None:
        if here is None:
            raise ConfigError(f"{source}: is no vector store: name the store to write to as the second argument")
        wanted = replace(here, collection=new_name(here.collection, model, dimensions))
    elif is_store(target):
        wanted = parse(target)
    else:
        raise ConfigError(
            f"{target}: is no address of a vector store, such as qdrant://localhost:6333?collection=docs. "
            "Files are written by `lemni embed`"
        )
    found = Places(here, files, wanted, alias, Path())
    if here is not None and found.is_same_store:
        if here.collection == wanted.collection:
            raise ConfigError(f"{here}: source and target are the same collection")
        found = replace(found, alias=alias or here.collection)
    old = [Path(files).stem] if here is None else [*_store(here), here.collection]
    new = [wanted.collection] if found.is_same_store else [*_store(wanted), wanted.collection]
    return replace(found, folder=folder or Path(_file_name("-".join(["migrate", *old, "to", *new]))))


def new_name(old: str, model: str, dimensions: int | None) -> str:
    """`docs` and `BAAI/bge-small-en` -> `docs__bge_small_en`: letters, digits and underscores, which every store
    takes."""
    cut = f"_{dimensions}" if dimensions else ""
    room = max(_LEAST, _NAME_LENGTH - len(old.encode()) - len("__") - len(cut))
    return f"{old}__{slug(model)[:room].rstrip('_')}{cut}"


def slug(model: str) -> str:
    """A model's name without its organisation, its folder, its scheme and its version."""
    last = os.path.basename(model.partition("==")[0].rstrip("/")).rpartition(":")[2].partition("@")[0]
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_") or "model"


def _store(place: Place) -> list[str]:
    """`qdrant`, `db_6333`; `faiss`, `data`: what tells two stores apart for people."""
    host = place.host if place.port is None else f"{place.host}_{place.port}"
    return [one for one in (place.scheme, host, os.path.basename(place.path.rstrip("/"))) if one]


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "collection"
