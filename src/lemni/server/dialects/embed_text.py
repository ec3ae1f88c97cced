"""A small embedding service: `POST /embed {"text"}` -> {"embedding"}, and `/embed_batch {"texts"}` -> {"embeddings"}.

Wrong bodies are answered as FastAPI does. Two other services have the path `/embed`, with other keys: see
`embed_texts.py`.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from lemni.errors import InvalidRequest, LemniError
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.dialect import EMBED_KEYS, Dialect, Operation, only
from lemni.server.inputs import checked, texts_of
from lemni.server.rows import float_rows, off_the_loop
from lemni.types import Result


class TextBody(BaseModel):
    """`POST /embed` of the first service."""

    model_config = ConfigDict(strict=True, extra="ignore")

    text: str = Field(description="The text to embed.")
    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one is served.")


class TextAnswer(BaseModel):
    embedding: list[float]


class BatchBody(BaseModel):
    """`POST /embed_batch` of the first service."""

    model_config = ConfigDict(strict=True, extra="ignore")

    texts: Any = Field(description="A list of texts.")
    model: str | None = None


class BatchAnswer(BaseModel):
    embeddings: list[list[float]]


async def embed_text(call: Call) -> Response:
    """The vector of one text."""
    body = checked(TextBody, call.body, required=("text",))
    card = await call.card(body.model)
    result = await call.run(card, [body.text], field="text", lone=True)
    [row] = float_rows(result.vectors)
    return json_response(b'{"embedding":%b}' % row, truncation_header(result))


async def embed_batch(call: Call) -> Response:
    """The vectors of a list of texts."""
    body = checked(BatchBody, call.body, required=("texts",))
    if body.texts == []:
        raise InvalidRequest("No texts provided", param="texts")
    texts = texts_of(body.texts, call.max_items, "texts")
    card = await call.card(body.model)
    result = await call.run(card, texts, field="texts")
    content = await off_the_loop(result.vectors.nbytes, _embeddings, result)
    return json_response(content, truncation_header(result))


def _embeddings(result: Result) -> bytes:
    return b'{"embeddings":[%b]}' % b",".join(float_rows(result.vectors))


def error_body(error: LemniError) -> bytes:
    """As FastAPI: a list for a body of the wrong shape, a text for what failed later."""
    if _status(error) != 422:
        return orjson.dumps({"detail": error.message})
    return orjson.dumps({"detail": [{"type": error.code, "loc": ["body", error.param or ""], "msg": error.message}]})


def _status(error: LemniError) -> int:
    """A body of the wrong shape is 422, an empty list 400."""
    return 422 if error.status == 400 and error.message != "No texts provided" else error.status


DIALECT = Dialect(
    "Embedding service (text)",
    (
        Operation(
            ("/embed",),
            embed_text,
            "Embed one text",
            claims=only("text", among=EMBED_KEYS),
            description=str(embed_text.__doc__),
            body=TextBody,
            examples={"text": {"value": {"text": "Hello world"}}},
            answer=TextAnswer,
        ),
        Operation(
            ("/embed_batch",),
            embed_batch,
            "Embed a list of texts",
            description=str(embed_batch.__doc__),
            body=BatchBody,
            examples={"texts": {"value": {"texts": ["Hello world", "Good morning"]}}},
            answer=BatchAnswer,
        ),
    ),
    error_body,
    _status,
)
