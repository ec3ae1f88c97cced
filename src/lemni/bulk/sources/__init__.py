"""Inputs of bulk work: one file for each format, behind the protocols of `base.py`. A new format is a `Reader`
(`source.py`), a row here, and its endings in `formats.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence as Seq
from importlib import import_module
from typing import Any, BinaryIO

from lemni.bulk.sources.base import Columns, Shard, Source
from lemni.bulk.sources.files import is_url, shown
from lemni.bulk.sources.formats import checked
from lemni.errors import InvalidRequest

__all__ = ["FORMATS", "Columns", "Shard", "Source", "open_source"]

# Format -> class of its reader, made from `Columns`; imported when it is asked for.
FORMATS: dict[str, str] = {
    "txt": "lemni.bulk.sources.lines:Txt",
    "jsonl": "lemni.bulk.sources.lines:JsonLines",
    "json": "lemni.bulk.sources.json_list:JsonList",
    "csv": "lemni.bulk.sources.delimited:Csv",
    "tsv": "lemni.bulk.sources.delimited:Tsv",
    "parquet": "lemni.bulk.sources.parquet:Parquet",
    "arrow": "lemni.bulk.sources.arrow:Arrow",
    "lance": "lemni.bulk.sources.lance:Lance",
    "images": "lemni.bulk.sources.image_files:Images",
}
_STREAMED = ("txt", "jsonl", "json", "csv", "tsv")


def open_source(
    places: Seq[str],
    columns: Columns,
    *,
    query: str | None = None,
    stdin: BinaryIO | None = None,
    format: str | None = None,
) -> Source:
    """Several places are one input, in their order (those of a glob or a folder are sorted), all of one format.

    Args:
        places: files, globs, folders, URLs of fsspec, or "-" for standard input; with `query` one URL of SQLAlchemy.
        query: what to ask a database.
        stdin: what "-" means; None takes the process's own.
        format: overrides what the endings say; a folder of datasets' `save_to_disk` is "datasets".

    Raises:
        InvalidRequest: an input is not there, or none of the known formats, or lacks a column.
        MissingExtra: an optional package is needed.
    """
    if isinstance(places, str) or not places:
        raise InvalidRequest("places must be a list of at least one file, folder, glob or URL")
    word = checked(format)
    if query is not None:
        from lemni.bulk.sources.sql import SqlSource

        if len(places) > 1 or not is_url(places[0]):
            raise InvalidRequest(
                f"a query is asked of one database, by its URL, not of {shown(places[0])}", param="query"
            )
        return SqlSource(places[0], query, columns)
    if "-" in places:
        return _standard_input(places, columns, stdin, word or "txt")
    for place in places:
        _refuse_database(place)
    from lemni.bulk.sources.places import find

    found = find(places, word, columns.kind == "image")
    if found.format == "images":
        from lemni.bulk.sources.image_files import ImageSource

        return ImageSource(found.files, columns, found.places)
    from lemni.bulk.sources.source import FileSource

    return FileSource(found.files, columns, _reader(found.format)(columns))


def _standard_input(places: Seq[str], columns: Columns, stdin: BinaryIO | None, format: str) -> Source:
    from lemni.bulk.sources.records import StreamSource

    if len(places) > 1:
        raise InvalidRequest("standard input ('-') cannot be joined with other inputs")
    if format not in _STREAMED:
        raise InvalidRequest(f"standard input cannot be {format}; it can be {', '.join(_STREAMED)}", param="format")
    return StreamSource(sys.stdin.buffer if stdin is None else stdin, columns, _reader(format)(columns))


def _reader(format: str) -> Any:
    module, _, name = FORMATS[format].partition(":")
    return getattr(import_module(module), name)


def _refuse_database(place: str) -> None:
    """Raises InvalidRequest for the URL of a database without a query."""
    scheme = place.partition("://")[0].partition("+")[0]
    if is_url(place) and scheme in (
        "sqlite",
        "postgresql",
        "postgres",
        "mysql",
        "mariadb",
        "mssql",
        "oracle",
        "duckdb",
    ):
        raise InvalidRequest(f"{shown(place)}: a database needs a query (--query)", param="query")
