"""OpenAI's embeddings API, as its clients and those of its look-alikes use it: /v1/embeddings and /v1/models.

The same routes exist without /v1, for clients whose base URL lacks it. Extensions are plain extra fields.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi.responses import Response

from lemni.errors import LemniError
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.dialect import Dialect, Operation, has
from lemni.server.dialects.openai_schemas import EXAMPLES, EmbeddingsAnswer, EmbeddingsBody, Model, ModelList
from lemni.server.inputs import checked, items_of, side_of
from lemni.server.rows import base64_rows, float_rows, off_the_loop
from lemni.types import ModelCard, Options, Result

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


async def embeddings(call: Call) -> Response:
    """Vectors of the inputs, in their order. The response header `x-lemni-truncated` names inputs that were cut."""
    body = checked(EmbeddingsBody, call.body, required=("input",))
    items, lone = items_of(body.input, call.max_items)
    card = await call.card(body.model)
    name, side = side_of(body.input_type, card)
    options = Options(body.dimensions, body.normalize, body.prompt, body.prompt_name or name, side, body.truncate)
    result = await call.run(card, items, options, lone=lone, priority=body.priority, deadline_s=body.deadline_s)
    base64 = (body.encoding_format or body.encoding) == "base64"
    content = await off_the_loop(result.vectors.nbytes, write_embeddings, card.name, result, base64)
    return json_response(content, truncation_header(result))


async def models(call: Call) -> Response:
    """The served models: OpenAI's fields, and what each of them can do."""
    service = call.service
    return json_response({"object": "list", "data": [_model(card, service.created) for card in await service.cards()]})


async def model(call: Call) -> Response:
    """One served model, by any name that /v1/embeddings takes."""
    return json_response(_model(await call.card(call.http.path_params["model_id"]), call.service.created))


def write_embeddings(name: str, result: Result, base64: bool) -> bytes:
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


def _model(card: ModelCard, created: int) -> dict[str, Any]:
    warnings = []
    if card.dimensions is not None and not card.matryoshka_dimensions:
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
        "capabilities": list(card.tasks),
        "modalities": list(card.modalities),
        "labels": list(card.labels),
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


DIALECT = Dialect(
    "OpenAI",
    (
        Operation(
            ("/v1/embeddings", "/embeddings"),
            embeddings,
            "Create embeddings",
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples=EXAMPLES,
            answer=EmbeddingsAnswer,
        ),
        Operation(
            ("/", "/invocations"),
            embeddings,
            "Create embeddings",
            claims=has("input"),
            description="The same, for clients that know no path.",
            body=EmbeddingsBody,
            examples=EXAMPLES,
            answer=EmbeddingsAnswer,
        ),
        Operation(("/v1/models", "/models"), models, "List models", "GET", answer=ModelList),
        Operation(
            ("/v1/models/{model_id:path}", "/models/{model_id:path}"), model, "Show one model", "GET", answer=Model
        ),
    ),
    error_body,
)
