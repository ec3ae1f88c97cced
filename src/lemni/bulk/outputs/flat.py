"""Vectors of a part as arrays end to end, the form in which most formats keep them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.bulk.outputs.base import Made
from lemni.bulk.rows import Vectors

_TASK_ARRAYS = {
    "embed": ("vectors",),
    "sparse": ("lengths", "indices", "values"),
    "multi_vector": ("lengths", "vectors"),
}


def width_of(made: Made) -> int:
    """Numbers of one dense vector as it is written: 8 dimensions in each of a binary one."""
    dimensions = made.dimensions or 0
    return -(-dimensions // 8) if made.output_type in ("binary", "ubinary") else dimensions


def number(name: str) -> np.dtype[Any]:
    """numpy's dtype, little-endian as in files."""
    little: np.dtype[Any] = np.dtype(name).newbyteorder("<")
    return little


def numbers(array: NDArray[Any], made: Made) -> NDArray[Any]:
    """A vector or several, contiguous and of the numbers that `made` says; only floats become other floats.

    Raises:
        ValueError: they are of another kind.
    """
    wanted = number(made.dtype)
    if array.dtype != wanted and not array.dtype.kind == wanted.kind == "f":
        raise ValueError(f"vectors of {array.dtype} where they are {wanted}")
    return np.ascontiguousarray(array, wanted)


def types_of(made: Made) -> dict[str, np.dtype[Any]]:
    """The arrays that `flat` gives for a task, by name, with their types."""
    types = {"lengths": "int32", "indices": "int32", "values": "float32", "vectors": made.dtype}
    return {name: number(types[name]) for name in _TASK_ARRAYS[made.task]}


def flat(vectors: Vectors, count: int, made: Made) -> dict[str, NDArray[Any]]:
    """The vectors of `count` rows.

    Dense: `vectors` [count, width]. Sparse: `indices` int32 and `values` float32 [all terms]. Multi-vectors: `vectors`
    [all tokens, width]. The latter two with `lengths` int32 [count], of each row.

    Raises:
        ValueError: vectors of other numbers, or of another width, than `made` says.
    """
    if len(vectors) != count:
        raise ValueError(f"{len(vectors)} vectors for {count} rows")
    if made.task == "embed":
        return {"vectors": _numbers(vectors, made, count)}
    if made.task == "sparse":
        some: list[Any] = list(vectors)
        return {
            "lengths": np.array([len(one.indices) for one in some], number("int32")),
            "indices": _joined([one.indices for one in some], "int32"),
            "values": _joined([one.values for one in some], "float32"),
        }
    matrices = [_numbers(matrix, made) for matrix in vectors]
    return {
        "lengths": np.array([len(matrix) for matrix in matrices], number("int32")),
        "vectors": np.concatenate([_numbers((), made), *matrices]),
    }


def _numbers(values: Any, made: Made, rows: int | None = None) -> NDArray[Any]:
    """[rows, width] as `made` says."""
    wanted, width = number(made.dtype), width_of(made)
    if len(values) == 0:
        return np.empty((0, width), wanted)
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] != width or (rows is not None and len(array) != rows):
        raise ValueError(f"vectors of shape {array.shape} where they are {width} wide")
    return numbers(array, made)


def _joined(arrays: list[NDArray[Any]], name: str) -> NDArray[Any]:
    return np.concatenate([np.empty(0, number(name)), *arrays]).astype(number(name), copy=False)
