"""From what a row holds to what is embedded: ids, texts, images by path, and the columns that are carried along."""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from lemni.bulk.rows import Broken, Id, Rows
from lemni.bulk.sources.base import Columns
from lemni.bulk.sources.files import is_url, read_all, shown
from lemni.errors import InvalidRequest
from lemni.types import Image

Record: TypeAlias = Mapping[str, Any] | str | Broken
"""A row of a format without a schema: its fields by name, a text by itself, or why it cannot be read."""

MAX_IMAGE_BYTES = 256 << 20

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),
    ((int, float, Decimal), "a number"),
    ((bytes, bytearray, memoryview), "bytes"),
    ((list, tuple), "a list"),
    (Mapping, "an object"),
)


def kind_of(value: object) -> str:
    """In plain words, for messages: "a number", "a list"."""
    if value is None:
        return "null"
    return next((word for types, word in _KINDS if isinstance(value, types)), f"a {type(value).__name__}")


def text_cell(value: object) -> tuple[str | Broken | None, str | None]:
    """What is embedded, and the cell as it stood."""
    if value is None or isinstance(value, str):
        return value, value
    return Broken(f"is {kind_of(value)}, not a text"), None


def image_cell(value: object, folder: str) -> tuple[Image | Broken | None, str | None]:
    """An image's path (relative ones to `folder`), its bytes, or a struct of both as `datasets` has them."""
    path = None
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        path = value.get("path") if isinstance(value.get("path"), str) else None
        value = path if value.get("bytes") is None else value["bytes"]
    if value is None:
        return None, path
    if isinstance(value, (bytes, bytearray, memoryview)):
        return (Image(bytes(value)) if len(value) else Broken("is an image of no bytes")), path
    if not isinstance(value, str):
        return Broken(f"is {kind_of(value)}, not the path of an image"), None
    return load_image(value, folder), value


def load_image(path: str, folder: str) -> Image | Broken:
    """Its bytes, not decoded; Broken names the path."""
    if not path:
        return Broken("is an empty path")
    if is_url(path) and path.partition("://")[0] != folder.partition("://")[0]:
        return Broken(f"{shown(path)}: is a URL; images are read by path")
    at = path if is_url(path) else f"{folder}/{path}" if is_url(folder) else os.path.join(folder, path)
    try:
        data = read_all(at, MAX_IMAGE_BYTES)
    except InvalidRequest as error:
        return Broken(error.message)
    except ValueError as error:  # a NUL in the path
        return Broken(f"{path!r}: is no path: {error}")
    return Image(data) if data else Broken(f"{shown(at)}: is empty")


def id_cell(value: object) -> Id | Broken:
    """An id is a text or a whole number; a UUID becomes a text."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, (float, Decimal)) and abs(float(value)) < 2**53 and value == int(value):
        return int(value)
    if isinstance(value, UUID):
        return str(value)
    return Broken(f"its id is {kind_of(value)}, neither a text nor a whole number")


def rows_of(records: Seq[Record], first: int, columns: Columns, folder: str) -> Rows:
    """Rows of a format without a schema.

    Args:
        first: number of the first one in the whole input.
        folder: what paths of images are relative to.
    """
    rows = Rows(first, [], [], [], [])
    for number, record in enumerate(records, first):
        key: Id | Broken = number
        metadata: dict[str, Any] = {}
        item: str | Image | Broken | None
        text: str | None = None
        if isinstance(record, Broken):
            item = record
        elif isinstance(record, str):
            item, text = _cell(record, columns, folder)
        else:
            name = columns.id or ("id" if columns.text != "id" else "")
            if name and name in record:
                key = id_cell(record[name])
            elif columns.id is not None:
                key = Broken(f"has no field {name!r} for its id; it has {names(record)}")
            if columns.text in record:
                item, text = _cell(record[columns.text], columns, folder)
            else:
                item = Broken(f"has no field {columns.text!r}; it has {names(record)}")
            if columns.carry is None:
                metadata = {field: value for field, value in record.items() if field not in (columns.text, name)}
            else:
                metadata = {field: record.get(field) for field in columns.carry}
        if isinstance(key, Broken):
            item, key = key, number
        rows.ids.append(key)
        rows.items.append(item)
        rows.texts.append(text)
        rows.metadata.append(metadata)
    return rows


def rows_of_columns(
    table: Mapping[str, Seq[Any]], count: int, first: int, columns: Columns, names: Seq[str], schema: Any, folder: str
) -> Rows:
    """Rows of a format with a schema.

    Args:
        table: cells by column, Broken where one cannot be read: the text, the id if there is one, and `names`.
        names: the columns that are carried.
        schema: pyarrow.Schema of those, or None.
    """
    ids: list[Id] = list(range(first, first + count))
    items: list[str | Image | Broken | None] = []
    texts: list[str | None] = []
    for value in table[columns.text]:
        item, text = (value, None) if isinstance(value, Broken) else _cell(value, columns, folder)
        items.append(item)
        texts.append(text)
    if columns.id is not None:
        for at, value in enumerate(table[columns.id]):
            key = value if isinstance(value, Broken) else id_cell(value)
            if isinstance(key, Broken):
                items[at] = key
            else:
                ids[at] = key
    carried = [table[name] for name in names]
    metadata = [dict(zip(names, cells, strict=True)) for cells in zip(*carried, strict=True)]
    for at, row in enumerate(metadata):
        for name, value in row.items():
            if isinstance(value, Broken):
                items[at], row[name] = Broken(f"its column {name!r} {value.reason}"), None
    return Rows(first, ids, items, texts, metadata or [{} for _ in range(count)], schema)


def _cell(value: object, columns: Columns, folder: str) -> tuple[str | Image | Broken | None, str | None]:
    return text_cell(value) if columns.kind == "text" else image_cell(value, folder)


def names(fields: Mapping[str, Any] | Seq[str]) -> str:
    """For messages: at most twenty of them."""
    every = [repr(name) for name in fields]
    return ", ".join(every[:20]) + (f" and {len(every) - 20} more" if len(every) > 20 else "") if every else "none"


def check_columns(there: Seq[str], columns: Columns, place: str) -> Columns:
    """The columns of a file that has a header or a schema, with `id` decided.

    Raises:
        InvalidRequest: one is not there, or one name is there twice.
    """
    if len(set(there)) < len(there):
        twice = next(name for name in there if list(there).count(name) > 1)
        raise InvalidRequest(f"{place}: has two columns called {twice!r}")
    for role, wanted in (
        ("text", [columns.text]),
        ("id", [columns.id] if columns.id is not None else []),
        ("carry", list(columns.carry or ())),
    ):
        for name in wanted:
            if name not in there:
                raise InvalidRequest(f"{place}: has no column {name!r}; it has {names(there)}", param=role)
    chosen = columns.id if columns.id is not None else "id" if "id" in there and columns.text != "id" else None
    return Columns(columns.text, chosen, columns.carry, columns.kind)


def carried(there: Seq[str], columns: Columns) -> list[str]:
    """The columns that are carried, of a file whose `id` is decided."""
    if columns.carry is not None:
        return list(columns.carry)
    return [name for name in there if name not in (columns.text, columns.id)]


def check_carry(records: Seq[Record], columns: Columns, place: str) -> None:
    """Raises InvalidRequest if none of these objects, the first of an input, has a field that is to be carried."""
    fields = {name: None for record in records if isinstance(record, Mapping) for name in record}
    for name in columns.carry or ():
        if records and name not in fields:
            raise InvalidRequest(
                f"{place}: none of the first {len(records)} rows has a field {name!r}; they have {names(list(fields))}",
                param="carry",
            )
