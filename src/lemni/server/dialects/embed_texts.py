"""A small embedding service: `POST /embed {"texts", "normalize"}` -> {"embeddings", "dimension", "model", ...}.

Its errors are {"error": text}. Two other services have the path `/embed`: TEI with `inputs`, and `embed_text.py` with
`text`. A body must have exactly one of the three keys.
"""

from __future__ import annotations

import time
from typing import Any

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from lemni.errors import InvalidRequest, LemniError
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.dialect import EMBED_KEYS, Dialect, Operation, only
from lemni.server.inputs import checked, texts_of
from lemni.server.rows import float_rows, off_the_loop
from lemni.types import ModelCard, Options, Result


class NoSingleKey(InvalidRequest):
    """A body for `/embed` that no service can claim."""

    status = 422


class TextsBody(BaseModel):
    """`POST /embed` of the second service."""

    model_config = ConfigDict(strict=True, extra="ignore")

    texts: Any = Field(description="A text or a list of texts.")
    normalize: bool | None = Field(None, description="Vectors of unit length; as the model does if not given.")
    model: str | None = None


class TextsAnswer(BaseModel):
    embeddings: list[list[float]]
    dimension: int
    model: str
    count: int
    processing_time_ms: float


async def embed_texts(call: Call) -> Response:
    """The vectors of one or several texts, and how long it took."""
    began = time.perf_counter()
    body = checked(TextsBody, call.body, required=("texts",))
    lone = isinstance(body.texts, str)
    texts = texts_of([body.texts] if lone else body.texts, call.max_items, "texts")
    card = await call.card(body.model)
    # sentence-transformers ignores normalize=False where the model's own modules normalise.
    options = Options(normalize=True if body.normalize else None)
    result = await call.run(card, texts, options, field="texts", lone=lone)
    ending = b"," + _facts(card, result, (time.perf_counter() - began) * 1000)[1:-1]
    content = await off_the_loop(result.vectors.nbytes, _embeddings, result, ending)
    return json_response(content, truncation_header(result))


async def ambiguous(call: Call) -> Response:
    """Refuses a body with none or several of the keys."""
    given = [key for key in EMBED_KEYS if key in call.body]
    shown = " and ".join(given) if given else "none of them"
    raise NoSingleKey(f"the body must have exactly one of inputs, text and texts; it has {shown}")


def _facts(card: ModelCard, result: Result, ms: float) -> bytes:
    rows, dimension = result.vectors.shape
    facts = {"dimension": dimension, "model": card.name, "count": rows, "processing_time_ms": round(ms, 3)}
    return orjson.dumps(facts)


def _embeddings(result: Result, ending: bytes) -> bytes:
    return b'{"embeddings":[%b]%b}' % (b",".join(float_rows(result.vectors)), ending)


def error_body(error: LemniError) -> bytes:
    """{"error": text}."""
    return orjson.dumps({"error": error.message})


DIALECT = Dialect(
    "Embedding service (texts)",
    (
        Operation(
            ("/embed",),
            embed_texts,
            "Embed one or several texts",
            claims=only("texts", among=EMBED_KEYS),
            description=str(embed_texts.__doc__),
            body=TextsBody,
            examples={"texts": {"value": {"texts": ["Hello world", "Good morning"], "normalize": True}}},
            answer=TextsAnswer,
        ),
        Operation(
            ("/embed",),
            ambiguous,
            "Anything else",
            description="A body with none or several of inputs, text and texts is refused.",
            body={"type": "object"},
            answer={"not": {}},
        ),
    ),
    error_body,
)
