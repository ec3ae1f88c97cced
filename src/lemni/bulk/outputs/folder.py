"""A folder of files of one format: part-00000.parquet, part-00001.parquet ..., one for each shard, where one file would
be too large, or joining it too long. Types of ids and columns are the same in all of them.

A shard of parquet, Arrow or lines that has these types is linked to its place and not copied. Files of that name from
an earlier run that had more shards are removed; everything else in the folder stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.file import FileOutput
from lemni.bulk.rows import Rows, Vectors
from lemni.errors import InvalidRequest


class Folder:
    """Implements `Output`.

    Args:
        kind: the format of the files.
    """

    direct = False

    def __init__(self, path: Path, kind: type[FileOutput], vector_column: str = "embedding") -> None:
        self.path = path
        self.name = str(path)
        self._kind = kind
        self._vector_column = vector_column
        self._any = self._file(0)

    def identity(self) -> dict[str, Any]:
        return {**self._any.identity(), "name": self.path.name, "folder": True}

    def files(self) -> list[Path]:
        return sorted(self._there()) or self._any.files()

    def prepare(self, made: Made) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InvalidRequest(f"{self.path}: is a file, not a folder")
        self._any.prepare(made)

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        self._any.write(part, rows, vectors, made)

    def assemble(self, parts: Seq[Path], made: Made) -> list[Path]:
        plan = self._any.plan(parts)
        groups: list[list[Path]] = [[part] for part in parts] or [[]]
        files = [path for number, some in enumerate(groups) for path in self._file(number).join(some, plan, made)]
        kept = {path.name for path in files}
        for path in self._there():
            if path.name not in kept:
                path.unlink()
        return files

    def _there(self) -> list[Path]:
        """The files of this or an earlier run."""
        ours = re.compile(rf"part-\d{{5,}}(\.ids)?({re.escape(self._kind.ending)}|\.npz)")
        return [path for path in self.path.iterdir() if ours.fullmatch(path.name)] if self.path.is_dir() else []

    def _file(self, number: int) -> FileOutput:
        return self._kind(self.path / f"part-{number:05d}{self._kind.ending}", self._vector_column)
