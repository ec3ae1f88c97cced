"""Cells of carried columns as Arrow arrays: of their own type where all agree, else as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from typing import Any

import pyarrow as pa

from lemni.bulk.outputs.lines import to_json

Holds = Callable[[Any], bool]
_FIELDS = 256  # of structs that are not in the source's schema
_FAILS = (pa.lib.ArrowException, OverflowError, TypeError, ValueError, AttributeError)


def column(values: Seq[Any], wanted: Any, holds: Holds) -> Any:
    """An array of type `wanted`, if there is one and the values have it; else of the type that they have in common; of
    text (JSON, but texts as they are) where they have none, `holds` says that the format has no such type, or objects
    are used as maps, with keys of their own in each row."""
    for kind in (None if wanted is None else plain(wanted), None):
        try:
            array = pa.array(values, kind)
        except _FAILS:
            continue
        if holds(array.type) and not _bare(array.type) and (array.type == kind or _fields(array.type) <= _FIELDS):
            return array
    return texts(values)


def _fields(kind: Any) -> int:
    """Of a struct, with those in them."""
    return sum(1 + _fields(kind.field(at).type) for at in range(kind.num_fields))


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
    if len(known) == 1:
        return known[0]
    if not known or pa.string() in known:
        return pa.string()
    try:
        schemas = [pa.schema([("", kind)]) for kind in known]
        kind = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        return kind if _fields(kind) <= max(_FIELDS, *map(_fields, known)) else pa.string()
    except pa.lib.ArrowException:
        return pa.string()


def _sparse(value: Any) -> Any:
    """Without the fields that a struct has because other rows have them."""
    if isinstance(value, dict):
        return {name: _sparse(one) for name, one in value.items() if one is not None}
    return [_sparse(one) for one in value] if isinstance(value, list) else value


def become(array: Any, kind: Any) -> Any:
    """The array as one of a type that `common` gave for its own."""
    if array.type == kind:
        return array
    if kind == pa.string() and not pa.types.is_null(array.type):
        return texts(map(_sparse, array.to_pylist()))
    try:
        # Whole numbers over 2**53 among others: to the nearest.
        return array.cast(kind, safe=False)
    except pa.lib.ArrowException:
        return pa.array(array.to_pylist(), kind)
