"""Reads what a model folder says about itself into a `ModelSpec`: modules, pooling, prompts, lengths, files.

sentence-transformers is the reference: a folder means here what `SentenceTransformer(folder)` makes of it. What
would need its code (custom modules, LSTM, ...) is refused by name. Loads no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from lemni.errors import ModelLoadError
from lemni.hub.dense_module import read_dense
from lemni.hub.graphs import GraphWish, choose_graph
from lemni.hub.jsonfile import read_json, read_json_value
from lemni.hub.kinds import kind_of, transformer_folder
from lemni.hub.lengths import max_length, tokenizer_side
from lemni.hub.spec import DenseLayer, ModelFiles, ModelSpec, PoolingMode
from lemni.hub.tensors import TensorStore
from lemni.hub.weights import file_names, weight_files

_TRANSFORMER_CONFIGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Keys of older pooling configs, in the order in which sentence-transformers concatenates the results.
_POOLING_KEYS: tuple[tuple[str, PoolingMode], ...] = (
    ("pooling_mode_cls_token", "cls"),
    ("pooling_mode_max_tokens", "max"),
    ("pooling_mode_mean_tokens", "mean"),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"),
    ("pooling_mode_weightedmean_tokens", "weightedmean"),
    ("pooling_mode_lasttoken", "lasttoken"),
)
# By kind: what sentence-transformers knows, its default first.
_SIMILARITIES: dict[str, tuple[str, ...]] = {
    "sparse": ("dot", "cosine", "euclidean", "manhattan"),
    "colbert": ("maxsim", "meanmaxsim"),
}
_OF_VECTORS = ("cosine", "dot", "euclidean", "manhattan")
_CAUSAL_TYPES = frozenset({"qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "phi3", "gpt2", "gpt_neox", "opt"})


@dataclass
class _Modules:
    """What `modules.json` and the folders that it names add up to."""

    transformer: Path
    static: bool = False
    pooling: tuple[PoolingMode, ...] | None = None
    include_prompt: bool = True
    dense: list[DenseLayer] = field(default_factory=list)
    normalize: bool = False
    notes: list[str] = field(default_factory=list)


def describe(files: ModelFiles, wish: GraphWish | None = None) -> ModelSpec:
    """All facts about the model in `files.path`, except its weights.

    Args:
        wish: which of its exported graphs to take; by default the most exact one.

    Raises:
        ModelLoadError: a file is missing or broken, the model needs a module that Lemni does not have, or there is no
            graph such as is wished for.
    """
    root = files.path
    if not root.is_dir():
        raise ModelLoadError(f"{root}: no such folder")
    kind = kind_of(root)
    # Other kinds put modules of their own on the transformer, which their part of `lemni.tasks` reads.
    modules = _modules(root) if kind == "dense" else _Modules(transformer=transformer_folder(root))
    folder = modules.transformer
    weights, pickle = weight_files(folder, "safetensors"), weight_files(folder, "pickle")
    graph = None if modules.static else _graph(folder, files, wish or GraphWish(), bool(weights), modules.notes)
    if not (weights or graph or pickle):
        raise ModelLoadError(
            f"{folder}: no weights: neither model.safetensors (or its shards) nor an ONNX file or OpenVINO's IR"
        )
    config = _config(folder, has_graph=graph is not None, static=modules.static)
    if modules.static or _is_model2vec(config, weights):
        model_type = "model2vec"
        if modules.pooling is None and not modules.static:
            modules.normalize = bool(config.get("normalize", False))
        modules.pooling = ("mean",)
    else:
        model_type = str(config.get("model_type") or "")
    architectures = tuple(config.get("architectures") or ())
    if modules.pooling is None and kind == "dense":
        modules.pooling = (_guess_pooling(config, model_type, architectures, modules.notes),)
    sentence = _sentence_config(root, _SIMILARITIES.get(kind, _OF_VECTORS))
    transformer = _first_json(folder, _TRANSFORMER_CONFIGS)
    tokenizer = _optional_json(folder / "tokenizer_config.json")
    truncate_dim = sentence.get("truncate_dim")
    return ModelSpec(
        files=files,
        config=config,
        model_type=model_type,
        architectures=architectures,
        transformer_path=folder,
        weights=weights,
        graph=graph,
        pickle=pickle[0] if pickle else None,
        pooling=modules.pooling or ("cls",),
        include_prompt=modules.include_prompt,
        dense=tuple(modules.dense),
        normalize=modules.normalize or kind in ("multimodal", "bge_m3", "colbert"),
        max_length=_max_length(model_type, modules, config, transformer, tokenizer),
        lower_case=bool(transformer.get("do_lower_case", False)),
        truncation_side=tokenizer_side("truncation", folder, transformer, tokenizer),
        padding_side=tokenizer_side("padding", folder, transformer, tokenizer),
        prompts=sentence["prompts"],
        default_prompt_name=sentence.get("default_prompt_name"),
        similarity=sentence["similarity_fn_name"],
        matryoshka_dimensions=_matryoshka(config, sentence),
        truncate_dim=truncate_dim if isinstance(truncate_dim, int) else None,
        kind=kind,
        notes=tuple(modules.notes),
    )


def _modules(root: Path) -> _Modules:
    listing = root / "modules.json"
    if not listing.exists():
        return _Modules(transformer=root)
    entries = read_json_value(listing)
    if not (isinstance(entries, list) and entries and all(isinstance(e, dict) and "type" in e for e in entries)):
        raise ModelLoadError(f"{listing}: expected a list of modules, each with a type and a path")
    found = _Modules(transformer=root)
    for position, entry in enumerate(entries):
        kind = str(entry["type"])
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or name not in _READERS:
            raise ModelLoadError(
                f"{listing}: the module {kind!r} is not supported; supported are {', '.join(sorted(_READERS))} "
                "of sentence_transformers"
            )
        if (position == 0) != (name in ("Transformer", "StaticEmbedding")):
            raise ModelLoadError(f"{listing}: the first module, and only it, must be Transformer or StaticEmbedding")
        if found.normalize and name == "Dense":
            raise ModelLoadError(f"{listing}: Normalize before Dense is not supported")
        _READERS[name](found, root / str(entry.get("path", "")))
    if found.pooling is None and not found.static:
        raise ModelLoadError(f"{listing}: has no Pooling module, so it does not say how tokens become one vector")
    return found


def _read_transformer(found: _Modules, path: Path) -> None:
    found.transformer = path


def _read_static(found: _Modules, path: Path) -> None:
    found.transformer, found.static = path, True


def _read_pooling(found: _Modules, path: Path) -> None:
    file = path / "config.json"
    config = read_json(file)
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _POOLING_KEYS if config.get(key)] or ["mean"]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if unknown := [mode for mode in modes if mode not in get_args(PoolingMode)]:
        known = ", ".join(get_args(PoolingMode))
        raise ModelLoadError(f"{file}: unknown pooling mode {unknown[0]!r}; known are {known}")
    found.pooling = cast("tuple[PoolingMode, ...]", modes)
    found.include_prompt = bool(config.get("include_prompt", True))


def _read_dense(found: _Modules, path: Path) -> None:
    found.dense.append(read_dense(path, ("sentence_embedding",), found.notes))


def _read_normalize(found: _Modules, path: Path) -> None:
    found.normalize = True


def _read_nothing(found: _Modules, path: Path) -> None:
    """Dropout does nothing when a model is not being trained."""


_READERS: dict[str, Callable[[_Modules, Path], None]] = {
    "Transformer": _read_transformer,
    "StaticEmbedding": _read_static,
    "Pooling": _read_pooling,
    "Dense": _read_dense,
    "Normalize": _read_normalize,
    "Dropout": _read_nothing,
}


def _max_length(
    model_type: str, modules: _Modules, config: dict[str, Any], transformer: dict[str, Any], tokenizer: dict[str, Any]
) -> int | None:
    if model_type != "model2vec":
        return max_length(config, transformer, tokenizer)
    # model2vec's `encode` cuts at 512 tokens unless its config says otherwise; StaticEmbedding never cuts.
    return None if modules.static else int(config.get("max_length") or 512)


def _config(folder: Path, has_graph: bool, static: bool) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists() and (has_graph or static):
        return {}
    return read_json(file)


def _graph(folder: Path, files: ModelFiles, wish: GraphWish, has_weights: bool, notes: list[str]) -> Path | None:
    if files.graph is not None:
        wish = replace(wish, file=files.graph, needed=True)
    try:
        name, why = choose_graph(file_names(folder), wish, folder)
    except ModelLoadError:
        if has_weights and not wish.needed:
            return None  # nobody asks for it
        raise
    if why and (wish.needed or not has_weights):
        notes.append(why)
    return folder / name if name else None


def _is_model2vec(config: dict[str, Any], weights: Sequence[Path]) -> bool:
    if config.get("model_type") or config.get("architectures"):
        return config.get("model_type") == "model2vec"
    # Older model2vec folders do not say so in config.json.
    return len(weights) == 1 and "embeddings" in TensorStore(weights)


def _guess_pooling(
    config: dict[str, Any], model_type: str, architectures: tuple[str, ...], notes: list[str]
) -> PoolingMode:
    causal_head = bool(architectures) and architectures[0].endswith("ForCausalLM")
    if config.get("is_causal", True) and (causal_head or model_type in _CAUSAL_TYPES):
        notes.append(f"no modules.json: the last token's vector is taken, because {model_type} is a causal decoder")
        return "lasttoken"
    notes.append("no modules.json: token vectors are averaged (mean pooling)")
    if bool(architectures) and architectures[0].endswith("ForMaskedLM"):
        notes.append("it has a masked-LM head: if it is a SPLADE model, say so with --pooling splade")
    return "mean"


def _sentence_config(root: Path, similarities: tuple[str, ...]) -> dict[str, Any]:
    file = root / "config_sentence_transformers.json"
    config = _optional_json(file)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(t, str | None) for t in prompts.values()):
        raise ModelLoadError(f"{file}: prompts must map names to texts")
    prompts = {name: text or "" for name, text in prompts.items()}
    default = config.get("default_prompt_name")
    # sentence-transformers knows these two, empty, where the files do not say.
    if default in ("query", "document") and default not in prompts:
        default = None
    if default is not None and default not in prompts:
        raise ModelLoadError(f"{file}: default_prompt_name {default!r} is not one of the prompts: {sorted(prompts)}")
    own = config.get("similarity_fn_name")
    return {
        **config,
        "prompts": prompts,
        "default_prompt_name": default,
        "similarity_fn_name": own if own in similarities else similarities[0],
    }


def _matryoshka(config: dict[str, Any], sentence: dict[str, Any]) -> tuple[int, ...]:
    listed = config.get("matryoshka_dimensions") or sentence.get("matryoshka_dimensions")
    if isinstance(listed, list):
        return tuple(sorted(n for n in listed if isinstance(n, int)))
    return (sentence["truncate_dim"],) if isinstance(sentence.get("truncate_dim"), int) else ()


def _first_json(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    return next((found for name in names if (found := _optional_json(folder / name))), {})


def _optional_json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
