"""Voyage's API: embeddings in any output type, multimodal and contextualised ones. Its reranking: `rerank.py`.

Its client sends `truncation`, `output_dtype` and `output_dimension` always, as null too: they tell its requests from
OpenAI's. Base64 carries the bytes of `output_dtype`. Videos and automatic chunking are refused.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lemni.errors import InvalidRequest, TooManyItems
from lemni.server.body import kind_of
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.content import Raw, content_of, contents_of
from lemni.server.dialect import Dialect, Operation, has
from lemni.server.dialects.openai import error_body
from lemni.server.inputs import EncodingField, check_count, checked, items_of, lower, side_of, texts_of
from lemni.server.quantized import WIRES, written
from lemni.types import Chunks, Image, Item, Mixed, ModelCard, Options, Result, Truncate

OutputDtype = Literal["float", "int8", "uint8", "binary", "ubinary"]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = Field(None, description="A name from /v1/models; may be left out if only one model is served.")
    input_type: str | None = Field(None, description="query or document: takes the model's prompt for it.")
    encoding_format: EncodingField = Field(None, description="base64: the bytes of output_dtype. Else numbers.")
    output_dtype: Annotated[OutputDtype | None, BeforeValidator(lower)] = Field(None, description="float by default.")
    output_dimension: int | None = Field(None, description="Keep the first N values and normalise again.")


class EmbeddingsBody(_Body):
    """`POST /v1/embeddings` as Voyage's client sends it."""

    input: Any = Field(description="A text or a list of texts.")
    truncation: bool | None = Field(None, description="False refuses texts over the model's length.")
    dimensions: int | None = Field(None, description="OpenAI's name of output_dimension, which wins.")


class MultimodalBody(_Body):
    """`POST /v1/multimodalembeddings`."""

    inputs: Any = Field(description='A list of {"content": [parts]}; parts are text, image_url or image_base64.')
    truncation: bool | None = Field(None, description="False refuses inputs over the model's length.")
    output_encoding: EncodingField = Field(None, description="The documented name of encoding_format here.")


class ContextualizedBody(_Body):
    """`POST /v1/contextualizedembeddings`."""

    inputs: Any = Field(description="A list of documents, each a list of its chunks in order; or a list of queries.")
    enable_auto_chunking: bool | None = Field(None, description="Only false: documents come in chunks.")


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: dict[str, int]


class Document(BaseModel):
    object: Literal["list"]
    index: int
    data: list[Embedding]


class ContextualizedAnswer(BaseModel):
    object: Literal["list"]
    data: list[Document]
    model: str
    usage: dict[str, int]


async def embeddings(call: Call) -> Response:
    """Vectors of texts, in the output type that is asked for."""
    body = checked(EmbeddingsBody, call.body, required=("input",))
    items, lone = items_of(body.input, call.max_items)
    if body.output_dimension is None:
        body.output_dimension = body.dimensions
    card = await call.card(body.model)
    options = _options(body, card, body.truncation)
    result = await call.run(card, items, options, lone=lone)
    return await _flat(call, body, card, options, result, {})


async def multimodal(call: Call) -> Response:
    """Vectors of inputs that are made of texts and images."""
    body = checked(MultimodalBody, call.body, required=("inputs",))
    raw = _multimodal(body.inputs, call.max_items)
    card = await call.card(body.model)
    options = _options(body, card, body.truncation)
    items = await call.items(card, raw, "inputs")
    result = await call.run(card, items, options, field="inputs")
    body.encoding_format = body.encoding_format or body.output_encoding
    images = [_images(item) for item in items]
    # An input with images counts as no text: the model does not tell its tokens apart.
    text = sum(int(count) for count, found in zip(result.token_counts, images, strict=True) if not found)
    pixels = await asyncio.to_thread(sum, (_pixels(image) for found in images for image in found))
    return await _flat(
        call, body, card, options, result, {"text_tokens": text, "image_pixels": pixels, "video_pixels": 0}
    )


async def contextualized(call: Call) -> Response:
    """Vectors of the chunks of documents, each computed in the context of its document (late chunking)."""
    body = checked(ContextualizedBody, call.body, required=("inputs",))
    if body.enable_auto_chunking:
        raise InvalidRequest(
            "enable_auto_chunking is true: documents are not split here; send each as a list of chunks",
            param="enable_auto_chunking",
        )
    documents = _documents(body.inputs, call.max_items)
    card = await call.card(body.model)
    options = _options(body, card, None)
    # A text that is alone has no context but itself.
    items: list[Item] = [one[0] if len(one) == 1 else Chunks(tuple(one)) for one in documents]
    result = await call.run(card, items, options, field="inputs")
    ends = np.cumsum([len(one) for one in documents])

    def write(rows: list[bytes]) -> bytes:
        parts = [rows[end - len(one) : end] for one, end in zip(documents, ends, strict=True)]
        data = [b'{"object":"list","index":%d,"data":[%b]}' % (n, _listed(part)) for n, part in enumerate(parts)]
        return _envelope(card, b",".join(data), {"total_tokens": int(result.token_counts.sum())})

    return await _answer(call, body, card, options, result, write)


def _options(body: _Body, card: ModelCard, truncation: bool | None) -> Options:
    name, side = side_of(body.input_type, card)
    truncate: Truncate | None = None if truncation is None else "right" if truncation else "error"
    return Options(body.output_dimension, prompt_name=name, input_type=side, truncate=truncate)


async def _flat(
    call: Call, body: _Body, card: ModelCard, options: Options, result: Result, more: dict[str, int]
) -> Response:
    usage = {**more, "total_tokens": int(result.token_counts.sum())}

    def write(rows: list[bytes]) -> bytes:
        return _envelope(card, _listed(rows), usage)

    return await _answer(call, body, card, options, result, write)


async def _answer(
    call: Call, body: _Body, card: ModelCard, options: Options, result: Result, write: Callable[[list[bytes]], bytes]
) -> Response:
    wire = WIRES[body.output_dtype or "float"]._replace(base64=body.encoding_format == "base64")
    content = await written(call, card, options, result.vectors, [wire], write)
    return json_response(content, truncation_header(result))


def _listed(rows: list[bytes]) -> bytes:
    return b",".join(b'{"object":"embedding","embedding":%b,"index":%d}' % (row, n) for n, row in enumerate(rows))


def _envelope(card: ModelCard, data: bytes, usage: dict[str, int]) -> bytes:
    ending = {"model": card.name, "usage": usage}
    return b'{"object":"list","data":[%b],%b' % (data, orjson.dumps(ending)[1:])


def _multimodal(value: Any, max_items: int) -> list[Raw]:
    if not isinstance(value, list):
        raise InvalidRequest(f"inputs is {kind_of(value)}; it must be a list of objects with content", param="inputs")
    check_count(value, max_items, "inputs")
    return contents_of(value, "inputs", _without_videos)


def _without_videos(value: Any, name: str) -> Raw:
    parts = value.get("content") if isinstance(value, dict) else None
    if isinstance(parts, list) and any(isinstance(part, dict) and _is_video(part) for part in parts):
        raise InvalidRequest(f"{name} holds a video; texts and images are taken")
    return content_of(value, name)


def _is_video(part: dict[str, Any]) -> bool:
    return str(part.get("type")).startswith("video") or any(key in part for key in ("video_url", "video_base64"))


def _images(item: Item) -> list[Image]:
    return [part for part in (item.parts if isinstance(item, Mixed) else (item,)) if isinstance(part, Image)]


def _pixels(image: Image) -> int:
    """Of an image that the model has taken: only its header is read."""
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(image.data)) as opened:
        return int(opened.width * opened.height)


def _documents(value: Any, max_items: int) -> list[list[str]]:
    """The chunks of each document. Raises InvalidRequest, or TooManyItems for too many chunks in all."""
    if not isinstance(value, list):
        raise InvalidRequest(f"inputs is {kind_of(value)}; it must be a list of lists of chunks", param="inputs")
    check_count(value, max_items, "inputs")
    documents = [
        texts_of([one] if isinstance(one, str) else one, max_items, f"inputs[{index}]")
        for index, one in enumerate(value)
    ]
    if (chunks := sum(map(len, documents))) > max_items:
        raise TooManyItems(
            f"inputs has {chunks} chunks; this server takes at most {max_items} in one request", param="inputs"
        )
    return documents


DIALECT = Dialect(
    "Voyage",
    (
        Operation(
            ("/v1/embeddings", "/embeddings"),
            embeddings,
            "Embed texts in any output type",
            claims=has("truncation", "output_dtype", "output_dimension"),
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples={"int8": {"value": {"input": ["A cat sits on the mat."], "output_dtype": "int8"}}},
            answer=EmbeddingsAnswer,
        ),
        Operation(
            ("/v1/multimodalembeddings", "/multimodalembeddings"),
            multimodal,
            "Embed texts with images",
            description=str(multimodal.__doc__),
            body=MultimodalBody,
            examples={"text": {"value": {"inputs": [{"content": [{"type": "text", "text": "A cat."}]}]}}},
            answer=EmbeddingsAnswer,
        ),
        Operation(
            ("/v1/contextualizedembeddings", "/contextualizedembeddings"),
            contextualized,
            "Embed chunks in the context of their documents",
            description=str(contextualized.__doc__),
            body=ContextualizedBody,
            examples={
                "documents": {"value": {"inputs": [["Berlin is large.", "The city has parks."], ["A cat."]]}},
            },
            answer=ContextualizedAnswer,
        ),
    ),
    error_body,
)
