"""`/rerank`, `/score` and `/classify`: requests, and answers as scores and labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from lemni.client.errors import BadAnswer
from lemni.client.wire.http import HttpReply, HttpRequest, json_of
from lemni.client.wire.inputs import input_of, json_bytes
from lemni.client.wire.usage import Answer, tokens_of, truncated_of
from lemni.ranking import Label
from lemni.types import Item, Pair


def rerank_request(query: Item, documents: Seq[Item], options: Mapping[str, Any]) -> HttpRequest:
    """`POST /rerank` as Lemni, Infinity, Jina and vLLM take it; the answer has all documents."""
    return _request("/rerank", {"query": input_of(query), "documents": [input_of(one) for one in documents]}, options)


def score_request(pairs: Seq[Pair], options: Mapping[str, Any]) -> HttpRequest:
    """`POST /score` as Lemni and vLLM take it, who call `raw_scores` the absence of an activation."""
    sides = {"text_1": [input_of(pair.first) for pair in pairs], "text_2": [input_of(pair.second) for pair in pairs]}
    renamed = dict(options)
    if (raw := renamed.pop("raw_scores", None)) is not None:
        renamed["use_activation"] = not raw
    return _request("/score", sides, renamed)


def classify_request(texts: Seq[Item], options: Mapping[str, Any]) -> HttpRequest:
    """`POST /classify` as Lemni and Infinity take it."""
    return _request("/classify", {"input": list(texts)}, options, at_root=True)


def _request(path: str, inputs: dict[str, Any], options: Mapping[str, Any], at_root: bool = False) -> HttpRequest:
    body = {**inputs, **{name: value for name, value in options.items() if value is not None}}
    return HttpRequest(path, json_bytes(body), at_root=at_root)


def read_scores(reply: HttpReply, count: int) -> Answer:
    """float32 [count] in the order of the inputs, of `/rerank` (`results`) or `/score` (`data`). Raises BadAnswer."""
    content = json_of(reply)
    entries = (content.get("results") or content.get("data")) if isinstance(content, dict) else None
    scores = np.full(count, np.nan, np.float32)
    try:
        for entry in entries or ():
            place = entry["index"]
            if type(place) is not int or not 0 <= place < count:
                raise BadAnswer(f"the server's answer scores input {place}; there are {count}")
            if not np.isnan(scores[place]):
                raise BadAnswer(f"the server's answer scores input {place} twice", item=place)
            scores[place] = entry["relevance_score"] if "relevance_score" in entry else entry["score"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadAnswer(f"the server's answer has an entry without index and score: {error!r}") from error
    if len(missing := np.flatnonzero(~np.isfinite(scores))):
        raise BadAnswer(f"the server's answer has no score for input {missing[0]}", item=int(missing[0]))
    return Answer(scores, tokens_of(content), truncated_of(reply))


def read_labels(reply: HttpReply, count: int) -> Answer:
    """For each of `count` texts its labels, the best first. Raises BadAnswer."""
    content = json_of(reply)
    try:
        rows = [[Label(str(one["label"]), float(one["score"])) for one in row] for row in content["data"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadAnswer(f"the server's answer has no labels: {error!r}") from error
    if len(rows) != count:
        raise BadAnswer(f"the server's answer has labels of {len(rows)} texts; {count} were asked for")
    for place, row in enumerate(rows):
        if not all(math.isfinite(one.score) for one in row):
            raise BadAnswer(f"the server's labels of input {place} have NaN or infinity as a score", item=place)
    return Answer([sorted(row, key=lambda one: -one.score) for row in rows], tokens_of(content), truncated_of(reply))
