"""NVIDIA NIM's ranking: `POST /v1/ranking` with a query and passages as objects; the answer is logits, the best first.
NVIDIA's own service has it at `/v1/retrieval/MODEL/reranking`.

NIM's embeddings are OpenAI's with `input_type` (query, passage) and `truncate` (NONE, START, END), which the OpenAI
dialect takes.
"""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from lemni.errors import UnknownModel
from lemni.ranking import ranked
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.content import content_of
from lemni.server.dialect import Dialect, Operation
from lemni.server.dialects.openai import error_body
from lemni.server.inputs import TruncateField, checked
from lemni.server.reranking import documents_of, rerank
from lemni.types import ModelCard, Options


class RankingBody(BaseModel):
    """`POST /v1/ranking`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: Any = Field(description='An object with a text: {"text": ...}.')
    passages: Any = Field(description="A list of such objects.")
    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one can rerank.")
    truncate: TruncateField = Field(None, description="NONE refuses what is too long, END cuts it.")
    top_k: int | None = Field(None, description="Only the best N; null, 0 or less: all. litellm sends it.")


class Ranking(BaseModel):
    index: int
    logit: float


class RankingAnswer(BaseModel):
    rankings: list[Ranking]


async def ranking(call: Call) -> Response:
    """The passages by their logits for the query, the best first."""
    body = checked(RankingBody, call.body, required=("query", "passages"))
    card = await _card(call, body.model)
    passages = documents_of(body.passages, call.max_items, "passages")
    options = Options(truncate=body.truncate, activation="none")
    result = await rerank(call, card, content_of(body.query, "query"), passages, options, field="passages")
    rankings = [{"index": index, "logit": score} for index, score in ranked(result.scores, body.top_k)]
    return json_response({"rankings": rankings}, truncation_header(result))


async def _card(call: Call, name: str | None) -> ModelCard:
    """The path's model, else the body's: litellm thinks of NVIDIA's names, which have underscores in the path where the
    body has periods, and so changes every name with an underscore."""
    if in_path := call.http.path_params.get("model_id"):
        try:
            return await call.card(in_path, "score")
        except UnknownModel:
            if name is None:
                raise
    return await call.card(name, "score")


DIALECT = Dialect(
    "NVIDIA NIM",
    (
        Operation(
            ("/v1/ranking", "/v1/retrieval/{model_id:path}/reranking"),
            ranking,
            "Rank passages",
            description=str(ranking.__doc__),
            body=RankingBody,
            examples={
                "passages": {
                    "value": {
                        "query": {"text": "Where do cats sleep?"},
                        "passages": [{"text": "On the sofa."}, {"text": "In Rust."}],
                    }
                }
            },
            answer=RankingAnswer,
        ),
    ),
    error_body,
)
