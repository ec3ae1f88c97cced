"""Sequence classification: the relevance of pairs (cross-encoders) and the labels of texts or pairs.

Scores are what sentence-transformers' `CrossEncoder.predict` gives, labels what transformers' text-classification
pipeline gives with `top_k=None`. As for `CrossEncoder.rank`, scoring needs a model with one label; one with several
classifies, pairs too (NLI). Both read a pair as one sequence.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from lemni.errors import ConfigError, InvalidRequest, LemniError, ModelLoadError
from lemni.hub.jsonfile import read_json
from lemni.hub.spec import ModelSpec
from lemni.runtimes.base import Heads
from lemni.tasks.activations import ACTIVATIONS, Function, Logits, label_activation, score_activation
from lemni.tasks.base import Loaded, Parts, TaskModel
from lemni.tasks.classification_heads import head, pools_last
from lemni.tasks.pairs import Pairs
from lemni.tasks.texts import Texts
from lemni.tasks.tokenizer import Tokenizer
from lemni.types import (
    Audio,
    Chunks,
    Image,
    Item,
    Mixed,
    Options,
    Output,
    PackedBatch,
    Pair,
    Request,
    Row,
    Sequence,
    Task,
)

logger = logging.getLogger(__name__)

_OUTPUTS: tuple[Output, ...] = ("logits",)
_PROBE = PackedBatch.pack([Sequence(np.zeros(1, dtype=np.int32), _OUTPUTS)])


def heads(spec: ModelSpec) -> Heads:
    return {"logits": head(spec)}


def load(parts: Parts) -> Loaded:
    """Raises ModelLoadError for labels or an activation that do not fit, ConfigError for truncation to chunks."""
    if parts.truncate == "chunk":
        raise ConfigError(f'truncate is "chunk", but {parts.name} classifies: it takes "right", "left" or "error"')
    [probe] = parts.backend.replica(0).run(_PROBE)
    labels = label_names(parts.spec, int(probe["logits"].shape[-1]))
    tokenizer = Tokenizer(parts.spec, parts.max_length, parts.spec.config.get("vocab_size"))
    inputs = Inputs(parts, tokenizer)
    tasks: dict[Task, TaskModel] = {}
    if len(labels) == 1:
        if pools_last(parts.spec.model_type) and _has_chat_template(parts.spec):
            logger.warning(
                "%s: its chat template is not applied to pairs; clients must send texts in the form it was trained on",
                parts.name,
            )
        tasks["score"] = ScoreTask(inputs, score_activation(parts.spec))
    tasks["classify"] = ClassifyTask(inputs, label_activation(parts.spec.config, len(labels)))
    return Loaded(tasks, tokenizer, labels=labels)


def _has_chat_template(spec: ModelSpec) -> bool:
    file = spec.transformer_path / "tokenizer_config.json"
    inside = file.is_file() and "chat_template" in read_json(file)
    return inside or (spec.transformer_path / "chat_template.jinja").is_file()


def label_names(spec: ModelSpec, count: int) -> tuple[str, ...]:
    """The names in `id2label` by their ids; LABEL_0 and so on, as transformers calls them, without any.

    Raises:
        ModelLoadError: they are not as many as the weights give.
    """
    names = spec.config.get("id2label") or {}
    if not names:
        return tuple(f"LABEL_{index}" for index in range(count))
    by_id = {str(key): str(name) for key, name in names.items()} if isinstance(names, dict) else {}
    if set(by_id) != {str(index) for index in range(count)}:
        raise ModelLoadError(
            f"{spec.files.id}: the weights give {count} labels, but id2label in config.json names "
            f"{len(names)}: {str(names)[:200]}"
        )
    return tuple(by_id[str(index)] for index in range(count))


class Inputs:
    """Texts, token ids and pairs of texts into sequences that ask for logits."""

    def __init__(self, parts: Parts, tokenizer: Tokenizer) -> None:
        self.name = parts.name
        self._texts = Texts(parts, tokenizer)
        self._pairs = Pairs(parts.spec, tokenizer)
        self._tokenizer = tokenizer
        self._padding = parts.spec.config.get("pad_token_id") if pools_last(parts.spec.model_type) else None

    def validate(self, options: Options) -> None:
        if options.truncate == "chunk":
            raise InvalidRequest(
                f'truncate is "chunk", but {self.name} gives no vectors that could be averaged', param="truncate"
            )
        self._texts.validate(options)

    def estimate(self, item: Item, options: Options) -> int:
        if isinstance(item, Pair):
            first, second = _texts_of(item, self.name)
            tokens = self._texts.estimate(first, options) + self._tokenizer.estimate(second)
            return min(tokens, self._tokenizer.max_length)
        if isinstance(item, Image | Audio | Mixed | Chunks):
            raise InvalidRequest(f"{self.name} takes texts and pairs of texts only")
        return self._texts.estimate(item, options)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        items: Seq[Any] = request.items[start:stop]
        out: list[list[Sequence] | LemniError] = [[] for _ in items]
        for encode, kind in ((self._encode_pairs, True), (self._encode_texts, False)):
            places = [place for place, item in enumerate(items) if isinstance(item, Pair) == kind]
            if places:
                names = [request.named(start + place) for place in places]
                outcomes = encode([items[place] for place in places], request.options, names)
                for place, one in zip(places, outcomes, strict=True):
                    out[place] = one if isinstance(one, LemniError) else [self._finished(one)]
        return out

    def _encode_pairs(self, items: Seq[Any], options: Options, names: list[str]) -> list[Sequence | LemniError]:
        # CrossEncoder puts a prompt before the first text.
        prompt = self._texts.prompt(options)
        pairs = [(prompt + first, second) for first, second in (_texts_of(item, self.name) for item in items)]
        truncate = options.truncate or self._texts.truncate
        side = truncate if truncate in ("left", "right") else None
        return self._pairs.encode(pairs, names.__getitem__, side, options.max_tokens)

    def _encode_texts(self, items: Seq[Any], options: Options, names: list[str]) -> list[Sequence | LemniError]:
        found = self._texts.encode(items, options, _OUTPUTS, names.__getitem__)
        return [one if isinstance(one, LemniError) else one[0] for one in found]

    def _finished(self, sequence: Sequence) -> Sequence:
        ids = sequence.ids
        if self._padding is not None:
            # transformers takes the last token that is not padding, even where padding is a token of the text. In a
            # causal model nothing after it counts.
            [real] = np.nonzero(ids != self._padding)
            ids = ids[: real[-1] + 1 if len(real) else 1]
        types = sequence.token_types
        return dataclasses.replace(
            sequence, ids=ids, outputs=_OUTPUTS, token_types=None if types is None else types[: len(ids)]
        )


def _texts_of(pair: Pair, name: str) -> tuple[str, str]:
    if not (isinstance(pair.first, str) and isinstance(pair.second, str)):
        raise InvalidRequest(f"{name} takes pairs of texts, not of images")
    return pair.first, pair.second


def _logits(items: Seq[Seq[Row]]) -> Logits:
    """[items, labels]"""
    return np.stack([rows[0].outputs["logits"] for rows in items])


class ClassifyTask:
    """The task "classify": a value for each label."""

    def __init__(self, inputs: Inputs, activation: Function) -> None:
        self._inputs = inputs
        self._activation = activation

    def validate(self, request: Request) -> None:
        self._inputs.validate(request.options)

    def estimate(self, item: Item, request: Request) -> int:
        return self._inputs.estimate(item, request.options)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        return self._inputs.encode(request, start, stop)

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"labels": self._activated(items, request.options)}

    def _activated(self, items: Seq[Seq[Row]], options: Options) -> Logits:
        activation = self._activation if options.activation is None else ACTIVATIONS[options.activation]
        return activation(_logits(items))


class ScoreTask(ClassifyTask):
    """The task "score": the one label's value for a pair."""

    def estimate(self, item: Item, request: Request) -> int:
        if not isinstance(item, Pair):
            raise InvalidRequest("scoring takes pairs of inputs")
        return super().estimate(item, request)

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        return {"scores": self._activated(items, request.options)[:, 0]}
