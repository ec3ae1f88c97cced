"""OpenAI's embeddings API, as its clients and those of its look-alikes use it: /v1/embeddings and /v1/models.

The same routes exist without /v1, for clients whose base URL lacks it. Extensions are plain extra fields, and raw bytes
for a client whose `Accept` header names safetensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from fastapi.responses import Response

from lemni.errors import InvalidRequest, LemniError
from lemni.server.call import Call, json_response, truncation_header, usage_of
from lemni.server.content import inputs_of, modality_of
from lemni.server.dialect import Dialect, Operation, has
from lemni.server.dialects.openai_schemas import EXAMPLES, EmbeddingsAnswer, EmbeddingsBody, Error, Model, ModelList
from lemni.server.inputs import checked, side_of
from lemni.server.quantized import Wire, written
from lemni.server.rows import base64_matrices, base64_rows, float_rows, off_the_loop, sparse_rows
from lemni.server.safetensors import MEDIA_TYPE, VARY, safetensors_response, wanted
from lemni.tasks.output_types import convert_scaled
from lemni.types import ModelCard, Options, Result, Task

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


async def embeddings(call: Call) -> Response:
    """Vectors of the inputs, in their order: texts, token ids, or, for models that take them, images and sounds.

    A late-interaction model gives a list of vectors each. The header `x-lemni-truncated` names inputs that were
    cut. `Accept: application/x-safetensors` gives one safetensors file instead of JSON.
    """
    body = checked(EmbeddingsBody, {**_uploaded(call.body), **call.body}, required=("input",))
    raw, lone = inputs_of(body.input, call.max_items, dict | bytes)
    asked = [_TASKS[output] for output in body.outputs or ("dense", "multi_vector")]
    card = await call.card(body.model, *asked, modality=modality_of(raw))
    outputs = tuple(dict.fromkeys(body.outputs or ("multi_vector" if _only_many(card) else "dense",)))
    if body.output_type not in (None, "float32") and outputs != ("dense",):
        raise InvalidRequest(
            f"output_type {body.output_type} is for dense vectors, not for {' and '.join(outputs)}", param="output_type"
        )
    name, side = side_of(body.input_type, card)
    options = Options(body.dimensions, body.normalize, body.prompt, body.prompt_name or name, side, body.truncate)
    result = await call.run(
        card,
        await call.items(card, raw, lone=lone),
        options,
        tasks=tuple(_TASKS[output] for output in outputs),
        lone=lone,
        priority=body.priority,
        deadline_s=body.deadline_s,
    )
    if wanted(call.http):
        return await safetensors_response(call, card, options, result, outputs, body.output_type or "float32")
    base64 = (body.encoding_format or body.encoding) == "base64"
    if body.output_type not in (None, "float32"):
        content = await _typed(call, card, options, result, body.output_type, base64)
    else:
        size = result.vectors.nbytes + sum(one.nbytes for one in result.multi_vectors)
        content = await off_the_loop(size, write_embeddings, card.name, result, base64, outputs)
    return json_response(content, {**VARY, **truncation_header(result)})


async def models(call: Call) -> Response:
    """The served models: OpenAI's fields, and what each of them can do."""
    cards = await call.service.cards()
    data = [describe(card, call.service.created) for card in cards]
    return json_response({"object": "list", "data": data, "models": [as_cohere(card) for card in cards]})


async def model(call: Call) -> Response:
    """One served model, by any name that /v1/embeddings takes."""
    card = await call.card(call.http.path_params["model_id"])
    return json_response(describe(card, call.service.created))


def write_embeddings(name: str, result: Result, base64: bool, outputs: tuple[str, ...] = ("dense",)) -> bytes:
    """The answer's JSON: object, data (object, index, embedding), model, usage. Dense vectors are `embedding`, or else
    multi-vectors are; others have fields of their own. Beside multi-vectors in base64 is their shape."""
    columns: dict[bytes, Iterable[bytes]] = {}
    for output in outputs:
        if output == "dense":
            columns[b"embedding"] = (base64_rows if base64 else float_rows)(result.vectors)
        elif output == "sparse":
            columns[b"sparse_embedding"] = sparse_rows(result.sparse)
        else:
            alone = "dense" not in outputs
            many = result.multi_vectors
            columns[b"embedding" if alone else b"multi_vector"] = (
                base64_matrices(many, b"shape" if alone else b"multi_vector_shape") if base64 else float_rows(many)
            )
    template = b",".join(b'"%b":%%b' % key for key in columns)
    data = b",".join(
        b'{"object":"embedding","index":%d,%b}' % (i, template % row)
        for i, row in enumerate(zip(*columns.values(), strict=True))
    )
    return _enveloped(name, result, data)


async def _typed(
    call: Call, card: ModelCard, options: Options, result: Result, output_type: str, base64: bool
) -> bytes:
    """The answer with vectors of another number type; int8 by the model's ranges, or by a scale of each vector."""

    def write(rows: list[bytes], ends: Iterable[bytes] = itertools.repeat(b"")) -> bytes:
        data = b",".join(
            b'{"object":"embedding","index":%d,"embedding":%b%b}' % (i, row, end)
            for i, (row, end) in enumerate(zip(rows, ends, strict=False))
        )
        return _enveloped(card.name, result, data)

    def write_scaled() -> bytes:
        codes, scales = convert_scaled(result.vectors)
        rows = (base64_rows if base64 else float_rows)(codes, "int8")
        return write(list(rows), (b',"scale":%b' % orjson.dumps(float(scale)) for scale in scales))

    if output_type == "int8_scaled":
        return await off_the_loop(result.vectors.nbytes, write_scaled)
    wire = Wire(output_type, base64)  # type: ignore[arg-type]
    return await written(call, card, options, result.vectors, [wire], write)


def _enveloped(name: str, result: Result, data: bytes) -> bytes:
    usage = orjson.dumps(usage_of(result))
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (data, orjson.dumps(name), usage)


def _uploaded(body: Mapping[str, Any]) -> dict[str, Any]:
    """The input of a form that calls its file "file", as most do."""
    names = (name for name in ("file", "image", "audio") if body.get(name) is not None)
    return {"input": body[name]} if (name := next(names, None)) else {}


def _only_many(card: ModelCard) -> bool:
    return "embed" not in card.tasks and "multi_vector" in card.tasks


_TASKS: dict[str, Task] = {"dense": "embed", "sparse": "sparse", "multi_vector": "multi_vector"}


def error_body(error: LemniError) -> bytes:
    """OpenAI's error object, where `param` names the item that is guilty; beside it the message where the clients of
    Cohere (`message`), Jina and Voyage (`detail`) look for it, who share paths with OpenAI's."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    detail = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return orjson.dumps({"error": detail, "message": error.message, "detail": error.message})


def as_cohere(card: ModelCard) -> dict[str, Any]:
    """A model as Cohere's clients read it, who share the path."""
    endpoints = {"embed": "embed", "score": "rerank", "classify": "classify"}
    does = [endpoints[task] for task in card.tasks if task in endpoints]
    return {"name": card.name, "endpoints": does, "context_length": card.max_length}


def describe(card: ModelCard, created: int) -> dict[str, Any]:
    """A model in the list: what `Model` documents."""
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
        **as_cohere(card),
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
            also=(MEDIA_TYPE,),
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
            also=(MEDIA_TYPE,),
        ),
        Operation(("/v1/models",), models, "List models", "GET", answer=ModelList),
        Operation(
            ("/v1/models/{model_id:path}", "/models/{model_id:path}"), model, "Show one model", "GET", answer=Model
        ),
    ),
    error_body,
    error=Error,
)
