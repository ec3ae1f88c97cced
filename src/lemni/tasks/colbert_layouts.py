"""What a folder says about a late-interaction model: projection, markers, expansion, lengths, what is left out.

Two layouts: Stanford's (`linear.weight` among the encoder's weights, `artifact.metadata`) and `modules.json`, as
PyLate and sentence-transformers save it. Both mean here what `MultiVectorEncoder(folder)` makes of them (sentence-
transformers 6.2, `multi_vector_encoder/model.py`). Called by `colbert.py`.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lemni.errors import ModelLoadError
from lemni.hub.dense_module import read_dense
from lemni.hub.jsonfile import read_json, read_json_value
from lemni.hub.spec import DenseLayer, ModelSpec
from lemni.hub.tensors import TensorStore

_QUERY_LENGTH = 32  # where ColBERT's files do not say


@dataclass(frozen=True)
class Expansion:
    """Queries are filled up with a token.

    Attributes:
        length: tokens that every query has at least.
        fixed: and at most.
        attend: whether the query's own tokens attend to those added.
        token: None takes the tokenizer's mask token, else its end token.
    """

    length: int
    fixed: bool = True
    attend: bool = False
    token: str | None = None


@dataclass(frozen=True)
class Layout:
    """Attributes:
    layers: the projection; empty where the hidden states are the vectors.
    normalize: whether rows have unit length.
    prompts: what goes before queries and documents, markers included; more of them, if the files name more.
    markers: those that are single tokens, if the tokenizer knows them.
    query_length, document_length: tokens at most; None leaves it to the model. Queries with an `expansion` that is
        fixed have that length.
    left_out: words whose rows are dropped, if they are single tokens, on the `left_out_sides`.
    kept_ids: the only tokens whose rows are kept on all sides but the query's; None keeps all.
    """

    layers: tuple[DenseLayer, ...]
    normalize: bool
    prompts: dict[str, str]
    markers: tuple[str, ...] = ()
    expansion: Expansion | None = None
    query_length: int | None = None
    document_length: int | None = None
    left_out: tuple[str, ...] = ()
    left_out_sides: frozenset[str] = frozenset(("document",))
    kept_ids: tuple[int, ...] | None = None


def read_layout(spec: ModelSpec) -> Layout:
    """Raises ModelLoadError for a file that is missing or broken, or modules that Lemni does not have."""
    return next(read for is_it, read in _LAYOUTS if is_it(spec.files.path))(spec)


def _stanford(spec: ModelSpec) -> Layout:
    """Reference also: stanford-futuredata/ColBERT, `modeling/hf_colbert.py`, `infra/config/settings.py`."""
    metadata = _json(spec.files.path / "artifact.metadata")
    stated = _json(spec.files.path / "config_sentence_transformers.json").get("prompts") or {}
    query = f"{metadata.get('query_token_id') or '[unused0]'} "
    document = f"{metadata.get('doc_token_id') or '[unused1]'} "
    prompts = dict(spec.prompts)
    for side, marker in (("query", query), ("document", document)):
        if stated.get(side) is None:
            prompts[side] = marker
    return Layout(
        layers=(_linear_beside_the_encoder(spec),),
        normalize=True,
        prompts=prompts,
        markers=(query, document),
        expansion=Expansion(
            _length(metadata.get("query_maxlen"), "query_maxlen") or _QUERY_LENGTH,
            attend=bool(metadata.get("attend_to_mask_tokens")),
        ),
        document_length=_length(metadata.get("doc_maxlen"), "doc_maxlen"),
        left_out=tuple(string.punctuation) if metadata.get("mask_punctuation", True) else (),
    )


def _linear_beside_the_encoder(spec: ModelSpec) -> DenseLayer:
    for file in spec.weights:
        store = TensorStore([file])
        if "linear.weight" in store:
            outputs, inputs = store.numpy("linear.weight").shape
            return DenseLayer(file, inputs, outputs, bias=False, activation="Identity")
    raise ModelLoadError(
        f"{spec.files.id}: no linear.weight in its safetensors files, which ColBERT's projection must be in "
        "(pickled weights are not read for it)"
    )


def _modules(spec: ModelSpec) -> Layout:
    root = spec.files.path
    sentence = _json(root / "config_sentence_transformers.json")
    transformer = _transformer_config(spec)
    model_type = sentence.get("model_type")
    found = _read_modules(root, converted=model_type not in ("ColBERT", "MultiVectorEncoder"))
    prefixes = {key: sentence[f"{key}_prefix"] or "" for key in ("query", "document") if f"{key}_prefix" in sentence}
    prompts = {"query": "", "document": "", **spec.prompts}
    for side, prefix in prefixes.items():
        prompts[side] = prefix + prompts[side].removeprefix(prefix)
    if found.mask is None and model_type != "MultiVectorEncoder":
        # PyLate's own: both were a part of its code, not of its files.
        words = sentence.get("skiplist_words")
        default = list(string.punctuation) if prefixes or model_type == "ColBERT" else []
        found.mask = {"skiplist_words": default if words is None else words}
        found.normalize = True
    expansion, query_length = _expansion(sentence, transformer)
    if expansion is not None and found.mask is None:
        raise ModelLoadError(f"{root}: queries are expanded, but no MultiVectorMask says that the expansion counts")
    mask = found.mask or {}
    sides = mask.get("skiplist_tasks", ["document"])
    kept = mask.get("keep_only_token_ids")
    return Layout(
        layers=tuple(found.layers),
        normalize=found.normalize,
        prompts=prompts,
        markers=tuple(prefixes.values()),
        expansion=expansion,
        query_length=query_length,
        document_length=_length(_either("document_length", transformer, sentence), "document_length"),
        left_out=tuple(mask.get("skiplist_words") or ()),
        left_out_sides=frozenset([sides] if isinstance(sides, str) else sides),
        kept_ids=tuple(kept) if kept else None,
    )


_LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[ModelSpec], Layout]], ...] = (
    (lambda root: (root / "modules.json").exists(), _modules),
    (lambda root: True, _stanford),
)


@dataclass
class _Found:
    """What `modules.json` and the folders that it names add up to.

    Attributes:
        mask: the config of its MultiVectorMask.
    """

    layers: list[DenseLayer]
    normalize: bool = False
    mask: dict[str, Any] | None = None


def _read_modules(root: Path, *, converted: bool) -> _Found:
    """`converted`: a SentenceTransformer, whose pooling is left out and whose other modules are for tokens here."""
    listing = root / "modules.json"
    names = ("token_embeddings", "sentence_embedding") if converted else ("token_embeddings",)
    found = _Found([])
    notes: list[str] = []
    for position, entry in enumerate(read_json_value(listing)):
        kind = str(entry.get("type"))
        name = kind.rpartition(".")[2]
        path = root / str(entry.get("path", ""))
        ours = kind.startswith(("sentence_transformers.", "pylate."))
        if (position == 0) != (ours and name == "Transformer"):
            raise ModelLoadError(f"{listing}: the first module, and only it, must be Transformer, not {kind!r}")
        if ours and name == "Dense" and not found.normalize:
            found.layers.append(read_dense(path, names, notes))
        elif ours and name == "Normalize":
            reads = _json(path / "config.json").get("module_input_name", "sentence_embedding")
            found.normalize = found.normalize or reads == "token_embeddings"
        elif ours and name == "MultiVectorMask" and found.mask is None:
            found.mask = _json(path / "config.json")
        elif ours and name == "HierarchicalTokenPooling" and _pools_nothing(path, found):
            pass
        elif not (position == 0 or (ours and name == "Dropout") or (ours and name == "Pooling" and converted)):
            raise ModelLoadError(
                f"{listing}: the module {kind!r} is not supported here; supported are Transformer, then Dense, then "
                "MultiVectorMask and Normalize"
            )
    if converted and not found.layers:
        raise ModelLoadError(f"{listing}: has no Dense module, so it is no late-interaction model")
    return found


def _pools_nothing(path: Path, found: _Found) -> bool:
    config = _json(path / "config.json")
    return config.get("pool_factor", 1) <= 1 and (found.normalize or not config.get("normalize_embeddings"))


def _expansion(sentence: dict[str, Any], transformer: dict[str, Any]) -> tuple[Expansion | None, int | None]:
    """The expansion of queries and their length: what the transformer's file says, else PyLate's keys."""
    query_length = _length(_either("query_length", transformer, sentence), "query_length")
    for source in (transformer, sentence):
        if "query_expansion" in source:
            own = source["query_expansion"]
            return (None if own is None else _own_expansion(own)), query_length
    marks = (
        "query_length", "document_length", "do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens",
        "query_prefix", "document_prefix", "skiplist_words",
    )  # fmt: skip
    if sentence.get("do_query_expansion") is False or not any(mark in sentence for mark in marks):
        return None, query_length
    attend = sentence.get("attend_to_expansion_tokens", sentence.get("attend_to_mask_tokens"))
    length = _length(sentence.get("query_length"), "query_length") or _QUERY_LENGTH
    return Expansion(length, attend=bool(attend)), None


def _own_expansion(config: Any) -> Expansion:
    """sentence-transformers' `QueryExpansionConfig`."""
    if not isinstance(config, dict) or config.get("strategy") not in ("fixed", "min"):
        raise ModelLoadError(f'query_expansion is {config!r}; it must have a strategy, "fixed" or "min"')
    length = _length(config.get("length"), "query_expansion length")
    if length is None:
        raise ModelLoadError(f"query_expansion is {config!r}; it must have a length")
    return Expansion(length, config["strategy"] == "fixed", bool(config.get("attend", False)), config.get("token"))


def _transformer_config(spec: ModelSpec) -> dict[str, Any]:
    file = spec.transformer_path / "sentence_bert_config.json"
    config = _json(file)
    if "message" in (config.get("modality_config") or {}):
        raise ModelLoadError(f"{file}: texts of this model are messages of a chat template, which is not supported")
    if (config.get("processing_kwargs") or {}).get("text"):
        raise ModelLoadError(f"{file}: processing_kwargs for text are not supported")
    return config


def _either(key: str, first: dict[str, Any], second: dict[str, Any]) -> Any:
    return first[key] if first.get(key) is not None else second.get(key)


def _length(value: Any, key: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ModelLoadError(f"{key} is {value!r}; it must be a positive whole number")
    return value


def _json(file: Path) -> dict[str, Any]:
    return read_json(file) if file.exists() else {}
