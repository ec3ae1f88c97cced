"""Mixedbread's API: `/v1/embeddings` in several encodings at once, and `/v1/reranking` with `input`.

Embedding requests without `normalized` and without encodings of its own get OpenAI's answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.errors import InvalidRequest
from lemni.ranking import ranked
from lemni.server.call import Call, json_response, truncation_header, usage_of
from lemni.server.content import content_of
from lemni.server.dialect import Dialect, Operation, has
from lemni.server.dialects.openai import error_body
from lemni.server.inputs import checked, items_of, lower
from lemni.server.quantized import WIRES, words, written
from lemni.server.reranking import documents_of, rerank
from lemni.types import Options

Encoding = Literal["float", "float16", "base64", "int8", "uint8", "binary", "ubinary"]
_OPENAI = ("float", "base64")


class EmbeddingsBody(BaseModel):
    """`POST /v1/embeddings` with `normalized` or Mixedbread's encodings."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Any = Field(description="A text or a list of texts.")
    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one model is served.")
    dimensions: int | None = Field(None, description="Keep the first N values and normalise again.")
    prompt: str | None = Field(None, max_length=10_000, description="Text put before every input.")
    normalized: bool | None = Field(None, description="Vectors of unit length, which is the default.")
    encoding_format: Annotated[list[Encoding] | None, BeforeValidator(words)] = Field(
        None,
        description="float, float16, base64, int8, uint8, binary or ubinary, or a list: then `embedding` is an object.",
    )


class Embedding(BaseModel):
    object: Literal["embedding", "embedding_dict"]
    index: int
    embedding: Any


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: dict[str, int]
    normalized: bool
    encoding_format: str | list[str]
    dimensions: int


class RerankingBody(BaseModel):
    """`POST /v1/reranking`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: Any = Field(description="A text.")
    input: Any = Field(description="Texts or objects.")
    model: str | None = Field(
        None, description="A name from /v1/models; may be left out if only one model can do this."
    )
    rank_fields: list[str] | None = Field(None, description="Fields of objects that are read, in this order.")
    top_k: int | None = Field(None, description="Only the best N; null, 0 or less: all.")
    return_input: bool | None = Field(None, description="Give each input back.")
    rewrite_query: bool | None = Field(None, description="Only false: queries are not rewritten here.")


class Ranked(BaseModel):
    object: Literal["rank_result"]
    index: int
    score: float
    input: Any


class RerankingAnswer(BaseModel):
    object: Literal["list"]
    data: list[Ranked]
    model: str
    usage: dict[str, int]
    top_k: int
    return_input: bool


def claims(body: Mapping[str, Any]) -> bool:
    """Whether a body has `normalized` or an encoding that OpenAI does not have."""
    encoding = body.get("encoding_format")
    return (
        body.get("normalized") is not None
        or isinstance(encoding, list)
        or (lower(encoding) in get_args(Encoding) and lower(encoding) not in _OPENAI)
    )


async def embeddings(call: Call) -> Response:
    """Vectors of texts in one encoding, or in several at once."""
    body = checked(EmbeddingsBody, call.body, required=("input",))
    if body.encoding_format == []:
        raise InvalidRequest("encoding_format is an empty list; it must name an encoding", param="encoding_format")
    items, lone = items_of(body.input, call.max_items)
    card = await call.card(body.model)
    normalized = body.normalized is not False
    options = Options(body.dimensions, normalized, prompt=body.prompt)
    result = await call.run(card, items, options, lone=lone)
    formats = list(dict.fromkeys(body.encoding_format or ["float"]))
    several = isinstance(call.body.get("encoding_format"), list)
    ending = {
        "model": card.name,
        "usage": usage_of(result),
        "normalized": normalized,
        "encoding_format": formats if several else formats[0],
        "dimensions": result.vectors.shape[1],
    }

    def write(*rows: list[bytes]) -> bytes:
        keys = [one.encode() for one in formats]
        data = b",".join(
            b'{"object":"%b","index":%d,"embedding":%b}'
            % (
                b"embedding_dict" if several else b"embedding",
                index,
                b"{%b}" % b",".join(b'"%b":%b' % pair for pair in zip(keys, forms, strict=True))
                if several
                else forms[0],
            )
            for index, forms in enumerate(zip(*rows, strict=True))
        )
        return b'{"object":"list","data":[%b],%b' % (data, orjson.dumps(ending)[1:])

    content = await written(call, card, options, result.vectors, [WIRES[one] for one in formats], write)
    return json_response(content, truncation_header(result))


async def reranking(call: Call) -> Response:
    """Inputs by their relevance to the query, the best first."""
    body = checked(RerankingBody, call.body, required=("query", "input"))
    if body.rewrite_query:
        raise InvalidRequest("rewrite_query is true: queries are not rewritten here", param="rewrite_query")
    card = await call.card(body.model, "score")
    documents = documents_of(body.input, call.max_items, "input", body.rank_fields)
    result = await rerank(call, card, content_of(body.query, "query"), documents, field="input")
    data = [
        {
            "index": index,
            "score": score,
            "input": body.input[index] if body.return_input else None,
            "object": "rank_result",
        }
        for index, score in ranked(result.scores, body.top_k)
    ]
    answer = {
        "usage": usage_of(result),
        "model": card.name,
        "data": data,
        "object": "list",
        "top_k": len(data),
        "return_input": body.return_input is True,
    }
    return json_response(answer, truncation_header(result))


DIALECT = Dialect(
    "Mixedbread",
    (
        Operation(
            ("/v1/embeddings", "/embeddings"),
            embeddings,
            "Embed texts in several encodings",
            claims=claims,
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples={
                "encodings": {"value": {"input": ["A cat sits on the mat."], "encoding_format": ["float", "int8"]}}
            },
            answer=EmbeddingsAnswer,
        ),
        Operation(
            ("/v1/reranking", "/reranking"),
            reranking,
            "Rerank inputs",
            claims=has("input"),
            description=str(reranking.__doc__),
            body=RerankingBody,
            examples={
                "texts": {"value": {"query": "Where do cats sleep?", "input": ["On the sofa.", "In Rust."], "top_k": 1}}
            },
            answer=RerankingAnswer,
        ),
    ),
    error_body,
)
