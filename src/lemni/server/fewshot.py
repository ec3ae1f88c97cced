"""Classification by labelled examples: the labels of the most similar ones, by their vectors.

The weighted nearest-neighbour classifier of Wu et al., arXiv:1805.01978, section 3.4: a neighbour votes for its label
with exp(cosine / 0.07). Cohere's /v1/classify calls it.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemni.errors import InvalidRequest
from lemni.server.body import kind_of
from lemni.server.inputs import check_count

TEMPERATURE = 0.07
NEIGHBOURS = 200
"""Both as in the paper."""


class Example(NamedTuple):
    text: str
    label: str


def examples_of(value: Any, max_items: int) -> list[Example]:
    """The examples of a body: [{"text", "label"}], of two labels at least. Raises InvalidRequest or TooManyItems."""
    if not isinstance(value, list):
        raise InvalidRequest(f"examples is {kind_of(value)}; it must be a list of objects", param="examples")
    check_count(value, max_items, "examples")
    found = []
    for index, one in enumerate(value):
        if not isinstance(one, dict) or type(one.get("text")) is not str or type(one.get("label")) is not str:
            name = f"examples[{index}]"
            raise InvalidRequest(f"{name} must be an object with a text and a label", item=index, param=name)
        found.append(Example(one["text"], one["label"]))
    if len({example.label for example in found}) < 2:
        raise InvalidRequest("examples all have the same label; there must be at least two labels", param="examples")
    return found


def by_examples(
    vectors: NDArray[np.float32], examples: NDArray[np.float32], labels: Seq[str]
) -> tuple[list[str], NDArray[np.float32]]:
    """What the neighbours of each vector say.

    Args:
        vectors: float32 [n, dim] of unit length.
        examples: float32 [examples, dim] of unit length.
        labels: of the examples.

    Returns:
        The labels in the order of their first example, and float32 [n, labels]: confidences that add up to 1.
    """
    names = list(dict.fromkeys(labels))
    places = {name: place for place, name in enumerate(names)}
    columns = np.array([places[label] for label in labels])
    cosines = vectors @ examples.T  # [n, examples]
    count = min(NEIGHBOURS, len(labels))
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(cosines, nearest, axis=1) / TEMPERATURE
    votes = np.exp(near - near.max(axis=1, keepdims=True))
    sums = np.zeros((len(vectors), len(names)), dtype=np.float32)
    np.add.at(sums, (np.arange(len(vectors))[:, None], columns[nearest]), votes)
    confidences: NDArray[np.float32] = sums / sums.sum(axis=1, keepdims=True)
    return names, confidences
