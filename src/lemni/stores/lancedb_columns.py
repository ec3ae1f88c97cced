"""Columns of a LanceDB table: vectors to numpy and back, metadata to cells and back."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import pyarrow as pa

REST = b"lemni.rest"  # in a schema's metadata: which column has as JSON what has no column of its own


def metadata_from(rows: Any, schema: Any, used: Seq[str | None]) -> list[dict[str, Any]]:
    """All of the rows (pyarrow.Table) but the columns `used`."""
    rest = (schema.metadata or {}).get(REST, b"").decode()
    others = [one for one in rows.column_names if one not in (*used, rest)]
    found: list[dict[str, Any]] = rows.select(others).to_pylist() if others else [{} for _ in range(len(rows))]
    if not rest:
        return found
    # What is null in a column of its own was not there: a None that was stands in the JSON.
    return [
        {**{key: value for key, value in one.items() if value is not None}, **json.loads(more or "{}")}
        for one, more in zip(found, rows[rest].to_pylist(), strict=True)
    ]


def of_metadata(schema: Any, metadata: list[dict[str, Any]], used: Seq[str], ids: Seq[Any]) -> dict[str, list[Any]]:
    """Cells of each column that is not `used`; what has no column, or does not fit into it, goes into the one for the
    rest.

    Raises:
        ValueError: something does not fit, and there is no column for the rest; names the id.
    """
    rest = (schema.metadata or {}).get(REST, b"").decode()
    left = [dict(one) for one in metadata]
    found: dict[str, list[Any]] = {}
    for name in [one for one in schema.names if one not in used and one != rest]:
        kind, cells = schema.field(name).type, [one.get(name) for one in metadata]
        for at in _misfits(cells, kind, exact=bool(rest)):
            if not rest:
                raise ValueError(
                    f"id {ids[at]!r:.100}: {cells[at]!r:.100} does not fit into the column {name!r} ({kind})"
                )
            cells[at] = None
        for one, cell in zip(left, cells, strict=True):
            if cell is not None or not rest:
                one.pop(name, None)
        found[name] = cells
    if rest:
        found[rest] = [_json(one, name) if one else None for one, name in zip(left, ids, strict=True)]
        return found
    for one, name in zip(left, ids, strict=True):
        for key in one:
            raise ValueError(f"id {name!r:.100}: no column for {key!r}; there are {', '.join(schema.names)}")
    return found


def _json(value: dict[str, Any], name: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:
        raise ValueError(f"id {name!r:.100}: metadata that is no JSON: {error}") from None


def width(kind: Any) -> int | None:
    """Numbers in a vector of a column of this Arrow type; None if it is none of vectors."""
    if pa.types.is_list(kind):
        kind = kind.value_type
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        return int(kind.list_size)
    return None


def vectors_from(column: Any) -> Any:
    """float32 [rows, dimensions], or a list of [tokens, dimensions]."""
    joined = column.combine_chunks()
    if pa.types.is_fixed_size_list(joined.type):
        numbers = joined.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        if len(numbers) != len(joined) * joined.type.list_size:
            raise ValueError("some of the vectors are null")
        return numbers.reshape(len(joined), joined.type.list_size)
    width = joined.type.value_type.list_size
    return [np.asarray(one or [], np.float32).reshape(-1, width) for one in joined.to_pylist()]


def vectors_to(vectors: list[Any], kind: Any) -> Any:
    if pa.types.is_list(kind):
        lengths = [0, *np.cumsum([len(one) for one in vectors])]
        return pa.ListArray.from_arrays(
            pa.array(lengths, pa.int32()), vectors_to(list(np.concatenate(vectors)), kind.value_type)
        )
    numbers = np.stack(vectors).astype(kind.value_type.to_pandas_dtype())
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1), kind.value_type), type=kind)


def _misfits(cells: list[Any], kind: Any, *, exact: bool) -> list[int]:
    """Places of what a column of this type would not give back as it was; `exact` tells 1 from 1.0."""
    try:
        back = pa.array(cells, kind).to_pylist()
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        if len(cells) == 1:
            return [0]
        return [at for at, one in enumerate(cells) if _misfits([one], kind, exact=exact)]
    return [
        at
        for at, (one, other) in enumerate(zip(cells, back, strict=True))
        if (exact and type(one) is not type(other)) or not (one == other or (one != one and other != other))
    ]
