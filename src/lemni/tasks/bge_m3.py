"""BGE-M3 (arXiv:2402.03216): dense vectors, term weights and multi-vectors of a text, from one forward pass.

A dense model (XLM-RoBERTa, first token) with two more layers beside its weights, `sparse_linear` and `colbert_linear`.
Their token rows become results here. Reference: FlagEmbedding, `inference/embedder/encoder_only/m3.py` and
`finetune/embedder/encoder_only/m3/modeling.py`; pairs are scored by the dense vectors alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, LemniError, ModelLoadError
from lemni.hub.jsonfile import read_json
from lemni.hub.kinds import bge_m3_layer
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.hub.torch_pickle import read_torch
from lemni.ops.base import Inputs, Ops, Tensor
from lemni.runtimes.base import Heads
from lemni.tasks import dense
from lemni.tasks.base import Loaded, Parts
from lemni.tasks.similarity import unit_length
from lemni.tasks.sparse import refuse_vector_options
from lemni.tasks.sparse_vectors import by_term, joined
from lemni.tasks.texts import Texts
from lemni.types import Item, Output, Request, Row, Sequence, SparseVector

# Tokens that are no terms, by their names in tokenizer_config.json.
_UNUSED = ("cls_token", "eos_token", "pad_token", "unk_token")


def heads(spec: ModelSpec) -> Heads:
    return {
        **dense.heads(spec),
        "token_weights": _linear(spec, "sparse_linear"),  # before the ReLU, which may hide NaN
        "multi_vector": _linear(spec, "colbert_linear"),
    }


def load(parts: Parts) -> Loaded:
    loaded = dense.load(parts)
    embed = loaded.tasks["embed"]
    if not isinstance(embed, dense.DenseTask) or loaded.tokenizer is None:
        raise TypeError("BGE-M3 is a dense model of texts")
    tasks = dict(loaded.tasks)
    if {"token_weights", "multi_vector"} <= parts.backend.outputs:  # not of a graph that pools by itself
        tasks["sparse"] = SparseTask(parts, embed.texts, _unused(parts.spec))
        tasks["multi_vector"] = MultiVectorTask(parts, embed.texts)
    return Loaded(tasks, loaded.tokenizer, loaded.dimensions)


def _linear(spec: ModelSpec, name: str) -> Callable[[Ops], Callable[[Tensor, Inputs], Tensor]]:
    """x W^T + b, [T, hidden] -> [T, out]. Raises ModelLoadError for a file without such a layer."""
    path = bge_m3_layer(spec.files.path, name)
    if path is None:
        raise ModelLoadError(f"{spec.files.id}: has no {name}.pt or {name}.safetensors")
    if path.suffix == ".safetensors":
        store = TensorStore([path])
        layer = {tensor: store.numpy(tensor) for tensor in store.names()}
    else:
        layer = dict(read_torch(path))
    if (
        set(layer) != {"weight", "bias"}
        or layer["weight"].ndim != 2
        or layer["bias"].shape != layer["weight"].shape[:1]
    ):
        raise ModelLoadError(
            f"{path}: holds {', '.join(sorted(layer)) or 'nothing'}; expected the weight and bias of a layer"
        )

    def build(ops: Ops) -> Callable[[Tensor, Inputs], Tensor]:
        weight, bias = ops.constant(layer["weight"]), ops.constant(layer["bias"])
        return lambda hidden, inputs: ops.linear(hidden, weight, bias)

    return build


def _unused(spec: ModelSpec) -> NDArray[np.int64]:
    """Ids of the tokens that are no terms."""
    from lemni.tasks.tokenizer_files import load_tokenizer

    tokenizer, file = load_tokenizer(spec.transformer_path), spec.transformer_path / "tokenizer_config.json"
    config = read_json(file) if file.exists() else {}
    tokens = [config.get(key) for key in _UNUSED]
    names = [token.get("content") if isinstance(token, dict) else token for token in tokens]
    ids = [tokenizer.token_to_id(name) for name in names if isinstance(name, str)]
    return np.array(sorted({identity for identity in ids if identity is not None}), dtype=np.int64)


class _TokenTask:
    """A task with a row per token.

    Args:
        output: the rows.
    """

    output: Output

    def __init__(self, parts: Parts, texts: Texts) -> None:
        self._texts = texts
        self._name = parts.name

    def validate(self, request: Request) -> None:
        refuse_vector_options(request, self._name)
        self._texts.validate(request.options)

    def estimate(self, item: Item, request: Request) -> int:
        return self._texts.estimate(dense.plain(item, self._name), request.options)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items: Seq[Any] = request.items[start:stop]
        try:
            for item in items:
                dense.plain(item, self._name)
        except InvalidRequest as error:  # of an item that another task of the request takes
            return [InvalidRequest(error.message) for _ in items]
        return self._texts.encode(items, request.options, (self.output,), lambda place: request.named(start + place))


class SparseTask(_TokenTask):
    """The task "sparse": the largest weight of each term that is in the text."""

    output: Output = "token_weights"

    def __init__(self, parts: Parts, texts: Texts, unused: NDArray[np.int64]) -> None:
        super().__init__(parts, texts)
        self._unused = unused

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"sparse": tuple(joined(map(self._terms, rows), add=False) for rows in items)}

    def _terms(self, row: Row) -> SparseVector:
        kept = ~np.isin(row.sequence.ids, self._unused)
        return by_term(row.sequence.ids[kept], row.outputs["token_weights"][kept, 0])


class MultiVectorTask(_TokenTask):
    """The task "multi_vector": a vector of unit length for each token but the first."""

    output: Output = "multi_vector"

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        raw = request.options.normalize is False
        found = []
        for rows in items:
            vectors = np.concatenate([row.outputs["multi_vector"][1:] for row in rows])
            found.append(vectors if raw else unit_length(vectors))
        return {"multi_vectors": tuple(found)}
