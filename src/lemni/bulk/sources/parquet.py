"""Parquet files: footers say how many rows there are, and pages are decoded as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lemni.bulk.sources.columnar import Columnar, open_arrow
from lemni.bulk.sources.files import File

_BATCH = 256  # rows decoded at a time: texts may be long
# Bytes of a column read at a time; else a row group's whole column.
_BUFFER = 1 << 20
_REMOTE_BUFFER = 4 << 20  # a request each


class Parquet(Columnar):
    format = "parquet"

    def schema_of(self, file: File) -> Any:
        with _opened(file) as found:
            return found.schema_arrow

    def groups(self, file: File) -> Iterator[tuple[int, int]]:
        with _opened(file) as found:
            counts = [found.metadata.row_group(group).num_rows for group in range(found.num_row_groups)]
        yield from enumerate(counts)

    def count(self, file: File) -> int | None:
        with _opened(file) as found:
            return int(found.metadata.num_rows)

    def batches(self, file: File, group: int, wanted: list[str]) -> Iterator[Any]:
        with _opened(file) as found:
            there = [name for name in wanted if name in found.schema_arrow.names]
            groups = list(range(group, found.num_row_groups))
            yield from found.iter_batches(batch_size=_BATCH, row_groups=groups, columns=there)


def _opened(file: File) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(open_arrow(file), pre_buffer=False, buffer_size=_REMOTE_BUFFER if file.remote else _BUFFER)
