"""OpenAI's embeddings API, as its clients and those of its look-alikes use it: /v1/embeddings and /v1/models.

The same routes exist without /v1, for clients whose base URL lacks it. Extensions are plain extra fields.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from lemni.errors import InvalidRequest, LemniError
from lemni.server.body import read_object
from lemni.server.dialects import Dialect
from lemni.server.dialects.openai_input import items_of
from lemni.server.dialects.openai_schemas import EXAMPLES, EmbeddingsAnswer, EmbeddingsBody, Error, Model, ModelList
from lemni.server.errors import log
from lemni.server.rows import base64_rows, float_rows, off_the_loop
from lemni.server.service import service_of
from lemni.types import EmbedOptions, EmbedResult, ModelCard
from lemni.types import Request as EmbedRequest

router = APIRouter(tags=["OpenAI"])

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Words of other APIs for the two prompts that retrieval models have.
_QUERY = ("query", "search_query")
_DOCUMENT = ("document", "passage", "search_document", "corpus")
_MOST_INDICES = 100  # of the header that names truncated items

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "Something in the request is wrong; the message names the item."},
    401: {"model": Error, "description": "The API key is missing or wrong."},
    404: {"model": Error, "description": "The model is not served here."},
    413: {"model": Error, "description": "The body is too large."},
    415: {"model": Error, "description": "The body is not JSON."},
    429: {"model": Error, "description": "The queue is full; Retry-After says when to come back."},
    503: {"model": Error, "description": "Loading or shutting down; Retry-After says when to come back."},
    504: {"model": Error, "description": "Not finished within deadline_s."},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EmbeddingsBody.model_json_schema(), "examples": EXAMPLES}},
    }
}
_MODEL_ID = {
    "parameters": [
        {
            "name": "model_id",
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "example": "sentence-transformers/all-MiniLM-L6-v2",
        }
    ]
}


@router.post(
    "/v1/embeddings",
    summary="Create embeddings",
    responses={200: {"model": EmbeddingsAnswer}, **_ERRORS},
    openapi_extra=_BODY,
)
@router.post(
    "/embeddings",
    summary="Create embeddings (without /v1)",
    responses={200: {"model": EmbeddingsAnswer}, **_ERRORS},
    openapi_extra=_BODY,
)
async def embeddings(http: Request) -> Response:
    """Vectors of the inputs, in their order. The response header `x-lemni-truncated` names inputs that were cut."""
    service = service_of(http)
    body = _checked(await read_object(http, service.settings.max_body_mib))
    items = items_of(body.input, service.settings.max_items)
    card = await service.model(body.model)
    options = EmbedOptions(body.dimensions, body.normalize, body.prompt, _prompt_name(body, card), body.truncate)
    deadline_s = None if body.deadline_s is None else min(body.deadline_s, service.longest_s)
    request = EmbedRequest(items, options, body.priority or "interactive", deadline_s)
    try:
        result = await service.embed(http, card.name, request)
    except LemniError as error:
        raise _about_input(error, single=items is not body.input) from None
    base64 = (body.encoding_format or body.encoding) == "base64"
    content = await off_the_loop(result.vectors.nbytes, write_embeddings, card.name, result, base64)
    return Response(content, headers=_truncation(result), media_type="application/json")


@router.get("/v1/models", summary="List models", responses={200: {"model": ModelList}, 401: _ERRORS[401]})
@router.get("/models", summary="List models (without /v1)", responses={200: {"model": ModelList}, 401: _ERRORS[401]})
async def models(http: Request) -> Response:
    """The served models: OpenAI's fields, and what each of them can do."""
    service = service_of(http)
    data = [_model(card, service.created) for card in await service.cards()]
    return _json({"object": "list", "data": data})


@router.get(
    "/v1/models/{model_id:path}",
    summary="Show one model",
    responses={200: {"model": Model}, 401: _ERRORS[401], 404: _ERRORS[404]},
    openapi_extra=_MODEL_ID,
)
@router.get(
    "/models/{model_id:path}",
    summary="Show one model (without /v1)",
    responses={200: {"model": Model}, 401: _ERRORS[401], 404: _ERRORS[404]},
    openapi_extra=_MODEL_ID,
)
async def model(http: Request) -> Response:
    """One served model, by any name that /v1/embeddings takes."""
    service = service_of(http)
    return _json(_model(await service.model(http.path_params["model_id"]), service.created))


def write_embeddings(name: str, result: EmbedResult, base64: bool) -> bytes:
    """The answer's JSON: object, data (object, index, embedding), model, usage."""
    rows = base64_rows(result.vectors) if base64 else float_rows(result.vectors)
    data = b",".join(b'{"object":"embedding","index":%d,"embedding":%b}' % (i, row) for i, row in enumerate(rows))
    tokens = int(result.token_counts.sum())
    usage = b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (data, orjson.dumps(name), usage)


def error_body(error: LemniError) -> bytes:
    """OpenAI's error object; `param` names the item where one is guilty."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    detail = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return orjson.dumps({"error": detail})


def _checked(data: dict[str, Any]) -> EmbeddingsBody:
    if data.get("input") is None:
        raise InvalidRequest("input is missing", param="input")
    try:
        return EmbeddingsBody.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        given = first["input"]
        shown = repr(given) if isinstance(given, str | int | float) else type(given).__name__
        must = first["msg"].replace("Input should", "must").replace("String should", "must").replace("valid ", "")
        raise InvalidRequest(f"{name} is {shown[:100]}: it {must}", param=name) from None


def _prompt_name(body: EmbeddingsBody, card: ModelCard) -> str | None:
    """The prompt that the request asks for by name, or by `input_type` if the model has one for it."""
    if body.prompt_name is not None or body.prompt is not None or body.input_type is None:
        return body.prompt_name
    wanted = body.input_type.lower()
    same = next((words for words in (_QUERY, _DOCUMENT) if wanted in words), (wanted,))
    own = {name.lower(): name for name in card.prompts}
    if found := next((own[word] for word in (wanted, *same) if word in own), None):
        return found
    if wanted in (*_QUERY, *_DOCUMENT):
        return None  # a model without prompts treats both sides alike
    known = ", ".join(dict.fromkeys(("query", "document", *card.prompts)))
    raise InvalidRequest(f"input_type is {body.input_type[:100]!r}; {card.name} knows: {known}", param="input_type")


def _about_input(error: LemniError, *, single: bool) -> LemniError:
    """The engine speaks of items; the caller sent `input`."""
    if error.param in ("items", "input") or error.item is not None:
        error.param = "input" if single or error.item is None else f"input[{error.item}]"
    return error


def _truncation(result: EmbedResult) -> dict[str, str]:
    """The header that says which items lost tokens."""
    cut = result.truncated
    if not cut:
        return {}
    log.debug("truncated items: %s", cut)
    more = len(cut) - _MOST_INDICES
    return {"x-lemni-truncated": ",".join(map(str, cut[:_MOST_INDICES])) + (f" and {more} more" if more > 0 else "")}


def _model(card: ModelCard, created: int) -> dict[str, Any]:
    warnings = []
    if not card.matryoshka_dimensions:
        warnings.append(
            f"the model's files do not say that it was trained for fewer than {card.dimensions} dimensions: "
            "shorter vectors (dimensions) lose quality"
        )
    return {
        "id": card.name,
        "object": "model",
        "created": created,
        "owned_by": "lemni",
        # A folder's path is nobody's business.
        "model_id": card.name if card.source == "folder" else card.model_id,
        "revision": card.revision,
        "architecture": card.architecture,
        "capabilities": [card.task],
        "backend": card.runtime,
        "runtime": card.runtime,
        "device": card.device,
        "dtype": card.dtype,
        "parameters": card.parameters,
        "dimensions": card.dimensions,
        "max_length": card.max_length,
        "vocabulary": card.vocabulary,
        "matryoshka_dimensions": list(card.matryoshka_dimensions),
        "prompts": card.prompts,
        "default_prompt_name": card.default_prompt_name,
        "similarity": card.similarity,
        "normalized": card.normalized,
        "warnings": warnings,
    }


def _json(data: dict[str, Any]) -> Response:
    return Response(orjson.dumps(data), media_type="application/json")


DIALECT = Dialect(router, error_body)
