"""/v1/rerank and /v2/rerank: one answer for the clients of Cohere, Jina, Voyage and vLLM, who share the path.

It has Cohere's `id`, `results` and `meta`, Voyage's `data` and everybody's `usage`. Long documents are cut, never split
into chunks of their own.
"""

from __future__ import annotations

import math
import uuid
from typing import Annotated, Any, Literal

from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.errors import InvalidRequest
from lemni.ranking import ranked
from lemni.server.call import Call, json_response, truncation_header, usage_of
from lemni.server.content import Raw, content_of
from lemni.server.dialect import Dialect, Operation, has
from lemni.server.dialects.openai import error_body
from lemni.server.inputs import TruncateField, checked
from lemni.server.reranking import documents_of, rerank
from lemni.types import Options, Priority

_DOCUMENTS_PER_UNIT = 100  # of Cohere's "search unit"


def _priority(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return "interactive" if value <= 0 else "bulk"
    return value.lower() if isinstance(value, str) else value


PriorityField = Annotated[Priority | None, BeforeValidator(_priority)]
"""Cohere's `priority`: 0 is the highest, over 0 is bulk; or Lemni's own words."""


class RerankBody(BaseModel):
    """`POST /v1/rerank`: the fields of all dialects."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: Any = Field(description="A text, or an object with a text or an image.")
    documents: Any = Field(description="Texts, or objects with a text, an image, or the fields of rank_fields.")
    model: str | None = Field(
        None, description="A name from /v1/models; may be left out if only one model can do this."
    )
    top_n: int | None = Field(None, description="Only the best N; null, 0 or less: all.")
    top_k: int | None = Field(None, description="Voyage's name of top_n.")
    return_documents: bool | None = Field(
        None,
        description="False: no documents in the answer. True: in `data` too. Not given: /v1 gives them in `results`.",
    )
    rank_fields: list[str] | None = Field(None, description="Fields of object documents that are read, in this order.")
    truncation: bool | None = Field(None, description="Voyage: false refuses pairs over the model's length.")
    truncate: TruncateField = Field(None, description="What to do with pairs over the model's length.")
    max_tokens_per_doc: int | None = Field(None, description="Documents are cut to this many tokens.")
    max_chunks_per_doc: int | None = Field(None, ge=1, description="Nothing to do: a document is one chunk here.")
    relevant_spans: dict[str, Any] | None = Field(None, description="Only with the mode disabled.")
    priority: PriorityField = Field(None, description="Over 0: yields to interactive work.")
    raw_scores: bool | None = Field(None, description="The model's logits, instead of its scores.")
    use_activation: bool | None = Field(None, description="vLLM: false is raw_scores.")
    truncate_prompt_tokens: int | None = Field(None, ge=-1, description="vLLM: documents are cut to N tokens.")
    prompt: str | None = Field(None, max_length=10_000, description="The instruction of a causal reranker.")


class RankedDocument(BaseModel):
    index: int = Field(description="Place of the document in the request.")
    relevance_score: float
    document: Any = Field(None, description='`results`: {"text": ...} or the object that was sent. `data`: a text.')


class RerankAnswer(BaseModel):
    id: str
    object: Literal["list"]
    model: str
    results: list[RankedDocument] = Field(description="The best first.")
    data: list[RankedDocument] = Field(description="The same, as Voyage's clients read it.")
    usage: dict[str, int]
    meta: dict[str, Any]


async def rerank_v1(call: Call) -> Response:
    """Documents by their relevance to the query, the best first."""
    return await _rerank(call, "1")


async def rerank_v2(call: Call) -> Response:
    """Documents by their relevance to the query, the best first; they come back only with `return_documents`."""
    return await _rerank(call, "2")


async def _rerank(call: Call, version: str) -> Response:
    body = checked(RerankBody, call.body, required=("query", "documents"))
    if body.relevant_spans is not None and body.relevant_spans.get("mode") != "disabled":
        raise InvalidRequest("relevant_spans: no model here gives spans", param="relevant_spans")
    card = await call.card(body.model, "score")
    documents = documents_of(body.documents, call.max_items, "documents", body.rank_fields)
    query = content_of(body.query, "query")
    result = await rerank(call, card, query, documents, _options(body), priority=body.priority)
    in_results = body.return_documents is not False if version == "1" else body.return_documents is True
    in_data = body.return_documents is True
    best = ranked(result.scores, body.top_n if body.top_n is not None else body.top_k)
    results, data = [], []
    for index, score in best:
        scored = {"index": index, "relevance_score": score}
        # Images are large: they come back to those who ask for them.
        shown = in_results and (in_data or isinstance(documents[index], str))
        results.append({**scored, "document": _whole(body.documents[index])} if shown else scored)
        data.append({**scored, "document": _text(documents[index])} if in_data else scored)
    units = math.ceil(len(documents) / _DOCUMENTS_PER_UNIT)
    answer = {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": card.name,
        "results": results,
        "data": data,
        "usage": usage_of(result),
        "meta": {"api_version": {"version": version}, "billed_units": {"search_units": units}},
    }
    return json_response(answer, truncation_header(result))


def _options(body: RerankBody) -> Options:
    limit = body.truncate_prompt_tokens
    truncate = body.truncate
    if truncate is None and body.truncation is not None:
        truncate = "right" if body.truncation else "error"
    if truncate is None and limit is not None:
        truncate = "right"
    if body.max_tokens_per_doc is not None:
        limit = body.max_tokens_per_doc
    elif limit is not None and limit <= 0:  # vLLM's -1: the model's own length
        limit = None
    raw = body.raw_scores or body.use_activation is False
    return Options(prompt=body.prompt, truncate=truncate, max_tokens=limit, activation="none" if raw else None)


def _whole(document: Any) -> Any:
    return {"text": document} if isinstance(document, str) else document


def _text(document: Raw) -> str | None:
    return document if isinstance(document, str) else None


_QUERY = {"query": "Where do cats sleep?", "documents": ["Cats sleep on the sofa.", "Rust is a language."]}

DIALECT = Dialect(
    "Cohere, Jina and Voyage: reranking",
    (
        Operation(
            ("/v1/rerank", "/v1/v1/rerank"),  # the second: Cohere's client with a base URL that ends in /v1
            rerank_v1,
            "Rerank documents",
            description=str(rerank_v1.__doc__),
            body=RerankBody,
            examples={
                "cohere": {"value": {**_QUERY, "top_n": 1, "return_documents": False}},
                "voyage": {"value": {**_QUERY, "top_k": 1, "truncation": True}},
                "jina": {"value": {**_QUERY, "documents": [{"text": "Cats sleep on the sofa."}]}},
            },
            answer=RerankAnswer,
        ),
        Operation(
            ("/rerank",),
            rerank_v1,
            "Rerank documents",
            claims=lambda body: "texts" not in body and has("truncation", "top_k")(body),
            description="Voyage: base URLs without /v1.",
            body=RerankBody,
            examples={"voyage": {"value": {**_QUERY, "top_k": 1, "truncation": True}}},
            answer=RerankAnswer,
        ),
        Operation(
            ("/v2/rerank", "/v1/v2/rerank"),
            rerank_v2,
            "Rerank documents",
            description=str(rerank_v2.__doc__),
            body=RerankBody,
            examples={"texts": {"value": {**_QUERY, "top_n": 1}}},
            answer=RerankAnswer,
        ),
    ),
    error_body,
)
