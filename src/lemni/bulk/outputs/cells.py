"""Cells of carried columns as Arrow arrays: of their own type where all agree, else as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from typing import Any

import pyarrow as pa

from lemni.bulk.outputs.lines import to_json

Holds = Callable[[Any], bool]
_FAILS = (pa.lib.ArrowException, OverflowError, TypeError, ValueError, AttributeError)


def column(values: Seq[Any], wanted: Any, holds: Holds) -> Any:
    """An array of type `wanted`, if there is one and the values have it; else of the type that they have in common; of
    text (JSON, but texts as they are) where they have none, or `holds` says that the format has no such type."""
    for kind in (None if wanted is None else plain(wanted), None):
        try:
            array = pa.array(values, kind)
        except _FAILS:
            continue
        if holds(array.type) and not _bare(array.type):
            return array
    return texts(values)


def _bare(kind: Any) -> bool:
    """Whether a struct without fields is in it, which parquet never has and Lance not everywhere."""
    fields = [kind.field(at) for at in range(kind.num_fields)]
    return (pa.types.is_struct(kind) and not fields) or any(_bare(field.type) for field in fields)


def plain(kind: Any) -> Any:
    """A column's type without what is only a way to keep it in memory."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if kind == pa.string_view():
        return pa.string()
    return pa.binary() if kind == pa.binary_view() else kind


def texts(values: Iterable[Any]) -> Any:
    """Strings: texts as they are, nulls as nulls, everything else as JSON."""
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    # Halves of surrogate pairs, which are no UTF-8, are written out.
    return (value if isinstance(value, str) else to_json(value).decode()).encode(errors="backslashreplace").decode()


def common(kinds: Seq[Any]) -> Any:
    """The type that all can become: a wider number, a struct with all fields; string where there is none, and where
    nothing but nulls is known."""
    known = [kind for kind in dict.fromkeys(kinds) if kind != pa.null()]
    if not known:
        return pa.string()
    try:
        schemas = [pa.schema([("", kind)]) for kind in known]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.lib.ArrowException:
        return pa.string()


def become(array: Any, kind: Any) -> Any:
    """The array as one of a type that `common` gave for its own."""
    if array.type == kind:
        return array
    if kind == pa.string() and not pa.types.is_null(array.type):
        return texts(array.to_pylist())
    try:
        # Whole numbers over 2**53 among others: to the nearest.
        return array.cast(kind, safe=False)
    except pa.lib.ArrowException:
        return pa.array(array.to_pylist(), kind)
