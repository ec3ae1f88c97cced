"""Cohere's API, v1 and v2: embed, classify, tokenize and detokenize. Reranking: `rerank.py`; /v1/models: `openai.py`.

Errors are {"message": text}. Its limits of 96 texts are not ours. Images are not described in the answer.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import orjson
from fastapi.responses import Response

from lemni.errors import InvalidRequest, LemniError, TooManyItems
from lemni.server.body import kind_of
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.content import Raw, RawImage, content_of, contents_of
from lemni.server.dialect import Dialect, Operation
from lemni.server.dialects import tokens
from lemni.server.dialects.cohere_schemas import (
    ClassifyAnswer,
    ClassifyBody,
    DetokenizeAnswer,
    DetokenizeBody,
    EmbedAnswer,
    EmbedBody,
    TokenizeAnswer,
    TokenizeBody,
)
from lemni.server.fewshot import Example, by_examples, examples_of
from lemni.server.inputs import check_count, checked, side_of, texts_of
from lemni.server.quantized import WIRES, written
from lemni.types import Image, Item, Mixed, ModelCard, Options

_INPUT_TYPES = ("classification", "clustering", "image")
"""Words of `input_type` that are no side of a search."""

_MOST_CONFIDENCES = 1 << 18
"""Of one answer, texts by labels: each label of the examples is in the answer for each text."""

_CERTAIN = 0.5
"""From this confidence on, a label of a model with independent labels counts as predicted."""


async def embed_v1(call: Call) -> Response:
    """Vectors of texts or images: a list of them, or lists by type with `embedding_types`."""
    return await _embed(call, "1")


async def embed_v2(call: Call) -> Response:
    """Vectors of texts, images, or inputs of several parts, in each of the `embedding_types`."""
    return await _embed(call, "2")


async def _embed(call: Call, version: str) -> Response:
    body = checked(EmbedBody, call.body)
    field, raw = _inputs(body, call.max_items)
    card = await call.card(body.model)
    name, side = side_of(body.input_type, card, neutral=_INPUT_TYPES)
    options = Options(
        body.output_dimension, prompt_name=name, input_type=side, truncate=body.truncate, max_tokens=body.max_tokens
    )
    items = await call.items(card, raw, field)
    result = await call.run(card, items, options, field=field, priority=body.priority)
    types = list(dict.fromkeys(body.embedding_types or ["float"]))
    plain = version == "1" and not body.embedding_types
    ending = {
        "texts": body.texts if field == "texts" else [],
        "meta": _meta(version, input_tokens=int(result.token_counts.sum()), images=_images(items)),
    }

    def write(*lists: list[bytes]) -> bytes:
        vectors = [b"[%b]" % b",".join(rows) for rows in lists]
        by_type = b",".join(b'"%b":%b' % (kind.encode(), one) for kind, one in zip(types, vectors, strict=True))
        embeddings = vectors[0] if plain else b"{%b}" % by_type
        kind = b"embeddings_floats" if plain else b"embeddings_by_type"
        head = b'{"response_type":"%b","id":"%b"' % (kind, str(uuid.uuid4()).encode())
        return b'%b,"embeddings":%b,%b' % (head, embeddings, orjson.dumps(ending)[1:])

    content = await written(call, card, options, result.vectors, [WIRES[one] for one in types], write)
    return json_response(content, truncation_header(result))


def _inputs(body: EmbedBody, max_items: int) -> tuple[str, list[Raw]]:
    """The one field that holds inputs, and these."""
    given = [name for name in ("texts", "images", "inputs") if getattr(body, name) is not None]
    if len(given) != 1:
        shown = " and ".join(given) or "none of them"
        raise InvalidRequest(f"the body must have exactly one of texts, images and inputs; it has {shown}")
    [field] = given
    values = getattr(body, field)
    if field == "texts":
        return field, list(texts_of(values, max_items, field))
    if not isinstance(values, list):
        raise InvalidRequest(f"{field} is {kind_of(values)}; it must be a list", param=field)
    check_count(values, max_items, field)
    return field, contents_of(values, field, content_of if field == "inputs" else _image)


def _image(value: Any, name: str) -> Raw:
    if not isinstance(value, str | bytes):
        raise InvalidRequest(f"{name} is {kind_of(value)}; it must be a data URI, a URL or base64")
    return RawImage(value)


def _images(items: list[Item]) -> int:
    parts = [part for item in items for part in (item.parts if isinstance(item, Mixed) else (item,))]
    return sum(isinstance(part, Image) for part in parts)


async def classify(call: Call) -> Response:
    """Labels of texts: those of a classifier, or, with `examples`, those of the most similar labelled texts."""
    body = checked(ClassifyBody, call.body, required=("inputs",))
    texts = texts_of(body.inputs, call.max_items, "inputs")
    examples = examples_of(body.examples, call.max_items) if body.examples is not None else []
    card = await call.card(body.model, "embed" if examples else "classify")
    if examples:
        classifications = await _few_shot(call, card, texts, examples, body)
    else:
        result = await call.run(card, texts, Options(truncate=body.truncate), tasks=("classify",), field="inputs")
        classifications = [
            _classification(text, dict(zip(card.labels, map(float, row), strict=True)))
            for text, row in zip(texts, result.labels, strict=True)
        ]
    meta = _meta("1", classifications=len(texts))
    return json_response({"id": str(uuid.uuid4()), "classifications": classifications, "meta": meta})


async def _few_shot(
    call: Call, card: ModelCard, texts: list[str], examples: list[Example], body: ClassifyBody
) -> list[dict[str, Any]]:
    labels = len({example.label for example in examples})
    if len(texts) * labels > _MOST_CONFIDENCES:
        raise TooManyItems(
            f"inputs has {len(texts)} texts and examples have {labels} labels; this server takes at most "
            f"{_MOST_CONFIDENCES} of texts by labels: send inputs in parts",
            param="inputs",
        )
    name, side = side_of("classification", card, neutral=_INPUT_TYPES)
    options = Options(normalize=True, prompt_name=name, input_type=side, truncate=body.truncate)
    known = await call.run(card, [example.text for example in examples], options, field="examples")
    asked = await call.run(card, texts, options, field="inputs")

    def voted() -> list[dict[str, Any]]:
        names, confidences = by_examples(asked.vectors, known.vectors, [example.label for example in examples])
        return [
            _classification(text, dict(zip(names, map(float, row), strict=True)))
            for text, row in zip(texts, confidences, strict=True)
        ]

    return await asyncio.to_thread(voted)


def _classification(text: str, labels: dict[str, float]) -> dict[str, Any]:
    # A softmax over several labels adds up to 1; independent labels do so by accident only.
    single = len(labels) > 1 and abs(sum(labels.values()) - 1) < 1e-3
    order = sorted(labels, key=lambda label: -labels[label])
    predicted = order[:1] if single else [label for label in order if labels[label] >= _CERTAIN]
    return {
        "id": str(uuid.uuid4()),
        "input": text,
        "prediction": order[0] if single else None,
        "predictions": predicted,
        "confidence": labels[order[0]] if single else None,
        "confidences": [labels[label] for label in predicted],
        "labels": {label: {"confidence": labels[label]} for label in labels},
        "classification_type": "single-label" if single else "multi-label",
    }


async def tokenize(call: Call) -> Response:
    """The token ids of a text, without special tokens, and the piece of the text that each stands for."""
    body = checked(TokenizeBody, call.body, required=("text",))
    card = await call.card(body.model)
    [found] = await asyncio.to_thread(tokens.tokenized, call.model(card), [body.text], special=False)
    answer = {"tokens": [token.id for token in found], "token_strings": [token.text for token in found]}
    return json_response({**answer, "meta": _meta("1")})


async def detokenize(call: Call) -> Response:
    """The text of token ids, special tokens included."""
    body = checked(DetokenizeBody, call.body, required=("tokens",))
    card = await call.card(body.model)
    try:
        [text] = await asyncio.to_thread(tokens.decoded, call.model(card), [body.tokens], skip_special=False)
    except InvalidRequest as error:  # it names lists of ids; here there is one
        raise type(error)(error.message.replace("ids[0]", "tokens"), param=error.param and "tokens") from None
    return json_response({"text": text, "meta": _meta("1")})


def _meta(version: str, **units: int) -> dict[str, Any]:
    billed = {name: count for name, count in units.items() if count}
    return {"api_version": {"version": version}, **({"billed_units": billed} if billed else {})}


def error_body(error: LemniError) -> bytes:
    """{"message": text}."""
    return orjson.dumps({"message": error.message})


_TEXTS = {"texts": ["A cat sits on the mat."], "input_type": "search_document"}
_EXAMPLES = [
    {"text": "Buy cheap pills", "label": "spam"},
    {"text": "Lunch at noon?", "label": "ham"},
]

DIALECT = Dialect(
    "Cohere",
    (
        Operation(
            ("/v1/embed", "/v1/v1/embed"),
            embed_v1,
            "Embed texts or images (v1)",
            description=str(embed_v1.__doc__),
            body=EmbedBody,
            examples={"texts": {"value": _TEXTS}},
            answer=EmbedAnswer,
        ),
        Operation(
            ("/v2/embed", "/v1/v2/embed"),
            embed_v2,
            "Embed texts, images or both (v2)",
            description=str(embed_v2.__doc__),
            body=EmbedBody,
            examples={
                "texts": {"value": {**_TEXTS, "embedding_types": ["float", "int8"]}},
                "parts": {"value": {"inputs": [{"content": [{"type": "text", "text": "A cat."}]}]}},
            },
            answer=EmbedAnswer,
        ),
        Operation(
            ("/v1/classify", "/v1/v1/classify"),
            classify,
            "Classify texts",
            description=str(classify.__doc__),
            body=ClassifyBody,
            examples={"examples": {"value": {"inputs": ["Win money now"], "examples": _EXAMPLES}}},
            answer=ClassifyAnswer,
        ),
        Operation(
            ("/v1/tokenize", "/v1/v1/tokenize"),
            tokenize,
            "Split a text into tokens",
            description=str(tokenize.__doc__),
            body=TokenizeBody,
            examples={"text": {"value": {"text": "A cat sits on the mat."}}},
            answer=TokenizeAnswer,
        ),
        Operation(
            ("/v1/detokenize", "/v1/v1/detokenize"),
            detokenize,
            "Turn token ids into text",
            description=str(detokenize.__doc__),
            body=DetokenizeBody,
            examples={"ids": {"value": {"tokens": [1037, 4937]}}},
            answer=DetokenizeAnswer,
        ),
    ),
    error_body,
)
