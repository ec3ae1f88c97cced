"""`--format numpy`: float32 .npy as `migrate_embeddings.py` writes it, and beside it the same name with .json:
`{"model", "dimension", "num_embeddings", "texts_file": null}`. The ids are beside them too, as with .npy."""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path

from lemni.bulk.outputs import tensors
from lemni.bulk.outputs.arrays import Ids
from lemni.bulk.outputs.base import Made
from lemni.bulk.outputs.drafts import placed_file
from lemni.bulk.outputs.npy import Npy


class NumpyJson(Npy):
    format = "numpy"
    output_types = ("float32",)

    def files(self) -> list[Path]:
        return [*super().files(), self.path.with_suffix(".json")]

    def join(self, parts: Seq[Path], plan: Ids, made: Made) -> list[Path]:
        about = self.path.with_suffix(".json")
        described = {
            "model": made.model,
            "dimension": made.dimensions,
            "num_embeddings": sum(tensors.read(part)[0]["vectors"].shape[0] for part in parts),
            "texts_file": None,
        }
        with placed_file(about) as file:
            file.write(json.dumps(described, indent=2, ensure_ascii=False).encode())
        return [*super().join(parts, plan, made), about]
