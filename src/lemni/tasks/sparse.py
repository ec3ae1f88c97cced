"""Sparse embeddings: weights of terms of the vocabulary, by SPLADE (arXiv:2107.05720, arXiv:2109.10086).

The runtime computes the logits of the masked-LM head and pools them over the tokens of a text. Pooled by "max" they
become weights here, for log(1 + ReLU(x)) is monotone; "sum" needs it before. Queries may need no forward pass: their
tokens' weights are looked up (sentence-transformers' Router with SparseStaticEmbedding; OpenSearch, arXiv:2411.04403).
Reference: sentence-transformers, `SparseEncoder`. Its autoencoders (CSR) are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, LemniError, ModelLoadError
from lemni.families.static import NO_TOKEN
from lemni.hub.jsonfile import read_json, read_json_value
from lemni.hub.kinds import router_of
from lemni.hub.lengths import max_length
from lemni.hub.router import Module
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.hub.weights import weight_files
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.runtimes.base import Heads
from lemni.tasks.base import Loaded, Parts
from lemni.tasks.dense import plain
from lemni.tasks.mlm_heads import Pool, mlm_head
from lemni.tasks.pairwise import Pairwise
from lemni.tasks.sparse_vectors import joined, sparse_similarity, strongest, without_zeros
from lemni.tasks.texts import Texts
from lemni.tasks.tokenizer import Named, Tokenizer
from lemni.types import InputType, Item, Options, Request, Row, Sequence, SparseVector

_LOGARITHMS = {"relu": 1, "log1p_relu": 2}
_STRATEGIES = ("max", "sum")


@dataclass(frozen=True)
class Splade:
    """What a folder says about a sparse model.

    Attributes:
        strategy: how weights of tokens become those of a text: "max" or "sum".
        logarithms: how often log(1 + x) is taken of ReLU(logit): 1, or 2 for `log1p_relu` (arXiv:2504.14839).
        queries: the folder of a SparseStaticEmbedding for queries, or None.
        looked_up: whether texts that are neither query nor document are treated as queries.
        most: terms that a vector has at most (`max_active_dims`), or None.
    """

    strategy: str = "max"
    logarithms: int = 1
    queries: Path | None = None
    looked_up: bool = False
    most: int | None = None


def heads(spec: ModelSpec) -> Heads:
    splade = read_splade(spec)

    def pool(ops: Ops) -> Pool:
        def total(logits: Tensor, inputs: Inputs) -> Tensor:
            weights = ops.activation(logits, "relu")
            for _ in range(splade.logarithms):
                weights = ops.log1p(weights)
            return ops.segment_sum(weights, inputs)

        return ops.segment_max if splade.strategy == "max" else total

    return {"terms": mlm_head(spec, pool)}


def load(parts: Parts) -> Loaded:
    splade = read_splade(parts.spec)
    tokenizer = Tokenizer(parts.spec, parts.max_length, parts.spec.config.get("vocab_size"))
    queries = None if splade.queries is None else LookedUp(parts, splade.queries)
    sparse = SparseTask(parts, Texts(parts, tokenizer), splade, queries)
    return Loaded({"sparse": sparse, "score": Pairwise(sparse, sparse.similarities, parts.truncate)}, tokenizer)


def read_splade(spec: ModelSpec) -> Splade:
    """Raises ModelLoadError for modules that are not those of a SPLADE model."""
    root = spec.files.path
    modules, router = _modules(root), router_of(root)
    queries, looked_up = None, False
    if router is not None:
        lookups = {
            route: [m.name for m in found] == ["SparseStaticEmbedding"] for route, found in router.routes.items()
        }
        if lookups != {"query": True, "document": False} or len(modules) != 1:
            routes = {route: [module.name for module in found] for route, found in router.routes.items()}
            raise ModelLoadError(
                f"{spec.files.id}: the routes {routes} are not supported in a sparse model, only a "
                "SparseStaticEmbedding for queries and Transformer and SpladePooling for documents"
            )
        queries, looked_up = router.routes["query"][0].path, router.default == "query"
        modules = list(router.routes["document"])
    names = [module.name for module in modules]
    sentence = root / "config_sentence_transformers.json"
    most = read_json(sentence).get("max_active_dims") if sentence.exists() else None
    if most is not None and (not isinstance(most, int) or most < 1):
        raise ModelLoadError(f"{sentence}: max_active_dims is {most!r}; it must be a positive whole number")
    found = Splade(queries=queries, looked_up=looked_up, most=most)
    if names[1:] == ["SpladePooling"] and names[0] in ("Transformer", "MLMTransformer"):
        return _pooling(modules[1].path / "config.json", found)
    if any(name.startswith(("Sparse", "Splade")) for name in names) or router is not None:
        raise ModelLoadError(
            f"{spec.files.id}: the modules {', '.join(names)} are not supported in a sparse model, only Transformer "
            "and SpladePooling"
        )
    return found  # a masked language model that only its name or the settings call SPLADE


def _modules(root: Path) -> list[Module]:
    listing = root / "modules.json"
    entries = read_json_value(listing) if listing.exists() else []
    return [Module(str(entry.get("type", "")), root / str(entry.get("path", ""))) for entry in entries]


def _pooling(file: Path, found: Splade) -> Splade:
    config = read_json(file)
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if strategy not in _STRATEGIES or activation not in _LOGARITHMS:
        raise ModelLoadError(
            f"{file}: pooling_strategy {strategy!r} with activation_function {activation!r} is not supported, only "
            f"{' or '.join(_STRATEGIES)} with {' or '.join(_LOGARITHMS)}"
        )
    return dataclasses.replace(found, strategy=strategy, logarithms=_LOGARITHMS[activation])


class SparseTask:
    """The task "sparse" of a SPLADE model."""

    def __init__(self, parts: Parts, texts: Texts, splade: Splade, queries: LookedUp | None) -> None:
        self._texts = texts
        self._splade = splade
        self._queries = queries
        self._name = parts.name
        self._similarity = parts.spec.similarity

    def validate(self, request: Request) -> None:
        refuse_vector_options(request, self._name)
        self._texts.validate(request.options)

    def estimate(self, item: Item, request: Request) -> int:
        return self._texts.estimate(plain(item, self._name), request.options)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items: Seq[Any] = request.items[start:stop]
        return self.encode_items(items, request.options, lambda place: request.named(start + place))

    def encode_items(
        self, items: Seq[Any], options: Options, named: Named, side: InputType | None = None
    ) -> list[list[Sequence] | LemniError]:
        """The sequences of texts or lists of token ids that are on one side of a search."""
        side = options.input_type or side
        looked_up = self._splade.looked_up if side is None else side == "query"
        if self._queries is not None and looked_up:
            return self._queries.encode(items, options, named, side)
        return self._texts.encode(items, options, ("terms",), named, side)

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"sparse": tuple(map(self._vector, items))}

    def similarities(self, firsts: Seq[Seq[Row]], seconds: Seq[Seq[Row]], options: Options) -> NDArray[np.float32]:
        """float32 [pairs]: the model's own similarity function of two vectors each."""
        pairs = zip(map(self._vector, firsts), map(self._vector, seconds), strict=True)
        return np.array([sparse_similarity(self._similarity, a, b) for a, b in pairs], dtype=np.float32)

    def _vector(self, rows: Seq[Row]) -> SparseVector:
        """Of a text, or of the windows of a long one, which are pooled as its tokens are."""
        vector = joined(map(self._terms, rows), add=self._splade.strategy == "sum")
        return vector if self._splade.most is None else strongest(vector, self._splade.most)

    def _terms(self, row: Row) -> SparseVector:
        if self._queries is not None and not row.sequence.outputs:
            return self._queries.vector(row.sequence)
        ids, values = row.outputs["terms"]
        if self._splade.strategy == "max":
            for _ in range(self._splade.logarithms):
                values = np.log1p(values)
        return without_zeros(ids, values)


class LookedUp:
    """Queries without a forward pass: each distinct token has its fixed weight.

    Args:
        folder: of a SparseStaticEmbedding, with a tokenizer and the weights. Raises ModelLoadError without them.
    """

    def __init__(self, parts: Parts, folder: Path) -> None:
        files = weight_files(folder, "safetensors")
        if not files:
            raise ModelLoadError(f"{folder}: no model.safetensors with the weights of query tokens")
        self._weights = TensorStore(files).numpy("weight").astype(np.float32)
        config = folder / "tokenizer_config.json"
        limit = max_length({}, {}, read_json(config) if config.exists() else {})
        # As in other static embeddings, nothing is put around a text.
        spec = dataclasses.replace(parts.spec, model_type="model2vec", transformer_path=folder, weights=())
        limit = min(limit or parts.max_length, parts.max_length)
        self._texts = Texts(parts, Tokenizer(spec, limit, len(self._weights)))

    def encode(
        self, items: Seq[Any], options: Options, named: Named, side: InputType | None
    ) -> list[list[Sequence] | LemniError]:
        return self._texts.encode(items, options, (), named, side)

    def vector(self, sequence: Sequence) -> SparseVector:
        """The weights of its distinct tokens."""
        ids = np.unique(sequence.ids[sequence.ids != NO_TOKEN])
        return without_zeros(ids, self._weights[ids])


def refuse_vector_options(request: Request, name: str) -> None:
    """Raises InvalidRequest for options that only dense vectors have, unless the request also asks for those."""
    if "embed" in request.tasks:
        return
    if request.options.dimensions is not None:
        raise InvalidRequest(f"dimensions: only dense vectors are cut, and {name} gives none here", param="dimensions")
    if request.options.normalize:
        raise InvalidRequest(f"normalize: the weights of terms that {name} gives keep their length", param="normalize")
