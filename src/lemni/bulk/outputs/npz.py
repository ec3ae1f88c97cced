""".npz: an archive of arrays, as `numpy.savez` writes it.

Dense: `vectors` [rows, width]. Sparse: `indices` int32 and `values` float32, end to end. Multi-vectors: `vectors`
[all tokens, width]. The latter two with `lengths` int32 [rows]. All with `ids`: int64 [rows] or texts of equal width;
if an id is over 256 characters long `ids_utf8` and `ids_offsets`, as beside .npy.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from lemni.bulk.outputs import tensors
from lemni.bulk.outputs.arrays import ArrayOutput, Ids, id_arrays, vector_arrays
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import placed_file
from lemni.bulk.outputs.tensors import Array

_WHEN = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever it is written


class Npz(ArrayOutput):
    format = "npz"
    ending = ".npz"

    def join(self, parts: Seq[Path], plan: Ids, made: Made) -> list[Path]:
        stored = [tensors.read(part)[0] for part in parts]
        with placed_file(self.path) as file:
            save(file, [*vector_arrays(stored, made), *id_arrays(stored, plan, even=True)])
        return [self.path]


def save(file: BinaryIO, arrays: Seq[Array]) -> None:
    """numpy.savez of arrays in pieces."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for array in arrays:
            # Sizes are not known to it before the end: room for those over 4 GB.
            with archive.open(zipfile.ZipInfo(f"{array.name}.npy", _WHEN), "w", force_zip64=True) as member:
                write_npy(member, array)


def write_npy(file: IO[bytes], array: Array) -> None:
    """numpy's own format, version 1.0."""
    np.lib.format.write_array_header_1_0(file, {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape})
    for some in array.chunks():
        file.write(some)
