"""Which files of a folder hold weights: one row per layout, the first complete one wins.

Of exported graphs `graphs.py` chooses. Used to describe a model, to see whether a cached copy is complete, and to
choose what to download. Works on relative names, so that the same rows serve a folder on disk and a listing of the hub.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lemni.errors import ModelLoadError
from lemni.hub.graphs import GraphWish, choose_graph, graph_parts, graphs
from lemni.hub.jsonfile import read_json


@dataclass(frozen=True)
class Layout:
    """One way to lay out weights in a folder.

    Attributes:
        kind: "safetensors", "graph" (exported: ONNX, OpenVINO) or "pickle".
        pattern: glob of the file that marks the layout, relative to the folder.
        parts: globs of the files that belong to it; all of them are downloaded. Those of a graph have a rule.
        sharded: the marked file is an index whose `weight_map` names the parts.
    """

    kind: str
    pattern: str
    parts: tuple[str, ...]
    sharded: bool = False


LAYOUTS = (
    Layout("safetensors", "model.safetensors", ("model.safetensors",)),
    Layout("safetensors", "model.safetensors.index.json", ("model-*-of-*.safetensors",), sharded=True),
    Layout("safetensors", "*.safetensors", ("*.safetensors",)),
    Layout("graph", "onnx/*.onnx", ()),
    Layout("graph", "*.onnx", ()),
    Layout("graph", "openvino/openvino_model*.xml", ()),
    Layout("graph", "openvino_model*.xml", ()),
    Layout("pickle", "pytorch_model.bin", ("pytorch_model.bin",)),
    Layout("pickle", "pytorch_model.bin.index.json", ("pytorch_model-*-of-*.bin",), sharded=True),
)
KINDS = ("safetensors", "graph", "pickle")


def match(names: Iterable[str], pattern: str) -> list[str]:
    """Names that fit a glob, sorted; `*` does not cross a folder; neither adapters nor BGE-M3's extra layers are the
    weights of a model."""
    depth = pattern.count("/")
    hits = (n for n in names if n.count("/") == depth and fnmatch.fnmatchcase(n, pattern))
    return sorted(n for n in hits if not n.startswith(("adapter_", "sparse_linear.", "colbert_linear.")))


def find(names: Iterable[str], kind: str) -> Layout | None:
    """The first layout of this kind that a folder with these relative names has."""
    names = list(names)
    return next((row for row in LAYOUTS if row.kind == kind and match(names, row.pattern)), None)


def parts_of(names: Iterable[str], row: Layout, wish: GraphWish | None = None) -> set[str]:
    """All names that belong to a layout; of graphs, to the one that is wished for.

    Raises:
        ModelLoadError: no graph is the one that is wished for.
    """
    names = list(names)
    if row.kind == "graph":
        graph, _ = choose_graph(names, wish or GraphWish(), "the model")
        return graph_parts(names, graph) if graph else set()
    return {name for pattern in (row.pattern, *row.parts) for name in match(names, pattern)}


def file_names(folder: Path) -> list[str]:
    """Relative names of the files in a folder and in its folders of exported graphs."""
    places = (folder.glob("*"), folder.glob("onnx/*"), folder.glob("openvino/*"))
    return [path.relative_to(folder).as_posix() for place in places for path in place if path.is_file()]


def weight_files(folder: Path, kind: str) -> tuple[Path, ...]:
    """Files of this kind in the folder: all shards, or one file, or nothing; of graphs all there are.

    Raises:
        ModelLoadError: a shard that the index names is missing, or several files and nothing says which.
    """
    names = file_names(folder)
    if kind == "graph":
        return tuple(folder / name for name in graphs(names))
    row = find(names, kind)
    if row is None:
        return ()
    marks = match(names, row.pattern)
    if row.sharded:
        return _shards(folder, folder / marks[0])
    if len(marks) > 1:
        raise ModelLoadError(f"{folder}: several {kind} files and none is named model.{kind}: {', '.join(marks)}")
    return (folder / marks[0],)


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelLoadError(f"{index}: has no weight_map")
    shards = sorted({str(name) for name in weight_map.values()})
    if foreign := [name for name in shards if "/" in name or "\\" in name]:
        raise ModelLoadError(f"{index}: names files outside its folder: {', '.join(foreign)}")
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise ModelLoadError(
            f"{folder}: {len(missing)} of {len(shards)} weight files are missing: {', '.join(missing)}"
        )
    return tuple(folder / name for name in shards)
