"""Files that are written beside their place and moved there at the end: an interrupted run leaves none that looks
complete. Called by the commands that write results with `-o`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import click


class _Closes(Protocol):
    def close(self) -> None: ...


_Writer = TypeVar("_Writer", bound=_Closes)


def check_place(path: Path, endings: Iterable[str]) -> None:
    """Raises click.UsageError for another ending, a folder, or a place in a folder that does not exist."""
    endings = tuple(endings)
    if path.suffix.lower() not in endings:
        raise click.UsageError(f"{path}: the name must end in one of {', '.join(endings)}")
    if path.is_dir() or not path.parent.is_dir():
        raise click.UsageError(f"{path}: is a folder" if path.is_dir() else f"{path.parent}: there is no such folder")


class Draft(Generic[_Writer]):
    """A context manager around the writer that `opened(draft)` gives; nothing is left of it if the block fails.

    Raises:
        click.UsageError: the folder cannot be written to.
    """

    def __init__(self, path: Path, opened: Callable[[Path], _Writer]) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.part")
        try:
            self._writer = opened(self._draft)
        except OSError as error:
            raise click.UsageError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> _Writer:
        return self._writer

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._writer.close()
        if kind is None:
            self._draft.replace(self._path)
        else:
            self._draft.unlink(missing_ok=True)
