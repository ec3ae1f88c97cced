"""What becomes of each tensor of a model in each precision.

int8 is what `--dtype int8` computes with: the same matrices as 8-bit codes, by the same rounding (`ops/int8.py`), in
the layout of compressed-tensors (`hub/codes.py`). Nothing is calculated until a tensor is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError
from lemni.hub.codes import SCALE, ZERO, Codes
from lemni.hub.tensors import TensorStore
from lemni.ops.int8 import is_large_table, is_worth_it, quantize_rows
from lemni.tasks.output_types import convert

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
DTYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}
"""Precision -> the setting `dtype` that computes in it, and for floats what config.json calls it."""

_STORED: dict[Precision, tuple[str, int]] = {"fp32": ("F32", 4), "fp16": ("F16", 2), "bf16": ("BF16", 2)}
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Planned:
    """A tensor of the file that will be written.

    Attributes:
        dtype: the format's name: "F32", "I8" ...
        shape: of the tensor.
        size: its bytes.
        make: computes them, C-contiguous and little-endian.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    make: Callable[[], NDArray[Any]]


def plan(store: TensorStore, precision: Precision) -> list[list[Planned]]:
    """All tensors in file order, those that belong together (codes, scales, zero points) in one list."""
    named = set(store.names())
    sides = {name + side for name in named for side in (SCALE, ZERO) if _has_codes(store, name, named)}
    return [
        _codes(store, name) if _becomes_codes(store, name, named, precision) else [_one(store, name, named, precision)]
        for name in store.names()
        if name not in sides
    ]


def layers_of(plan: Iterable[Seq[Planned]]) -> list[str]:
    """Names of the layers whose weights became codes."""
    return [group[0].name.removesuffix(".weight") for group in plan if len(group) > 1]


def _has_codes(store: TensorStore, name: str, named: set[str]) -> bool:
    return store.dtype(name) == "I8" and name + SCALE in named


def _becomes_codes(store: TensorStore, name: str, named: set[str], precision: Precision) -> bool:
    if precision != "int8":
        return False
    if _has_codes(store, name, named):
        return True
    if store.dtype(name) not in _FLOATS or not name.endswith(".weight"):
        return False
    # By their names, as the shapes of positions and of layers are alike.
    return (is_large_table if "embed" in name.lower() else is_worth_it)(store.shape(name))


def _codes(store: TensorStore, name: str) -> list[Planned]:
    shape = store.shape(name)
    rows, kept = shape[0], _Kept(store, name)
    return [
        Planned(name, "I8", shape, rows * shape[1], lambda: kept.codes().codes),
        Planned(name + SCALE, "F32", (rows, 1), 4 * rows, lambda: kept.codes().scales),
        Planned(name + ZERO, "I8", (rows, 1), rows, lambda: kept.codes(last=True).zeros),
    ]


class _Kept:
    """The codes of one tensor, from the first of its parts to the last."""

    def __init__(self, store: TensorStore, name: str) -> None:
        self._store, self._name = store, name
        self._found: Codes | None = None

    def codes(self, *, last: bool = False) -> Codes:
        found = self._found
        if found is None:
            weight = self._store.weight(self._name)
            if not isinstance(weight, Codes) and not np.isfinite(weight).all():
                raise ConfigError(f"tensor {self._name!r} has values that are not finite: int8 has no codes for them")
            found = weight if isinstance(weight, Codes) else quantize_rows(weight)
        self._found = None if last else found
        return found


def _one(store: TensorStore, name: str, named: set[str], precision: Precision) -> Planned:
    """A tensor by itself: floats in the wanted type (with int8 as they are), all else as it is."""
    shape, stored = store.shape(name), store.dtype(name)
    unfolds = _has_codes(store, name, named)
    if precision == "int8" or (stored not in _FLOATS and not unfolds):
        return Planned(name, stored, shape, store.raw(name).nbytes, lambda: store.raw(name))
    dtype, width = _STORED[precision]
    if stored == dtype:
        return Planned(name, dtype, shape, store.raw(name).nbytes, lambda: store.raw(name))
    count = int(np.prod(shape, dtype=np.int64))
    return Planned(name, dtype, shape, count * width, lambda: _floats(name, store.numpy(name), precision))


def _floats(name: str, values: NDArray[Any], precision: Precision) -> NDArray[Any]:
    wide = values.astype(np.float32, copy=False)
    if precision == "fp32":
        return wide
    if precision == "bf16":
        patterns: NDArray[np.uint16] = convert(wide, "bfloat16")
        return patterns
    with np.errstate(over="ignore"):
        halves = wide.astype(np.float16)
    if np.isinf(halves).sum() > np.isinf(wide).sum():
        raise ConfigError(f"tensor {name!r} has values over 65504, float16's largest: choose bf16")
    return halves
