"""Infinity's REST API (infinity-emb 0.0.78): /embeddings with `modality`, /rerank, /classify, /models, two old routes.

Where Infinity's own answer would surprise a client of ours, ours is used: unknown models are 404, `top_n` of 0 or -1
means all, bare base64 images and `encoding` are taken (the clients of its seeds send them), usage counts tokens.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

import orjson
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.engine import ModelStatus
from lemni.errors import InvalidRequest
from lemni.ranking import ranked
from lemni.server.call import Call, json_response, truncation_header, usage_of
from lemni.server.content import Raw, RawAudio, RawImage, content_of
from lemni.server.dialect import Dialect, Operation
from lemni.server.dialects.openai import as_cohere, describe, error_body
from lemni.server.dialects.openai_schemas import CohereModel, Model
from lemni.server.inputs import EncodingField, TruncateField, check_count, checked, lower, side_of, texts_of
from lemni.server.reranking import documents_of, rerank
from lemni.server.rows import base64_matrices, base64_rows, float_rows, off_the_loop
from lemni.server.safetensors import MEDIA_TYPE, VARY, safetensors_response, wanted
from lemni.types import Modality, ModelCard, Options, Result, Task

_MODEL = "A name from /models; may be left out if only one model can do this."


class EmbeddingsBody(BaseModel):
    """`POST /embeddings` with a `modality`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Any = Field(description="A text, URL, data URI or base64 string, or a list of those.")
    model: str | None = Field(None, description=_MODEL)
    modality: Annotated[Modality | None, BeforeValidator(lower)] = Field(None, description="What the inputs are.")
    encoding_format: EncodingField = Field(
        None, description="base64: little-endian float32; a multi-vector is flat, with its `shape`."
    )
    encoding: EncodingField = Field(None, description="Another name of encoding_format, which wins.")
    dimensions: int | None = Field(None, description="Keep the first N values and normalise again; 0 keeps all.")
    input_type: str | None = Field(None, description="query or document, for models that tell them apart.")
    user: Any = Field(None, description="Ignored.")


class MediaBody(BaseModel):
    """`POST /embeddings_image` and `/embeddings_audio`: deprecated in favour of `modality`."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Any = Field(description="A URL, data URI or base64 string, or a list of those.")
    model: str | None = Field(None, description=_MODEL)
    encoding_format: EncodingField = None
    encoding: EncodingField = None
    user: Any = None


class RerankBody(BaseModel):
    """`POST /rerank`. The fields from `truncate` on are Lemni's own."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: Any = Field(description="A text, or an object with a text or an image.")
    documents: Any = Field(description="Texts, or objects with a text or an image.")
    model: str | None = Field(None, description=_MODEL)
    return_documents: bool | None = Field(None, description="Give each document's text back.")
    raw_scores: bool | None = Field(None, description="The model's logits, instead of scores from 0 to 1.")
    top_n: int | None = Field(None, description="Only the best N; null, 0 or less: all.")
    truncate: TruncateField = Field(None, description="What to do with pairs over the model's length.")
    prompt: str | None = Field(None, max_length=10_000, description="The instruction of a causal reranker.")


class ClassifyBody(BaseModel):
    """`POST /classify`. `truncate` is Lemni's own."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Any = Field(description="A list of texts.")
    model: str | None = Field(None, description=_MODEL)
    raw_scores: bool | None = Field(None, description="Logits instead of probabilities.")
    truncate: TruncateField = Field(None, description="What to do with texts over the model's length.")


class Stats(BaseModel):
    """How busy a model is."""

    queue_fraction: float = Field(description="Tokens that wait, as a share of max_queue_tokens.")
    queue_absolute: int = Field(description="Sequences that wait.")
    results_pending: int = Field(description="Sequences that are being computed.")
    batch_size: int = Field(description="Items of one forward pass, on average so far; batches are cut by tokens.")


class InfinityModel(Model):
    """Infinity's fields of a model among OpenAI's and Lemni's."""

    owned_by: Literal["infinity"] = Field(description="What Infinity's client insists on.")
    backend: str = Field(description="Infinity's name of the kind of `runtime`.")
    capabilities: list[str] = Field(description="Of embed, rerank, classify, image_embed and audio_embed.")
    stats: Stats


class InfinityModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[InfinityModel]
    models: list[CohereModel]


async def models(call: Call) -> Response:
    """The served models as Infinity's clients read them, with their load; all fields of `/v1/models` are here too."""
    cards = await call.service.cards()
    statuses = call.service.status()
    data = [
        {
            **describe(card, call.service.created),
            "owned_by": "infinity",
            "backend": _BACKENDS.get(card.runtime, "torch"),
            "capabilities": _capabilities(card),
            "stats": _stats(statuses[card.name]),
        }
        for card in cards
    ]
    return json_response({"object": "list", "data": data, "models": [as_cohere(card) for card in cards]})


# Infinity knows torch, optimum (which runs OpenVINO and ONNX), ctranslate2, neuron and debugengine.
_BACKENDS = {"openvino": "optimum", "onnx": "optimum"}


def _capabilities(card: ModelCard) -> list[str]:
    vectors = "embed" in card.tasks or "multi_vector" in card.tasks
    able = {
        "embed": vectors and "text" in card.modalities,
        "rerank": "score" in card.tasks,
        "classify": "classify" in card.tasks,
        "image_embed": vectors and "image" in card.modalities,
        "audio_embed": vectors and "audio" in card.modalities,
    }
    return [name for name, does in able.items() if does]


def _stats(status: ModelStatus) -> dict[str, float]:
    return {
        "queue_fraction": status.waiting_tokens / status.max_queue_tokens,
        "queue_absolute": status.waiting_sequences,
        "results_pending": status.running_sequences,
        "batch_size": max(1, round((status.items - status.deduplicated) / max(1, status.batches))),
    }


async def embeddings(call: Call) -> Response:
    """Vectors of texts, images or sounds; of a late-interaction model, a list of vectors each."""
    body = checked(EmbeddingsBody, call.body, required=("input",))
    return await _embed(call, body, body.modality or "text", body.dimensions or None, body.input_type)


async def embeddings_image(call: Call) -> Response:
    """Vectors of images. Deprecated by Infinity: `/embeddings` with `modality: image` does the same."""
    return await _embed(call, checked(MediaBody, call.body, required=("input",)), "image")


async def embeddings_audio(call: Call) -> Response:
    """Vectors of sounds. Deprecated by Infinity: `/embeddings` with `modality: audio` does the same."""
    return await _embed(call, checked(MediaBody, call.body, required=("input",)), "audio")


async def _embed(
    call: Call,
    body: EmbeddingsBody | MediaBody,
    modality: Modality,
    dimensions: int | None = None,
    input_type: str | None = None,
) -> Response:
    raw, lone = _raw(body.input, modality, call.max_items)
    card = await call.card(body.model, "embed", "multi_vector", modality=modality)
    name, side = side_of(input_type, card)
    options = Options(dimensions=dimensions, prompt_name=name, input_type=side)
    task: Task = "embed" if "embed" in card.tasks else "multi_vector"
    items = await call.items(card, raw, lone=lone)
    result = await call.run(card, items, options, tasks=(task,), lone=lone)
    if wanted(call.http):
        return await safetensors_response(
            call, card, options, result, ("dense" if task == "embed" else "multi_vector",)
        )
    base64 = (body.encoding_format or body.encoding) == "base64"
    size = result.vectors.nbytes + sum(one.nbytes for one in result.multi_vectors)
    content = await off_the_loop(size, _written, card, result, task, base64)
    return json_response(content, {**VARY, **truncation_header(result)})


def _raw(value: Any, modality: Modality, max_items: int) -> tuple[list[Raw], bool]:
    lone = isinstance(value, str | bytes)
    values = [value] if lone else value
    if modality == "text":
        return list(texts_of(values, max_items, "input")), lone
    if not isinstance(values, list):
        raise InvalidRequest("input must be a URL, a data URI or base64, or a list of those", param="input")
    check_count(values, max_items, "input")
    kind = RawImage if modality == "image" else RawAudio
    for index, one in enumerate(values):
        if not isinstance(one, str | bytes):
            name = f"input[{index}]"
            raise InvalidRequest(f"{name} must be a URL, a data URI or base64", item=index, param=name)
    return [kind(one) for one in values], lone


def _written(card: ModelCard, result: Result, task: Task, base64: bool) -> bytes:
    rows: Any = result.vectors if task == "embed" else result.multi_vectors
    coded = base64_rows if task == "embed" else base64_matrices
    data = b",".join(
        b'{"object":"embedding","embedding":%b,"index":%d}' % (row, index)
        for index, row in enumerate((coded if base64 else float_rows)(rows))
    )
    return b'{"object":"list","data":[%b],%b' % (data, orjson.dumps(_ending(card, result))[1:])


async def rerank_documents(call: Call) -> Response:
    """Documents by their relevance to the query, the best first."""
    body = checked(RerankBody, call.body, required=("query", "documents"))
    card = await call.card(body.model, "score")
    documents = documents_of(body.documents, call.max_items, "documents")
    options = Options(prompt=body.prompt, truncate=body.truncate, activation="none" if body.raw_scores else None)
    result = await rerank(call, card, content_of(body.query, "query"), documents, options)
    results = [
        {"relevance_score": score, "index": index, "document": _shown(documents[index], body.return_documents)}
        for index, score in ranked(result.scores, body.top_n)
    ]
    answer = {"object": "rerank", "results": results, **_ending(card, result)}
    return json_response(answer, truncation_header(result))


def _shown(document: Raw, wanted: bool | None) -> str | None:
    return document if wanted and isinstance(document, str) else None


async def classify(call: Call) -> Response:
    """All labels of each text with their probabilities, the best first."""
    body = checked(ClassifyBody, call.body, required=("input",))
    texts = texts_of([body.input] if isinstance(body.input, str) else body.input, call.max_items, "input")
    card = await call.card(body.model, "classify")
    options = Options(truncate=body.truncate, activation="none" if body.raw_scores else None)
    result = await call.run(card, texts, options, tasks=("classify",))
    data = [
        [{"score": float(row[place]), "label": card.labels[place]} for place in (-row).argsort(kind="stable")]
        for row in result.labels
    ]
    return json_response({"object": "classify", "data": data, **_ending(card, result)}, truncation_header(result))


def _ending(card: ModelCard, result: Result) -> dict[str, Any]:
    return {
        "model": card.name,
        "usage": usage_of(result),
        "id": f"infinity-{uuid.uuid4()}",
        "created": int(time.time()),
    }


_QUERY = {"query": "Where do cats sleep?", "documents": ["Cats sleep on the sofa.", "Rust is a language."]}

DIALECT = Dialect(
    "Infinity",
    (
        Operation(
            ("/embeddings", "/v1/embeddings"),
            embeddings,
            "Embed texts, images or audio",
            claims=lambda body: body.get("modality") is not None,
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples={
                "text": {"value": {"input": ["A cat sits on the mat."], "modality": "text"}},
            },
            answer={"type": "object"},
            also=(MEDIA_TYPE,),
        ),
        Operation(
            ("/embeddings_image", "/v1/embeddings_image"),
            embeddings_image,
            "Embed images",
            description=str(embeddings_image.__doc__),
            body=MediaBody,
            examples={"image": {"value": {"input": ["https://example.org/cat.jpg"]}}},
            answer={"type": "object"},
            also=(MEDIA_TYPE,),
        ),
        Operation(
            ("/embeddings_audio", "/v1/embeddings_audio"),
            embeddings_audio,
            "Embed audio",
            description=str(embeddings_audio.__doc__),
            body=MediaBody,
            examples={"audio": {"value": {"input": ["https://example.org/cat.wav"]}}},
            answer={"type": "object"},
            also=(MEDIA_TYPE,),
        ),
        Operation(
            ("/rerank",),
            rerank_documents,
            "Rerank documents",
            description=str(rerank_documents.__doc__),
            body=RerankBody,
            examples={"texts": {"value": _QUERY}},
            answer={"type": "object"},
        ),
        Operation(
            ("/classify",),
            classify,
            "Classify texts",
            description=str(classify.__doc__),
            body=ClassifyBody,
            examples={"texts": {"value": {"input": ["Buy cheap pills now!"]}}},
            answer={"type": "object"},
        ),
        Operation(("/models",), models, "List models", "GET", description=str(models.__doc__), answer=InfinityModels),
    ),
    error_body,
)
