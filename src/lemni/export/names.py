"""What the weights of an exported graph are called: as in the model's own files, also where several became one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.hub.codes import floats_of
from lemni.hub.tensors import TensorStore

_REMEMBERED = 16  # families make constants soon after they read


class NamedStore(TensorStore):
    """A store that knows what the arrays are that it gave out lately."""

    def __init__(self, paths: Seq[Path]) -> None:
        super().__init__(paths)
        self._given: deque[tuple[str, NDArray[Any]]] = deque(maxlen=_REMEMBERED)

    def weight(self, name: str) -> NDArray[Any]:
        """The tensor as floats, also where it is stored as codes."""
        array = floats_of(super().weight(name))
        self._given.append((name, array))
        return array

    def name_of(self, array: NDArray[Any]) -> str | None:
        """The tensor that an array is, or is a part of; several by what they have in common and what they differ in.

        `encoder.layer.0.attention.self.query_key_value.weight` of `...self.query.weight`, `...self.key.weight` and so
        on. None for what was computed.
        """
        names = [name for name, given in self._given if np.may_share_memory(array, given)]
        return names[-1] if names else self._joined(array)

    def _joined(self, array: NDArray[Any]) -> str | None:
        given = list(self._given)
        for end in range(len(given), 0, -1):
            rows = 0
            for start in range(end - 1, -1, -1):
                part = given[start][1]
                if part.ndim == 0 or part.ndim != array.ndim or part.shape[1:] != array.shape[1:]:
                    break
                rows += len(part)
                if rows == len(array) and np.array_equal(part[:1], array[:1]):
                    return _common([name for name, _ in given[start:end]])
                if rows >= len(array):
                    break
        return None


def _common(names: Seq[str]) -> str:
    paths = [name.split(".") for name in names]
    same = [len(set(column)) == 1 for column in zip(*paths, strict=False)]
    if len(set(map(len, paths))) > 1 or same.count(False) != 1:
        return f"{names[0].rpartition('.')[0]}.joined"
    place = same.index(False)
    joined = "_".join(path[place] for path in paths)
    return ".".join([*paths[0][:place], joined, *paths[0][place + 1 :]])
