"""Lance datasets: rows by their place, of the version that was there when the job began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

from lemni.bulk.rows import Rows
from lemni.bulk.sources.base import Columns
from lemni.bulk.sources.cells import carried, check_columns, rows_of_columns
from lemni.bulk.sources.columnar import plain_schema, python_cells
from lemni.bulk.sources.files import File, failed, is_url
from lemni.errors import InvalidRequest, missing_extra


def describe_dataset(place: str) -> File:
    """A dataset as a file whose stamp is its version.

    Raises:
        InvalidRequest: it cannot be opened.
    """
    path = place if is_url(place) else os.path.abspath(place)
    return File(path, None, _open(path, None).version)


class Lance:
    """`where` is the place of a shard's first row."""

    format = "lance"

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.names: list[str] = []
        self.schema: Any = None

    def check(self, files: Seq[File]) -> None:
        import pyarrow as pa

        if len(files) > 1:
            raise InvalidRequest(f"{files[1].name}: one Lance dataset at a time")
        every = plain_schema(_open(files[0].path, files[0].stamp).schema)
        self.columns = check_columns(every.names, self.columns, files[0].name)
        self.names = carried(every.names, self.columns)
        self.schema = pa.schema([every.field(name) for name in self.names])

    def random(self, file: File) -> bool:
        return True

    def count(self, file: File) -> int | None:
        return int(_open(file.path, file.stamp).count_rows())

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, int]]:
        total = self.count(file) or 0
        for start in range(0, total, rows):
            yield min(rows, total - start), start

    def read(self, file: File, where: Any, first: int, count: int) -> Rows:
        wanted = [self.columns.text, *([self.columns.id] if self.columns.id else []), *self.names]
        try:
            found = _open(file.path, file.stamp).to_table(
                columns=list(dict.fromkeys(wanted)), offset=where, limit=count
            )
        except InvalidRequest:
            raise
        except Exception as error:
            raise failed(file.path, error) from None
        table = {name: python_cells(found.column(name)) for name in found.schema.names}
        folder = file.path.rstrip("/").rpartition("/")[0]
        return rows_of_columns(table, len(found), first, self.columns, self.names, self.schema, folder)

    def stream(self, file: File, rows: int, first: int) -> Iterator[Rows]:
        raise NotImplementedError  # every dataset can be cut


def _open(path: str, version: Any) -> Any:
    try:
        import lance
    except ImportError:
        raise missing_extra("pylance", "lance", "reading a Lance dataset") from None
    try:
        return lance.dataset(path, version=version)
    except Exception as error:
        raise failed(path, error) from None
