"""Ollama's API for embeddings: /api/embed, /api/embeddings, and what its clients ask before: tags, show, ps, version.

Models are not pulled, created or deleted through it. A name may end in a tag (`:latest`), which is left out. Errors are
{"error": text}.
"""

from __future__ import annotations

import hashlib
import time
from datetime import datetime, timezone
from typing import Any

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from lemni.errors import InvalidRequest, LemniError, UnknownModel
from lemni.server.body import kind_of
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.dialect import Dialect, Operation
from lemni.server.inputs import checked, texts_of
from lemni.server.rows import float_rows, off_the_loop
from lemni.types import ModelCard, Options, Result

VERSION = "0.12.0"
"""The version of Ollama's API that this is: clients compare it."""

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_QUANTIZATION = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class EmbedBody(BaseModel):
    """`POST /api/embed`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="A name from /api/tags.")
    input: Any = Field(None, description="A text or a list of texts.")
    truncate: bool | None = Field(None, description="False refuses texts over the model's length.")
    dimensions: int | None = Field(None, description="Keep the first N values and normalise again.")
    options: Any = Field(None, description="Ignored: nothing of it concerns embeddings here.")
    keep_alive: Any = Field(None, description="Ignored: models stay loaded.")


class EmbedAnswer(BaseModel):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsBody(BaseModel):
    """`POST /api/embeddings`, the older form."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    prompt: str | None = None
    options: Any = None
    keep_alive: Any = None


class EmbeddingsAnswer(BaseModel):
    embedding: list[float]


class ShowBody(BaseModel):
    """`POST /api/show`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    name: str | None = Field(None, description="Older name of `model`.")


async def embed(call: Call) -> Response:
    """Unit vectors of the inputs."""
    began = time.perf_counter_ns()
    body = checked(EmbedBody, call.body)
    card = await _card(call, body.model)
    given = body.input
    if given is None or given == "" or given == []:
        return json_response({"model": body.model or card.name, "embeddings": []})
    if not isinstance(given, str | list):
        raise InvalidRequest(f"input is {kind_of(given)}; it must be a string or a list of strings", param="input")
    lone = isinstance(given, str)
    texts = texts_of([given] if lone else given, call.max_items, "input")
    wanted = body.dimensions
    dimensions = wanted if wanted is not None and 0 < wanted <= (card.dimensions or 0) else None
    options = Options(dimensions, True, truncate=None if body.truncate is None else _truncate(body.truncate))
    result = await call.run(card, texts, options, lone=lone)
    facts = {
        "total_duration": time.perf_counter_ns() - began,
        "load_duration": 0,
        "prompt_eval_count": int(result.token_counts.sum()),
    }
    content = await off_the_loop(result.vectors.nbytes, _embeddings, body.model or card.name, result, facts)
    return json_response(content, truncation_header(result))


async def embeddings(call: Call) -> Response:
    """The vector of one prompt, as the model's own modules give it."""
    body = checked(EmbeddingsBody, call.body)
    card = await _card(call, body.model)
    if not body.prompt:
        return json_response({"embedding": []})
    result = await call.run(card, [body.prompt], field="prompt", lone=True)
    [row] = float_rows(result.vectors)
    return json_response(b'{"embedding":%b}' % row, truncation_header(result))


async def tags(call: Call) -> Response:
    """The served models."""
    return json_response({"models": [_listed(card, call.service.created) for card in await call.service.cards()]})


async def running(call: Call) -> Response:
    """The loaded models, which are all of them."""
    far = "9999-12-31T23:59:59Z"
    cards = await call.service.cards()
    more = [{"expires_at": far, "size_vram": 0 if card.device == "cpu" else _size(card)} for card in cards]
    listed = [_listed(card, call.service.created) for card in cards]
    return json_response({"models": [{**one, **other} for one, other in zip(listed, more, strict=True)]})


async def show(call: Call) -> Response:
    """What a model is."""
    body = checked(ShowBody, call.body)
    card = await _card(call, body.model or body.name)
    listed = _listed(card, call.service.created)
    family = card.architecture.lower()
    return json_response(
        {
            "details": listed["details"],
            "model_info": {
                "general.architecture": family,
                "general.parameter_count": card.parameters,
                f"{family}.context_length": card.max_length,
                f"{family}.embedding_length": card.dimensions,
            },
            "capabilities": ["embedding"] if "embed" in card.tasks else [],
            "modified_at": listed["modified_at"],
            "license": "",
            "modelfile": "",
            "parameters": "",
            "template": "",
        }
    )


async def version(call: Call) -> Response:
    """The version of the API."""
    return json_response({"version": VERSION})


async def _card(call: Call, name: str | None) -> ModelCard:
    """By name, with or without a tag. A model must be named."""
    if not name:
        raise InvalidRequest("model is required", param="model")
    try:
        return await call.card(name)
    except UnknownModel:
        bare, _, _ = name.rpartition(":")
        if not bare:
            raise
        return await call.card(bare)


def _truncate(value: bool) -> Any:
    return "right" if value else "error"


def _embeddings(name: str, result: Result, facts: dict[str, int]) -> bytes:
    rows = b",".join(float_rows(result.vectors))
    return b'{"model":%b,"embeddings":[%b],%b' % (orjson.dumps(name), rows, orjson.dumps(facts)[1:])


def _listed(card: ModelCard, created: int) -> dict[str, Any]:
    family = card.architecture.lower()
    return {
        "name": _tagged(card.name),
        "model": _tagged(card.name),
        "modified_at": datetime.fromtimestamp(created, timezone.utc).isoformat(),
        "size": _size(card),
        "digest": hashlib.sha256(f"{card.model_id}@{card.revision}".encode()).hexdigest(),
        "details": {
            "parent_model": "",
            "format": "safetensors",
            "family": family,
            "families": [family],
            "parameter_size": f"{card.parameters / 1e6:.1f}M",
            "quantization_level": _QUANTIZATION.get(card.dtype, card.dtype.upper()),
        },
    }


def _tagged(name: str) -> str:
    """As Ollama lists it: clients that check a name against the list look for the name or for NAME:latest."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _size(card: ModelCard) -> int:
    """Bytes of the weights."""
    return card.parameters * _BYTES.get(card.dtype, 4)


def error_body(error: LemniError) -> bytes:
    """{"error": text}."""
    return orjson.dumps({"error": error.message})


DIALECT = Dialect(
    "Ollama",
    (
        Operation(
            ("/api/embed",),
            embed,
            "Embed texts",
            description=str(embed.__doc__),
            body=EmbedBody,
            examples={"text": {"value": {"model": "all-MiniLM-L6-v2", "input": "Why is the sky blue?"}}},
            answer=EmbedAnswer.model_json_schema() | {"required": ["model", "embeddings"]},
        ),
        Operation(
            ("/api/embeddings",),
            embeddings,
            "Embed one prompt (older form)",
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples={"prompt": {"value": {"model": "all-MiniLM-L6-v2", "prompt": "Why is the sky blue?"}}},
            answer=EmbeddingsAnswer,
        ),
        Operation(
            ("/api/show",),
            show,
            "Show a model",
            description=str(show.__doc__),
            body=ShowBody,
            examples={"model": {"value": {"model": "all-MiniLM-L6-v2"}}},
            answer={"type": "object"},
        ),
        Operation(("/api/tags",), tags, "List models", "GET", answer={"type": "object"}),
        Operation(("/api/ps",), running, "List loaded models", "GET", answer={"type": "object"}),
        Operation(("/api/version",), version, "Version of the API", "GET", answer={"type": "object"}),
    ),
    error_body,
    prefix="/api/",
)
