"""Jina's embeddings: `/v1/embeddings` with `task`, `late_chunking`, `embedding_type` or `return_multivector`.

Requests with none of its keys, objects as inputs or not, get OpenAI's answer, which Jina's clients read as well. Its
reranking: `rerank.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.errors import InvalidRequest
from lemni.server.call import Call, json_response, truncation_header, usage_of
from lemni.server.content import inputs_of
from lemni.server.dialect import Dialect, Operation
from lemni.server.dialects.openai import error_body
from lemni.server.inputs import TruncateField, checked, side_of, texts_of
from lemni.server.quantized import WIRES, words, written
from lemni.server.rows import base64_rows, float_rows, off_the_loop
from lemni.types import Chunks, InputType, ModelCard, Options, Result, Task

EmbeddingType = Literal["float", "base64", "binary", "ubinary"]

_TASKS = ("text-matching", "classification", "separation", "clustering", "retrieval", "code", "none")
"""Words of `task` that are no side of a search."""


class EmbeddingsBody(BaseModel):
    """`POST /v1/embeddings` with one of Jina's keys."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Any = Field(description='A text, {"text"} or {"image"}, or a list of those.')
    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one model is served.")
    task: str | None = Field(
        None,
        description="retrieval.query, retrieval.passage, text-matching, classification, separation ...: takes the "
        "model's prompt for it, if it has one.",
    )
    dimensions: int | None = Field(None, description="Keep the first N values and normalise again.")
    late_chunking: bool | None = Field(
        None, description="The inputs are parts of one document, embedded in its context."
    )
    embedding_type: Annotated[list[EmbeddingType] | None, BeforeValidator(words)] = Field(
        None, description="float, base64, binary or ubinary, or a list of them: then `embedding` is an object."
    )
    normalized: bool | None = Field(None, description="Vectors of unit length; as the model does if not given.")
    truncate: TruncateField = Field(None, description="True cuts inputs over the model's length, false refuses them.")
    return_multivector: bool | None = Field(None, description="A vector for each token, as `embeddings`.")


def claims(body: Mapping[str, Any]) -> bool:
    """Whether a body has a key that only Jina's have. Objects alone are OpenAI's too; with `normalized`, which OpenAI's
    do not have, they would be taken for Mixedbread's."""
    keys = ("task", "late_chunking", "embedding_type", "return_multivector")
    if any(body.get(key) is not None for key in keys):
        return True
    given = body.get("input")
    has_objects = any(isinstance(one, dict) for one in (given if isinstance(given, list) else [given]))
    return has_objects and body.get("normalized") is not None


async def embeddings(call: Call) -> Response:
    """Vectors of texts or images; in the context of one another with `late_chunking`."""
    body = checked(EmbeddingsBody, call.body, required=("input",))
    many = body.return_multivector is True
    task: Task = "multi_vector" if many else "embed"
    card = await call.card(body.model, task)
    name, side = _side(body.task, card)
    options = Options(body.dimensions, body.normalized, prompt_name=name, input_type=side, truncate=body.truncate)
    if body.late_chunking:
        if many:
            raise InvalidRequest("late_chunking and return_multivector exclude each other", param="late_chunking")
        texts = texts_of([body.input] if isinstance(body.input, str) else body.input, call.max_items, "input")
        result = await call.run(card, [Chunks(tuple(texts))], options, lone=True)
    else:
        raw, lone = inputs_of(body.input, call.max_items, dict)
        result = await call.run(card, await call.items(card, raw, lone=lone), options, tasks=(task,), lone=lone)
    types = list(dict.fromkeys(body.embedding_type or ["float"]))
    if many:
        content = await _multi_vectors(card, result, types)
    else:
        listed = isinstance(call.body.get("embedding_type"), list)
        wires = [WIRES[one] for one in types]
        vectors = result.vectors
        content = await written(
            call, card, options, vectors, wires, lambda *rows: _answer(card, result, types, rows, listed)
        )
    return json_response(content, truncation_header(result))


def _side(task: str | None, card: ModelCard) -> tuple[str | None, InputType | None]:
    """The prompt's name or the side that a task asks for; "code.query" is a query if the model has no such prompt."""
    if task is not None and task.lower() not in (name.lower() for name in card.prompts):
        kind = task.lower().rpartition(".")[2]
        if "." in task and kind in ("query", "passage"):
            return None, "query" if kind == "query" else "document"
    return side_of(task, card, "task", _TASKS)


def _answer(card: ModelCard, result: Result, types: list[str], rows: Any, listed: bool) -> bytes:
    keys = [kind.encode() for kind in types]
    vectors = (
        (
            b"{%b}" % b",".join(b'"%b":%b' % pair for pair in zip(keys, forms, strict=True))
            for forms in zip(*rows, strict=True)
        )
        if listed
        else rows[0]
    )
    return _envelope(card, result, b"embedding", vectors)


async def _multi_vectors(card: ModelCard, result: Result, types: list[str]) -> bytes:
    if len(types) > 1 or types[0] not in ("float", "base64"):
        raise InvalidRequest(
            "embedding_type: multi-vectors come as float or base64, one of them", param="embedding_type"
        )
    rows = list(result.multi_vectors)
    to_rows = base64_rows if types[0] == "base64" else float_rows

    def write() -> bytes:
        return _envelope(card, result, b"embeddings", to_rows(rows))

    return await off_the_loop(sum(one.nbytes for one in rows), write)


def _envelope(card: ModelCard, result: Result, key: bytes, vectors: Any) -> bytes:
    data = b",".join(
        b'{"object":"embedding","index":%d,"%b":%b}' % (index, key, one) for index, one in enumerate(vectors)
    )
    ending = {"model": card.name, "usage": usage_of(result)}
    return b'{"object":"list","data":[%b],%b' % (data, orjson.dumps(ending)[1:])


DIALECT = Dialect(
    "Jina",
    (
        Operation(
            ("/v1/embeddings", "/embeddings"),
            embeddings,
            "Embed texts, images or the parts of a document",
            claims=claims,
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples={
                "task": {"value": {"input": ["A cat sits on the mat."], "task": "retrieval.passage"}},
                "late chunking": {
                    "value": {"input": ["Berlin is large.", "The city has parks."], "late_chunking": True}
                },
                "types": {"value": {"input": [{"text": "A cat."}], "embedding_type": ["float", "ubinary"]}},
            },
            answer={"type": "object"},
        ),
    ),
    error_body,
)
