"""Exported graphs of a folder: ONNX files and OpenVINO's IR, and which of them is taken.

Exporters (optimum, transformers.js, sentence-transformers, fastembed) put many into one folder, each for another
precision or CPU, and say so only in the names. Works on relative names, for folders on disk and listings of the hub.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lemni.errors import ModelLoadError


@dataclass(frozen=True)
class GraphWish:
    """What is asked of a folder's exported graphs.

    Attributes:
        dtype: the setting; int8 and float16 want a file of that precision, all else the most exact one.
        file: the one to take, relative to the folder; None chooses by rule.
        needed: a graph is to run even if there are other weights.
    """

    dtype: str = "auto"
    file: str | None = None
    needed: bool = False


@dataclass(frozen=True)
class _Form:
    """What the words of a name say about a file.

    Attributes:
        precision: "float32", "float16", "int8" or "4-bit".
        words: for people.
        rank: order among those of one precision, the best first; None for a file that is not for this CPU.
    """

    precision: str
    words: str
    rank: int | None = 0


# Words that stand between the parts of a name, by precision; the best first.
_FOUR_BITS = ("q4", "int4", "uint4", "q4f16", "bnb4", "q2", "q2f16", "q1", "q1f16")
_EIGHT_BITS = ("quantized", "quantised", "quant", "q8", "int8", "qint8", "uint8", "quint8")
_HALF = ("fp16", "float16", "half", "o4")  # optimum's O4 is its O3 in float16
_OPTIMISED = ("optimized", "optimised", "o2", "o1", "o3")  # O3 replaces GELU by an approximation
_NOT_MODELS = re.compile(r"(openvino_(de)?tokenizer|decoder\w*|vision_model\w*|audio_model\w*)\.(onnx|xml)")
_PREFERENCE = ("float32", "float16", "int8", "4-bit")


def graphs(names: Iterable[str]) -> list[str]:
    """The names that are exported graphs, in the folder or its `onnx` and `openvino`; ONNX first, else sorted."""
    names = set(names)
    found = [name for name in names if _is_graph(name, names)]
    return sorted(found, key=lambda name: (name.endswith(".xml"), name))


def _is_graph(name: str, names: set[str]) -> bool:
    folder, _, file = name.rpartition("/")
    if _NOT_MODELS.fullmatch(file):
        return False
    if file.endswith(".onnx"):
        return folder in ("", "onnx")
    return file.endswith(".xml") and folder in ("", "openvino") and f"{name.removesuffix('.xml')}.bin" in names


def choose_graph(names: Iterable[str], wish: GraphWish, where: object) -> tuple[str | None, str | None]:
    """The graph to take, and a sentence on why it and not another; no graph if there is none and none is needed.

    Args:
        where: what the names are of, for messages.

    Raises:
        ModelLoadError: none is what is wished for, or several are and nothing says which.
    """
    names = list(names)
    there = graphs(names)
    listed = ", ".join(there) or "none"
    if wish.file is not None:
        if wish.file not in there:
            raise ModelLoadError(f"{where}: no exported graph {wish.file!r}; there are {listed}")
        return wish.file, None
    if not there:
        if wish.needed:
            raise ModelLoadError(f"{where}: no exported graph (an ONNX file or OpenVINO's IR), which is asked for")
        return None, None
    # IR is taken only where there is no ONNX file: one kind, so that names alone decide.
    kind = [name for name in there if name.endswith(".xml") == there[0].endswith(".xml")]
    forms = {name: _form(name) for name in kind}
    for precision in _wanted(wish.dtype):
        fitting = [name for name, form in forms.items() if form.precision == precision and form.rank is not None]
        if not fitting:
            continue
        best = min(fitting, key=lambda name: (forms[name].rank, _plainness(name)))
        rivals = [name for name in fitting if _order(name, forms) == _order(best, forms)]
        if len(rivals) > 1:
            raise ModelLoadError(
                f"{where}: several graphs, and no name says which to take: {', '.join(rivals)}; choose by --graph-file"
            )
        if len(there) == 1:
            return best, None
        return best, f"of {len(there)} exported graphs {best} is taken: {forms[best].words}"
    what = f"in {wish.dtype}" if wish.dtype in ("int8", "float16") else "for this CPU"
    raise ModelLoadError(f"{where}: no exported graph {what}; there are {listed}: choose by --graph-file")


def graph_parts(names: Iterable[str], graph: str) -> set[str]:
    """The graph and its weights beside it. External data of an ONNX file may have any name, but not another's."""
    names = set(names)
    folder = graph.rpartition("/")[0]
    if graph.endswith(".xml"):
        return {graph, f"{graph.removesuffix('.xml')}.bin"} & names
    own = {name for name in names if name.startswith((f"{graph}_data", f"{graph}.data"))} | {graph}
    if folder:
        others = tuple(name for name in names if name.endswith(".onnx") and name != graph)
        beside = {name for name in names if name.rpartition("/")[0] == folder}
        own |= {name for name in beside if not name.startswith(others)}
    return own


def precision_of(graph: Path) -> str:
    """What the name of a graph says: "float32" (also where it says nothing), "float16", "int8" or "4-bit"."""
    return _form(graph.name).precision


def _wanted(dtype: str) -> tuple[str, ...]:
    # A plain name says nothing of what is inside: whether that holds 8-bit weights is seen when it is read.
    return {"int8": ("int8", "float32"), "float16": ("float16",)}.get(dtype, _PREFERENCE)


def _order(name: str, forms: dict[str, _Form]) -> tuple[int | None, int]:
    return forms[name].rank, _plainness(name)


def _plainness(name: str) -> int:
    """Names that exporters give first: an `onnx/model.onnx` is preferred to a `model.onnx`, that to a `net.onnx`."""
    folder, _, file = name.rpartition("/")
    usual = file.startswith(("model.", "model_", "openvino_model."))
    return (0 if usual else 2) + (0 if folder else 1)


def _form(name: str) -> _Form:
    stem = name.rpartition("/")[2].rpartition(".")[0].lower()
    words = re.split(r"[^a-z0-9]+", stem)
    if (rank := _first(_FOUR_BITS, words)) is not None:
        return _Form("4-bit", "one with weights of 4 bits", rank)
    if (rank := _first(_EIGHT_BITS, words)) is not None:
        return _eight_bits(words, rank)
    if (rank := _first(_HALF, words)) is not None:
        return _Form("float16", "one in float16", rank)
    if (rank := _first(_OPTIMISED, words)) is not None:
        return _Form("float32", "an optimised one in float32", 1 + rank)
    return _Form("float32", "the plain one")


def _first(known: tuple[str, ...], words: list[str]) -> int | None:
    return next((rank for rank, word in enumerate(known) if word in words), None)


def _eight_bits(words: list[str], rank: int) -> _Form:
    built_for = next((word for word in ("arm64", "vnni", "avx512", "avx2") if word in words), None)
    if built_for is None:
        return _Form("int8", "one with weights of 8 bits", rank)
    text, here = f"one with weights of 8 bits for {built_for}", _cpu_words()
    if built_for not in here:
        return _Form("int8", text, None)
    # Without VNNI sums of 8-bit products can overflow, unless the file was made with smaller numbers, as for AVX2.
    avx2 = len(_EIGHT_BITS) if "vnni" in here else -3
    return _Form("int8", text, {"arm64": -2, "vnni": -2, "avx512": -1, "avx2": avx2}[built_for])


@cache
def _cpu_words() -> frozenset[str]:
    """Which of the CPUs that 8-bit graphs are made for this one is."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return frozenset(("arm64",))
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = {"avx2"}
    found = {word for word, flag in (("avx2", "avx2"), ("avx512", "avx512f"), ("vnni", "avx512_vnni")) if flag in flags}
    return frozenset(found)
