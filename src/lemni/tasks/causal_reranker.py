"""Causal language models that rerank: the score is what the next token's logits say for one word and against another.

Scores are what sentence-transformers' `CrossEncoder.predict` gives for a `Transformer` with `LogitScore`, what
Qwen3-Reranker's model card and mxbai-rerank's package give for those. `causal_layouts` knows the prompts,
`prompted_pairs` makes their tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Seq
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.errors import ConfigError, InvalidRequest, LemniError, ModelLoadError
from lemni.families.decoder_parts import ROOTS
from lemni.families.weights import Weights
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore
from lemni.ops.base import Ops
from lemni.runtimes.base import Head, Heads
from lemni.tasks.activations import ACTIVATIONS, Function
from lemni.tasks.base import Loaded, Parts
from lemni.tasks.causal_layouts import Words, layout_of, words_of
from lemni.tasks.pairs import Pairs
from lemni.tasks.prompted_pairs import PromptedPairs
from lemni.tasks.texts import Texts
from lemni.tasks.tokenizer import Named, Tokenizer
from lemni.tasks.tokenizer_files import load_tokenizer
from lemni.types import Item, Options, Output, Pair, Request, Row, Sequence, TruncationSide

_OUTPUTS: tuple[Output, ...] = ("logits",)
_PROMPT_GUESS = 64  # tokens of a prompt beside its texts

# What some architectures do to logits after the output matrix; Lemni's head does not.
_SCALINGS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "dim_model_base")


def heads(spec: ModelSpec) -> Heads:
    """Raises ModelLoadError for a model whose words or output matrix are unknown."""
    if scaled := [key for key in _SCALINGS if spec.config.get(key) not in (None, 1)]:
        raise ModelLoadError(f"{spec.files.id}: a reranker with {scaled[0]} in config.json is not supported")
    if not spec.weights:
        raise ModelLoadError(f"{spec.files.id}: the output matrix of a causal reranker is read from safetensors only")
    words = words_of(spec, load_tokenizer(spec.transformer_path))
    return {"logits": lambda ops: _head(spec, words, ops)}


def _head(spec: ModelSpec, words: Words, ops: Ops) -> Head:
    """Hidden states [T, hidden] -> [B, 1], the difference of two logits.

    One row, the difference of those of the words: two logits in half precision would hide a small difference.
    """
    weights = Weights(TensorStore(spec.weights))
    places = [words.true] if words.false is None else [words.true, words.false]
    matrix = _output_rows(spec, weights, places)
    bias = weights.get("lm_head.bias")

    def difference(values: NDArray[Any]) -> NDArray[np.float32]:
        values = values.astype(np.float32)
        result: NDArray[np.float32] = values[:1] if len(values) == 1 else values[:1] - values[1:]
        return result

    row = ops.constant(difference(matrix))
    shift = None if bias is None else ops.constant(difference(bias[places]))
    return lambda hidden, inputs: ops.linear(ops.last(hidden, inputs), row, shift)


def _output_rows(spec: ModelSpec, weights: Weights, places: Seq[int]) -> NDArray[Any]:
    """Rows of the output matrix. One of its own counts even where the config says tied, as in transformers."""
    if "lm_head.weight" in weights:
        return weights.store.rows("lm_head.weight", places)
    if spec.config.get("tie_word_embeddings") is False:
        raise ModelLoadError(f"{spec.files.id}: has no lm_head.weight, from which a causal reranker's score is made")
    words = weights.rooted("embed_tokens.weight", ROOTS)
    return weights.store.rows(f"{words.prefix}embed_tokens.weight", places)


def load(parts: Parts) -> Loaded:
    """Raises ModelLoadError for an unknown prompt, ConfigError for truncation to chunks or a maximum length without
    room for the prompt."""
    if parts.truncate == "chunk":
        raise ConfigError(f'truncate is "chunk", but {parts.name} reranks: it takes "right", "left" or "error"')
    spec = parts.spec
    tokenizer = Tokenizer(spec, parts.max_length, spec.config.get("vocab_size"))
    layout = layout_of(spec, tokenizer.library)
    named = {**layout.named, **spec.prompts}
    default = spec.default_prompt_name or ("default" if "default" in layout.named else None)
    spec = dataclasses.replace(spec, prompts=named, default_prompt_name=default)
    texts = Texts(dataclasses.replace(parts, spec=spec), tokenizer)
    max_length = min(parts.max_length, layout.max_length or parts.max_length)
    encoder: _Encoder
    if layout.prompts is None:
        encoder = _Joined(Pairs(spec, tokenizer))
    else:
        encoder = PromptedPairs(layout.prompts, tokenizer.library, max_length)
        fixed = encoder.fixed_tokens(texts.prompt(Options()))
        if fixed >= max_length:
            raise ConfigError(
                f"max_length is {max_length}, but the prompt of {spec.files.id} takes {fixed} tokens around every "
                f"pair: it must be at least {fixed + 1}"
            )
    return Loaded({"score": ScoreTask(parts.name, texts, encoder, layout.activation)}, tokenizer, prompts=named)


class _Encoder(Protocol):
    def encode(
        self,
        pairs: Seq[tuple[str, str]],
        named: Named,
        side: TruncationSide | None,
        limit: int | None,
        instruction: str,
    ) -> list[Sequence | LemniError]:
        """A sequence or the own error of each pair; no `side` refuses what is too long, `limit` is the document's."""
        ...


class _Joined:
    """A model without a chat template reads a pair as its tokenizer joins it, the prompt before the query."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def encode(
        self,
        pairs: Seq[tuple[str, str]],
        named: Named,
        side: TruncationSide | None,
        limit: int | None,
        instruction: str,
    ) -> list[Sequence | LemniError]:
        return self._pairs.encode([(instruction + query, document) for query, document in pairs], named, side, limit)


class ScoreTask:
    """The task "score". The prompt of a request is the model's instruction."""

    def __init__(self, name: str, texts: Texts, encoder: _Encoder, activation: Function) -> None:
        self._name = name
        self._texts = texts
        self._encoder = encoder
        self._activation = activation

    def validate(self, request: Request) -> None:
        if request.options.truncate == "chunk":
            raise InvalidRequest(
                f'truncate is "chunk", but {self._name} gives no vectors that could be averaged', param="truncate"
            )
        self._texts.validate(request.options)

    def estimate(self, item: Item, request: Request) -> int:
        query, document = self._texts_of(item)
        tokenizer = self._texts.tokenizer
        tokens = self._texts.estimate(query, request.options) + tokenizer.estimate(document) + _PROMPT_GUESS
        return min(tokens, tokenizer.max_length)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        options = request.options
        pairs = [self._texts_of(item) for item in request.items[start:stop]]
        truncate = options.truncate or self._texts.truncate
        found = self._encoder.encode(
            pairs,
            lambda place: request.named(start + place),
            truncate if truncate in ("left", "right") else None,
            options.max_tokens,
            self._texts.prompt(options),
        )
        return [one if isinstance(one, LemniError) else [dataclasses.replace(one, outputs=_OUTPUTS)] for one in found]

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        choice = request.options.activation
        activation = self._activation if choice is None else ACTIVATIONS[choice]
        logits = np.stack([rows[0].outputs["logits"] for rows in items])  # [items, 1]
        return {"scores": activation(logits)[:, 0]}

    def _texts_of(self, item: Item) -> tuple[str, str]:
        if not isinstance(item, Pair):
            raise InvalidRequest("scoring takes pairs of inputs")
        if not (isinstance(item.first, str) and isinstance(item.second, str)):
            raise InvalidRequest(f"{self._name} takes pairs of texts, not of images")
        return item.first, item.second
