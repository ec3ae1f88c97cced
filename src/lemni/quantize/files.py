"""Writes safetensors files one tensor at a time, so that no model is in memory as a whole.

Own code because the safetensors library wants all tensors at once, and its numpy side has no bfloat16. Format:
https://github.com/huggingface/safetensors#format; shards and their index as transformers names them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence as Seq
from pathlib import Path

from lemni.errors import InternalError
from lemni.quantize.precisions import Planned

SHARD_BYTES = 5_000_000_000
"""A file's tensors are no larger together, unless one is by itself; transformers' limit of old."""


def write_weights(folder: Path, plan: Seq[Seq[Planned]], shard_bytes: int = SHARD_BYTES) -> list[Path]:
    """model.safetensors, or shards with their index where it would be too large; the weight files.

    Args:
        plan: tensors in groups that stay in one file.

    Raises:
        ConfigError: values that the precision cannot hold.
    """
    shards: list[list[Planned]] = [[]]
    size = 0
    for group in plan:
        added = sum(tensor.size for tensor in group)
        if shards[-1] and size + added > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].extend(group)
        size += added
    if len(shards) == 1:
        _write(folder / "model.safetensors", shards[0])
        return [folder / "model.safetensors"]
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, tensors in zip(names, shards, strict=True):
        _write(folder / name, tensors)
    index = {
        "metadata": {"total_size": sum(tensor.size for shard in shards for tensor in shard)},
        "weight_map": {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return [folder / name for name in names]


def _write(path: Path, tensors: Seq[Planned]) -> None:
    # transformers reads only files that say whose layout of arrays they have.
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    # Wide types first, as the reference implementation writes them, so that every tensor is aligned to its type. The
    # order is otherwise kept: what belongs together shares what is computed for it.
    places: dict[str, int] = {}
    for tensor in sorted(tensors, key=lambda one: -_width(one)):
        places[tensor.name] = end
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [end, end + tensor.size],
        }
        end += tensor.size
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    with path.open("wb") as file:
        file.write(len(words).to_bytes(8, "little") + words)
        start = file.tell()
        file.truncate(start + end)
        for tensor in tensors:
            made = tensor.make()
            if made.nbytes != tensor.size:
                raise InternalError(f"{path}: {made.nbytes} bytes of {tensor.name!r} instead of {tensor.size}")
            file.seek(start + places[tensor.name])
            file.write(made.reshape(-1).data)


def _width(tensor: Planned) -> int:
    values = 1
    for axis in tensor.shape:
        values *= axis
    return tensor.size // values if values else 8
