"""Scores of pairs by a model that embeds each side by itself: cosine of a bi-encoder, MaxSim of late interaction.

Each pair is two sequences. Equal ones in flight are computed once, so one query against many documents costs one
query; it is tokenised once per chunk of pairs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest, LemniError
from lemni.tasks.tokenizer import Named
from lemni.types import Audio, Image, InputType, Item, Mixed, Options, Pair, Request, Row, Sequence, Truncate

Similarities = Callable[[Seq[Seq[Row]], Seq[Seq[Row]], Options], NDArray[np.float32]]
"""Rows of the first and of the second input of every pair -> float32 [pairs]."""


class Embeds(Protocol):
    """The task that embeds one side."""

    def validate(self, request: Request) -> None: ...
    def estimate(self, item: Item, request: Request) -> int: ...
    def encode_items(
        self, items: Seq[Any], options: Options, named: Named, side: InputType | None = None
    ) -> list[list[Sequence] | LemniError]: ...


class Pairwise:
    """The task "score" of a model that embeds. The scores are raw similarities: an activation is refused.

    Long texts are cut, not averaged over chunks: on the right where the model is served with `truncate: chunk`.
    """

    def __init__(self, embeds: Embeds, similarities: Similarities, truncate: Truncate | None = None) -> None:
        """`truncate`: what the model is served with."""
        self._embeds = embeds
        self._similarities = similarities
        self._chunks = truncate == "chunk"

    def validate(self, request: Request) -> None:
        self._embeds.validate(request)
        if request.options.truncate == "chunk":
            raise InvalidRequest('truncate is "chunk", which scoring does not know', param="truncate")
        if request.options.activation not in (None, "none"):
            raise InvalidRequest(
                f'activation is "{request.options.activation}", but the scores are similarities of embeddings',
                param="activation",
            )

    def estimate(self, item: Item, request: Request) -> int:
        if not isinstance(item, Pair):
            raise InvalidRequest("scoring takes pairs of inputs")
        for side in (item.first, item.second):
            if not isinstance(side, str | Image | Audio | Mixed):
                raise InvalidRequest(f"scoring takes pairs of texts, images or sounds, not of {type(side).__name__}")
        return self._embeds.estimate(item.first, request) + self._embeds.estimate(item.second, request)

    def encode(self, request: Request, start: int, stop: int) -> list[list[Sequence] | LemniError]:
        if self._chunks and request.options.truncate is None:
            cut = dataclasses.replace(request.options, truncate="right")
            request = dataclasses.replace(request, options=cut)
        pairs = [item for item in request.items[start:stop] if isinstance(item, Pair)]
        sides = {(pair.first, pair.symmetric) for pair in pairs}
        queries = {(first, symmetric): self._query(first, symmetric, request.options) for first, symmetric in sides}
        documents = self._documents(pairs, request, start)
        return [
            _both(queries[pair.first, pair.symmetric], document)
            for pair, document in zip(pairs, documents, strict=True)
        ]

    def finish(self, items: Seq[Seq[Row]], request: Request) -> dict[str, Any]:
        firsts = [rows[:1] for rows in items]
        seconds = [rows[1:] for rows in items]
        return {"scores": self._similarities(firsts, seconds, request.options)}

    def _documents(self, pairs: list[Pair], request: Request, start: int) -> list[list[Sequence] | LemniError]:
        found: list[list[Sequence] | LemniError] = [[] for _ in pairs]
        for symmetric in (False, True):
            places = [place for place, pair in enumerate(pairs) if pair.symmetric == symmetric]
            if places:
                texts = [pairs[place].second for place in places]
                side: InputType | None = None if symmetric else "document"
                named = [request.named(start + place) for place in places]
                outcomes = self._embeds.encode_items(texts, request.options, named.__getitem__, side)
                for place, outcome in zip(places, outcomes, strict=True):
                    found[place] = outcome
        return found

    def _query(self, first: Any, symmetric: bool, options: Options) -> list[Sequence] | LemniError:
        side: InputType | None = None if symmetric else "query"
        return self._embeds.encode_items([first], options, lambda _: "query", side)[0]


def _both(first: list[Sequence] | LemniError, second: list[Sequence] | LemniError) -> list[Sequence] | LemniError:
    if isinstance(first, LemniError):
        return type(first)(first.message, param="query")
    return second if isinstance(second, LemniError) else [*first, *second]
