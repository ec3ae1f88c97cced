"""Arrow's own formats: files (also called Feather) and streams, which `datasets` keeps its folders in.

Of a file the footer names the record batches. Of a stream on this machine a pass over it finds them; one from
elsewhere, or with dictionaries, is read from front to end.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import lru_cache
from typing import Any

from lemni.bulk.sources.columnar import Columnar, open_arrow
from lemni.bulk.sources.files import File, open_raw
from lemni.errors import InvalidRequest

_MAPPED = 64 << 20  # bytes of batches that a mapped file gives before it is mapped anew


class Arrow(Columnar):
    """A group is a record batch: of a file its number, of a stream its place in bytes (0: from the start)."""

    format = "arrow"

    def schema_of(self, file: File) -> Any:
        with closing(open_arrow(file)) as handle:
            return _reader(handle, file).schema

    def random(self, file: File) -> bool:
        if _is_file(file):
            return True
        return not file.remote and not _dictionaries(self.schema_of(file))

    def groups(self, file: File) -> Iterator[tuple[int, int]]:
        with closing(open_arrow(file, mapped=True)) as handle:
            reader = _reader(handle, file, 1)
            if _is_file(file):
                for number in range(reader.num_record_batches):
                    yield number, reader.get_batch(number).num_rows
                return
            while True:
                place = handle.tell()
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
                yield place, batch.num_rows

    def count(self, file: File) -> int | None:
        return super().count(file) if not file.remote else None

    def batches(self, file: File, group: int, wanted: list[str]) -> Iterator[Any]:
        if not self.random(file):
            with closing(open_arrow(file)) as handle:
                yield from _reader(handle, file, wanted)
            return
        place: int | None = group
        while place is not None:
            place = yield from self._some(file, place, wanted)

    def _some(self, file: File, group: int, wanted: list[str]) -> Generator[Any, None, int | None]:
        """Batches from a group on, and which group is next: with the file opened again the pages that were read are no
        longer the process's."""
        import pyarrow as pa

        size = 0
        with closing(open_arrow(file, mapped=True)) as handle:
            if _is_file(file):
                reader = _reader(handle, file, wanted)
                for number in range(group, reader.num_record_batches):
                    if size > _MAPPED:
                        return number
                    batch = reader.get_batch(number)
                    size += batch.nbytes
                    yield batch
                return None
            schema = _reader(handle, file).schema
            if group:
                handle.seek(group)
            while size <= _MAPPED:
                try:
                    message = pa.ipc.read_message(handle)
                except EOFError:
                    return None
                batch = pa.ipc.read_record_batch(message, schema)
                size += batch.nbytes
                yield batch
            return int(handle.tell())


@lru_cache(1024)
def _is_file(file: File) -> bool:
    with open_raw(file, ahead=False) as handle:
        magic = handle.read(6)
    if magic[:4] == b"FEA1":
        raise InvalidRequest(
            f"{file.name}: is of Feather's first version, which nothing reads in parts; write it again"
        )
    return magic == b"ARROW1"


def _reader(handle: Any, file: File, wanted: list[str] | int | None = None) -> Any:
    """A reader of a file or a stream.

    Args:
        wanted: columns that are read, or how many of the first ones.
    """
    import pyarrow as pa

    opened = pa.ipc.open_file if _is_file(file) else pa.ipc.open_stream
    if wanted is None:
        return opened(handle)
    names = opened(handle).schema.names
    chosen = range(wanted) if isinstance(wanted, int) else (names.index(name) for name in wanted if name in names)
    handle.seek(0)
    return opened(handle, options=pa.ipc.IpcReadOptions(included_fields=sorted(chosen)))


def _dictionaries(schema: Any) -> bool:
    import pyarrow as pa

    def inside(kind: Any) -> bool:
        if pa.types.is_dictionary(kind):
            return True
        return any(inside(kind.field(at).type) for at in range(kind.num_fields))

    return any(inside(field.type) for field in schema)
