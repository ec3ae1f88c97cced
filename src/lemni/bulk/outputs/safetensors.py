""".safetensors: the tensors of one file.

Dense: `embeddings` [rows, width]. Sparse and multi-vectors: the arrays of .npz. Ids: `ids` int64 [rows], or, where one
is a text, `ids_utf8` uint8 [bytes] and `ids_offsets` int64 [rows + 1], between two of which an id's UTF-8 stands.
Model, revision, task and output type are in the metadata.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path

from lemni.bulk.outputs import tensors
from lemni.bulk.outputs.arrays import ArrayOutput, Ids, id_arrays, vector_arrays
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import placed_file
from lemni.bulk.outputs.facts import facts_of


class SafeTensors(ArrayOutput):
    format = "safetensors"
    ending = ".safetensors"

    def join(self, parts: Seq[Path], plan: Ids, made: Made) -> list[Path]:
        stored = [tensors.read(part)[0] for part in parts]
        vectors = vector_arrays(stored, made)
        if made.task == "embed":
            vectors = [replace(vectors[0], name="embeddings")]
        with placed_file(self.path) as file:
            tensors.write(file, [*vectors, *id_arrays(stored, plan, even=False)], facts_of(made))
        return [self.path]
