"""What the formats that are files have in common: what they hold is checked before the first row, and parts are joined
in two steps, so that a folder of several files can be told what all parts together need."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, ClassVar

from lemni.bulk.outputs.base import Made
from lemni.bulk.rows import Rows, Vectors
from lemni.errors import InvalidRequest
from lemni.types import TASK_WORDS, Task

NUMBERS = ("float32", "float16", "int8", "uint8", "binary", "ubinary")


class FileOutput:
    """One file, or a few beside each other.

    Args:
        path: of the main one.
        vector_column: what vectors are called, where the format has columns.
    """

    format: ClassVar[str]
    ending: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("embed", "sparse", "multi_vector")
    output_types: ClassVar[tuple[str, ...]] = NUMBERS
    direct = False

    def __init__(self, path: Path, vector_column: str = "embedding") -> None:
        self.path = path
        self.vector_column = vector_column
        self.name = str(path)

    def identity(self) -> dict[str, Any]:
        return {"format": self.format, "name": self.path.name, "vector_column": self.vector_column}

    def files(self) -> list[Path]:
        return [self.path]

    def prepare(self, made: Made) -> None:
        if made.task not in self.tasks:
            held = ", ".join(TASK_WORDS[task] for task in self.tasks)
            raise InvalidRequest(
                f"{self.name}: {self.format} holds {held}, not {TASK_WORDS[made.task]}; npz, jsonl and parquet do"
            )
        if made.output_type not in self.output_types:
            raise InvalidRequest(
                f"{self.name}: {self.format} holds {', '.join(self.output_types)}, not {made.output_type}"
            )
        self._check_place()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"{self.name}: cannot be written: {error.strerror}") from None

    def _check_place(self) -> None:
        """Raises InvalidRequest where something stands that the output cannot take the place of."""
        if self.path.is_dir():
            raise InvalidRequest(f"{self.name}: is a folder, and {self.format} is a file")

    def write(self, part: Path, rows: Rows, vectors: Vectors, made: Made) -> None:
        raise NotImplementedError

    def plan(self, parts: Seq[Path]) -> Any:
        """What the parts have to agree on, such as the types of columns; what `join` is given."""
        return None

    def join(self, parts: Seq[Path], plan: Any, made: Made) -> list[Path]:
        """Write the file of these parts, which may be some of those of `plan`; returns the files."""
        raise NotImplementedError

    def assemble(self, parts: Seq[Path], made: Made) -> list[Path]:
        return self.join(parts, self.plan(parts), made)


def check_column(name: str, reserved: Seq[str], place: str) -> None:
    """Raises InvalidRequest for a carried column that is called as one of the output's own."""
    if name in reserved:
        raise InvalidRequest(
            f"{place}: the column {name!r} of the input cannot be carried along, because the output has one of that "
            f"name itself ({', '.join(reserved)}): leave it out with --carry"
            + (", or call the vectors something else with --vector-column" if name == reserved[-1] else "")
        )
