"""Collections that are folders of this machine (LanceDB's tables, Lemni's FAISS collections) change their names."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

from lemni.errors import StoreError


def kept_name(name: str, new: str) -> str:
    """Under which what `name` meant is kept once `new` has its name. Switching that one back gives `new` its own name
    again."""
    before = f"{name}_before_"
    return new.removeprefix(before) if new.startswith(before) else before + new


def switch(of: Callable[[str], Path], name: str, new: str) -> str | None:
    """The folder `of(new)` takes the place of `of(name)`, which is kept as `of(kept_name(name, new))`.

    On Linux and macOS both change places in one step of the file system, so `name` is always there; where the file
    system cannot do that there is a moment without it. Killed at any point, the same call finishes; called again when
    all is done, it changes nothing.

    Raises:
        StoreError: there is no `new`, or something is in the way.
    """
    source, target, kept = of(new), of(name), kept_name(name, new)
    if source == target and target.is_dir():
        return None
    journal = target.parent / f".{target.name}.switching"
    if journal.exists() and _finished(of, journal, target, name) == new:
        return kept
    aside = of(kept)
    if not source.is_dir():
        if target.is_dir() and aside.is_dir():
            return kept  # done before
        raise StoreError(f"{source}: there is no such folder to give the name {name!r} to")
    if not target.is_dir():
        half_done = aside.is_dir()
        os.rename(source, target)
        flush(target.parent)
        return kept if half_done else None
    if aside.exists():
        raise StoreError(f"{aside}: is in the way: drop or rename what an earlier switch of {name!r} has kept")
    part = journal.with_name(journal.name + ".part")
    with open(part, "w") as written:
        json.dump({"new": new, "folder": source.stat().st_ino}, written)
        written.flush()
        os.fsync(written.fileno())
    os.replace(part, journal)
    flush(target.parent)
    if _exchanged(source, target):
        os.rename(source, aside)
    else:
        os.rename(target, aside)
        os.rename(source, target)
    flush(target.parent)
    journal.unlink()
    return kept


def _finished(of: Callable[[str], Path], journal: Path, target: Path, name: str) -> str | None:
    """End a switch that was killed; the name of the collection it gave `name` to, None if it had not begun."""
    found = json.loads(journal.read_text())
    new, done = str(found["new"]), target.is_dir() and target.stat().st_ino == found["folder"]
    source, aside = of(new), of(kept_name(name, new))
    if done and source.is_dir() and not aside.exists():
        os.rename(source, aside)
        flush(target.parent)
    journal.unlink()
    return new if done else None


def _exchanged(one: Path, other: Path) -> bool:
    """Whether both have changed places, in one step; False where system or file system have no such step."""
    libc = ctypes.CDLL(None, use_errno=True)
    here, there = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):  # Linux: AT_FDCWD, RENAME_EXCHANGE
        failed = libc.renameat2(-100, here, -100, there, 2)
    elif hasattr(libc, "renamex_np"):  # macOS: RENAME_SWAP
        failed = libc.renamex_np(here, there, 2)
    else:
        return False
    code = ctypes.get_errno()
    if failed and code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        raise StoreError(f"{other}: cannot change places with {one.name}: {os.strerror(code)}")
    return not failed


def flush(path: Path) -> None:
    """A file's content, or a folder's names, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
