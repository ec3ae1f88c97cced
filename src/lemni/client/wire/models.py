"""`/models`: which models a server has, and what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lemni.client.errors import BadAnswer
from lemni.client.wire.http import HttpReply, HttpRequest, json_of

REQUEST = HttpRequest("/models")
HEALTH = HttpRequest("/health", at_root=True)


@dataclass(frozen=True)
class Model:
    """A served model.

    Attributes:
        id: the name to ask for.
        capabilities: such as "embed", "sparse", "multi_vector", "rerank", "classify", as the server calls them.
        revision: of its files, if the server says.
        dimensions: of its vectors, if the server says.
        max_length: tokens of the longest input, if the server says.
        similarity: how its vectors are compared: "cosine", "dot", "euclidean" or "manhattan".
        fields: everything that the server says.
    """

    id: str
    capabilities: tuple[str, ...] = ()
    revision: str | None = None
    dimensions: int | None = None
    max_length: int | None = None
    similarity: str = "cosine"
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_models(reply: HttpReply) -> list[Model]:
    """The models of an OpenAI-like list. Raises BadAnswer."""
    content = json_of(reply)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not all(isinstance(one, dict) and isinstance(one.get("id"), str) for one in data):
        raise BadAnswer("the server's answer has no list `data` of models with an id")
    return [_model(one) for one in data]


def _model(entry: dict[str, Any]) -> Model:
    def of(name: str, kind: type) -> Any:
        value = entry.get(name)
        return value if isinstance(value, kind) else None

    return Model(
        id=entry["id"],
        capabilities=tuple(map(str, of("capabilities", list) or ())),
        revision=of("revision", str),
        dimensions=of("dimensions", int),
        max_length=of("max_length", int),
        similarity=of("similarity", str) or "cosine",
        fields=entry,
    )
