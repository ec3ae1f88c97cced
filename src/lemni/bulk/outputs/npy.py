""".npy: the vectors [rows, width], with the ids beside them.

`vectors.npy` has `vectors.ids.npy`: int64 [rows], or texts of equal width (`<U…`), so that both can be memory-mapped
and neither needs pickle. Only where an id is over 256 characters long the ids are `vectors.ids.npz` instead, with
`ids_utf8` uint8 and `ids_offsets` int64 [rows + 1]: id i is
`bytes(ids_utf8[ids_offsets[i]:ids_offsets[i + 1]]).decode()`.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from contextlib import ExitStack
from pathlib import Path

from lemni.bulk.outputs import tensors
from lemni.bulk.outputs.arrays import ArrayOutput, Ids, id_arrays, vector_arrays
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import placed_file, remove
from lemni.bulk.outputs.npz import save, write_npy


class Npy(ArrayOutput):
    format = "npy"
    ending = ".npy"
    tasks = ("embed",)

    def files(self) -> list[Path]:
        return [self.path, self._ids("npy"), self._ids("npz")]

    def join(self, parts: Seq[Path], plan: Ids, made: Made) -> list[Path]:
        stored = [tensors.read(part)[0] for part in parts]
        ids = id_arrays(stored, plan, even=True)
        place, other = self._ids("npy"), self._ids("npz")
        if len(ids) > 1:
            place, other = other, place
        # The main file is the last to appear.
        with ExitStack() as stack:
            main, beside = (stack.enter_context(placed_file(path)) for path in (self.path, place))
            for array in vector_arrays(stored, made):
                write_npy(main, array)
            if len(ids) > 1:
                save(beside, ids)
            else:
                write_npy(beside, ids[0])
        remove(other)  # of a run before this one
        return [self.path, place]

    def _ids(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.ids.{ending}")
