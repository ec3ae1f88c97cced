"""What parquet and Arrow files share: columns with types, and reading on where the last shard ended.

A file is *groups* of rows (row groups, record batches), which can be reached each by itself, while rows inside of a
group can only be reached from its start. So a process keeps the cursors that it read with last: shards that are loaded
in their order are decoded once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Seq
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from lemni.bulk.rows import Broken, Rows
from lemni.bulk.sources.base import Columns
from lemni.bulk.sources.cells import carried, check_columns, rows_of_columns
from lemni.bulk.sources.files import File, check, failed, folder_of, open_raw
from lemni.errors import InvalidRequest, LemniError, missing_extra

_T = TypeVar("_T")
_KEPT = 8  # cursors of a process that wait for the next shard


class Part(NamedTuple):
    """Where a shard begins: `group` is known to the format and starts at row `group_row` of the file."""

    group: int
    group_row: int
    row: int


class Columnar:
    """A reader of files with a schema. A format says what that is, where the groups are, and reads from one on."""

    format = ""

    def __init__(self, columns: Columns) -> None:
        require_pyarrow(f"reading {self.format}")
        self.columns = columns
        self.names: list[str] = []
        self.schema: Any = None  # pyarrow.Schema of the carried columns

    def schema_of(self, file: File) -> Any:
        """pyarrow.Schema of a file."""
        raise NotImplementedError

    def groups(self, file: File) -> Iterator[tuple[int, int]]:
        """Groups in order, and how many rows each has."""
        raise NotImplementedError

    def batches(self, file: File, group: int, wanted: list[str]) -> Iterator[Any]:
        """pyarrow.RecordBatches from a group on to the file's end, with at least the wanted columns. `close` of the
        generator closes the file."""
        raise NotImplementedError

    def check(self, files: Seq[File]) -> None:
        import pyarrow as pa

        schemas = [plain_schema(_guarded(file, self.schema_of, file)) for file in files]
        try:
            every = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise InvalidRequest(f"{files[0].name} and others: their columns do not fit together: {error}") from None
        self.columns = check_columns(every.names, self.columns, files[0].name)
        for file, schema in zip(files, schemas, strict=True):
            check_columns(schema.names, Columns(self.columns.text, self.columns.id, None), file.name)
        self.names = carried(every.names, self.columns)
        self.schema = pa.schema([every.field(name) for name in self.names])

    def random(self, file: File) -> bool:
        return True

    def cut(self, file: File, rows: int) -> Iterator[tuple[int, Part]]:
        begun = Part(0, 0, 0)
        row = 0  # of the file, where the group begins
        try:
            for group, count in self.groups(file):
                if begun.row == row:  # a shard begins with the group
                    begun = Part(group, row, row)
                while begun.row + rows <= row + count:
                    yield rows, begun
                    begun = Part(group, row, begun.row + rows)
                row += count
            if row > begun.row:
                yield row - begun.row, begun
        except LemniError:
            raise
        except Exception as error:
            raise failed(file.path, error) from None

    def read(self, file: File, where: Any, first: int, count: int) -> Rows:
        def load() -> Rows:
            cursor = _take(self, file, where)
            cells = cursor.read(where.row, count)
            _give_back(cursor)
            return self._rows(cells, file, first)

        return _guarded(file, load)

    def stream(self, file: File, rows: int, first: int) -> Iterator[Rows]:
        cursor = _Cursor(self, file, Part(0, 0, 0))
        row = 0
        try:
            while found := _guarded(file, cursor.read, row, rows):
                yield self._rows(found, file, first + row)
                row += sum(map(len, found))
        finally:
            cursor.close()

    def count(self, file: File) -> int | None:
        return sum(count for _, count in _guarded(file, lambda: list(self.groups(file))))

    def wanted(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys([self.columns.text, *([self.columns.id] if self.columns.id else []), *self.names]))

    def _rows(self, batches: list[Any], file: File, first: int) -> Rows:
        count = sum(len(batch) for batch in batches)
        table: dict[str, list[Any]] = {}
        for name in self.wanted():
            cells = table[name] = []
            for batch in batches:
                there = name in batch.schema.names
                cells += python_cells(batch.column(name)) if there else [None] * len(batch)
        return rows_of_columns(table, count, first, self.columns, self.names, self.schema, folder_of(file.path))


def _guarded(file: File, call: Callable[..., _T], *arguments: Any) -> _T:
    """What pyarrow raises, in words."""
    try:
        return call(*arguments)
    except LemniError:
        raise
    except Exception as error:
        raise failed(file.path, error) from None


def require_pyarrow(needed_for: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise missing_extra("pyarrow", "parquet", needed_for) from None


def open_arrow(file: File, mapped: bool = False) -> Any:
    """A pyarrow file.

    Args:
        mapped: map a local one into memory, so that parts of large batches are not read. Such pages count as the
            process's for as long as it is open.
    """
    import pyarrow as pa

    handle = open_raw(file, ahead=False)  # which sees whether it is what it was
    if file.remote:
        return pa.PythonFile(handle, mode="r")
    handle.close()
    if not file.size:
        raise InvalidRequest(f"{file.name}: is an empty file")
    return pa.memory_map(file.path) if mapped else pa.OSFile(file.path)


def plain_schema(schema: Any) -> Any:
    """Without notes of pandas and others, and with the values of columns that are stored as a dictionary."""
    import pyarrow as pa

    fields = []
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def python_cells(column: Any) -> list[Any]:
    """A column's values; Broken for those that cannot be one, such as a text of bytes that are not UTF-8."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        return [_python_cell(cell) for cell in column]


def _python_cell(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return Broken(f"is not UTF-8: byte 0x{error.object[error.start]:02x} at place {error.start}")
    except (ValueError, OverflowError) as error:
        return Broken(f"has no value in Python: {error}")


class _Cursor:
    """Reads a file's rows from a group on."""

    def __init__(self, reader: Columnar, file: File, where: Part) -> None:
        self.key = (reader.format, file, tuple(reader.wanted()))
        self.at = where.group_row
        self._batches = reader.batches(file, where.group, reader.wanted())
        self._left: Any = None

    def read(self, row: int, count: int) -> list[Any]:
        """RecordBatches of rows `row` ..., which are not before `at`; fewer than `count` at the file's end."""
        found = []
        while count:
            if self._left is None or not len(self._left):
                self._left = next(self._batches, None)
                if self._left is None:
                    break
            skipped = min(row - self.at, len(self._left))
            part = self._left.slice(skipped, count)
            self._left = self._left.slice(skipped + len(part))
            self.at += skipped + len(part)
            if len(part):
                found.append(part)
                row += len(part)
                count -= len(part)
        return found

    def close(self) -> None:
        with suppress(Exception):
            self._batches.close()  # type: ignore[attr-defined]


_idle: list[_Cursor] = []
_lock = threading.Lock()


def _take(reader: Columnar, file: File, where: Part) -> _Cursor:
    """The cursor that is nearest before a row, or a new one at its group."""
    key = (reader.format, file, tuple(reader.wanted()))
    with _lock:
        near = [one for one in _idle if one.key == key and where.group_row <= one.at <= where.row]
        if near:
            cursor = max(near, key=lambda one: one.at)
            _idle.remove(cursor)
    if near:
        check(file)
        return cursor
    return _Cursor(reader, file, where)


def _give_back(cursor: _Cursor) -> None:
    with _lock:
        _idle.append(cursor)
        old: Iterable[_Cursor] = _idle[:-_KEPT]
        del _idle[:-_KEPT]
    for one in old:
        one.close()
