"""Files that appear whole: written beside their place, flushed to disk, moved there. A crash leaves at most a draft,
whose name is the same every time, so that the next run writes over it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lemni.stores.folders import flush

_AT_ONCE = 4 << 20  # bytes


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; after the block the file is on disk and at `path`. Nothing is left if
    the block fails."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush(draft)
    os.replace(draft, path)
    flush(path.parent)


@contextmanager
def placed_file(path: Path) -> Iterator[BinaryIO]:
    """The same, opened for writing."""
    with placed(path) as draft, draft.open("wb") as file:
        yield file


def place_copy(source: Path, path: Path) -> None:
    """The file `source` is at `path` too: by a link where the file system allows that, else as a copy."""
    if path.exists() and path.samefile(source):
        return  # renaming one link of a file over another does nothing
    with placed(path) as draft:
        draft.unlink(missing_ok=True)
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)


def slices(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` to `stop` of a file, some at a time.

    Raises:
        OSError: the file is shorter.
    """
    with path.open("rb") as file:
        file.seek(start)
        while start < stop:
            some = file.read(min(_AT_ONCE, stop - start))
            if not some:
                raise OSError(f"{path}: ends at byte {start} where {stop} were expected")
            start += len(some)
            yield some


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
