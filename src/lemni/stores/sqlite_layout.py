"""How a file of SQLite holds entries beside a vec0 table, or in one: which column of which table is what."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lemni.errors import StoreError
from lemni.stores.base import Metric
from lemni.stores.place import Place

_TEXTS = ("text", "document", "content", "body")
METRICS: dict[str, Metric] = {"cosine": "cosine", "l2": "l2"}
_VECTOR = re.compile(r"""["`\[]?(\w+)["`\]]?\s+(float|f32|int8|i8|bit)\s*\[\s*(\d+)\s*\]([^,)]*)""", re.IGNORECASE)
_TEXT_KEY = re.compile(r"""["`\[]?(\w+)["`\]]?\s+text\s+primary\s+key""", re.IGNORECASE)


def module() -> Any:
    """An `sqlite3` that loads extensions."""
    import sqlite3

    if hasattr(sqlite3.Connection, "enable_load_extension"):
        return sqlite3
    try:
        import pysqlite3
    except ImportError:
        raise StoreError(
            "sqlite-vec: the sqlite3 of this Python was built without loadable extensions; install another one beside "
            "it with: pip install pysqlite3"
        ) from None
    return pysqlite3


def quoted(name: str) -> str:
    """A name in a statement."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts of statements, in which `r` is the vec0 table's table of rowids, `e` that of entries, `v` itself.

    Attributes:
        entries: the plain table; empty where the vec0 table has all the columns.
        key: of the vec0 table: its primary key if that is a text, else "rowid"; `key_of` is that in `r`.
        others: columns of metadata, by name, if no `metadata` is a JSON object.
    """

    vector: str
    kind: str
    dimensions: int
    metric: str
    entries: str
    id: str
    text: str | None
    metadata: str | None
    others: dict[str, str]
    key: str
    key_of: str


def lay_out(
    where: str, place: Place, collection: str, made: str, columns_of: Callable[[str], dict[str, bool]]
) -> Layout:
    """Of a vec0 table that was made by the statement `made`. `columns_of` gives the columns of a table that are not
    hidden, and whether each is the primary key; none if there is no such table.

    Raises:
        StoreError: a table or a column that `place` names is not there.
    """
    vectors = {name: rest for name, *rest in _VECTOR.findall(made[made.lower().index("vec0") :])}
    wanted = place.option("vector") or next(iter(vectors), "")
    if wanted not in vectors:
        raise StoreError(f"{where}: it has no column {wanted!r} of vectors, but {', '.join(vectors)}")
    kind, width, rest = vectors[wanted]
    named = _TEXT_KEY.search(made)
    own_key, key_there = (named[1], "id") if named else ("rowid", "rowid")
    told = re.search(r"distance_metric\s*=\s*(\w+)", rest, re.IGNORECASE)
    metric = told[1].lower() if told else "l2"
    option = place.option
    entries = option("entries") or f"{collection}_entries"
    columns = columns_of(entries)
    if not columns and option("entries"):
        raise StoreError(f"{where}: there is no table {entries!r} of entries")
    side = "e" if columns else "v"
    columns = columns or {name: key for name, key in columns_of(collection).items() if name not in vectors}
    for name in ("id", "text", "metadata"):
        if option(name) and option(name) not in columns and option(name) != "rowid":
            raise StoreError(f"{where}: there is no column {option(name)!r}, but {', '.join(columns)}: {name}=COLUMN")
    text = option("text") or next((name for name in _TEXTS if name in columns), None)
    key = option("id") or ("id" if side == "e" else next((name for name, is_key in columns.items() if is_key), "rowid"))
    if side == "e" and key not in columns and key != "rowid":
        raise StoreError(f"{where}: the table {entries} has no column {key!r}, but {', '.join(columns)}: id=COLUMN")
    metadata = option("metadata") or ("metadata" if side == "e" and not option("entries") else None)
    others = {name: f"{side}.{quoted(name)}" for name in columns if name not in (text, key, "rowid")}
    return Layout(
        wanted,
        kind.lower(),
        int(width),
        metric,
        entries if side == "e" else "",
        f"{side}.{quoted(key)}" if key != "rowid" else "r.rowid",
        f"{side}.{quoted(text)}" if text else None,
        f"{side}.{quoted(metadata)}" if metadata else None,
        {} if metadata else others,
        own_key,
        key_there,
    )
