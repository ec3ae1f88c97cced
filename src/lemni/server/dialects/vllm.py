"""vLLM's pooling API: embeddings with messages and raw bytes, /pooling, /score, /classify, /rerank, /tokenize.

`messages` are one input: their texts and images in order, without a chat template. `/classify` and `/rerank` take the
same bodies as Infinity's: the setting `prefer` says whose answer a body gets that fits both.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import Any

import orjson
from fastapi.responses import Response

from lemni import __version__
from lemni.errors import InvalidRequest
from lemni.ranking import ranked
from lemni.server.call import Call, json_response, truncation_header, usage_of
from lemni.server.content import Raw, content_of
from lemni.server.dialect import Dialect, Operation, has
from lemni.server.dialects.openai import error_body
from lemni.server.dialects.tokens import MOST_CHARACTERS, check_size, tokenizer_of
from lemni.server.dialects.vllm_schemas import (
    ClassifyBody,
    DetokenizeBody,
    EmbeddingsBody,
    PoolingBody,
    RerankBody,
    ScoreBody,
    TokenizeBody,
)
from lemni.server.inputs import checked, items_of
from lemni.server.reranking import documents_of, rerank
from lemni.server.rows import base64_string, float_rows, off_the_loop, raw_rows, row_bytes
from lemni.types import Activation, ModelCard, Options, Pair, Result, Task


async def embeddings(call: Call) -> Response:
    """Vectors of the inputs or of one conversation; as raw bytes too."""
    body = checked(EmbeddingsBody, call.body)
    card = await call.card(body.model)
    task: Task = "embed" if "embed" in card.tasks else "multi_vector"
    result = await _run(call, body, card, task, Options(body.dimensions, body.use_activation, **_limits(body)))
    rows = result.vectors if task == "embed" else list(result.multi_vectors)
    return await _written(body, card, result, rows, "embd", "embedding")


async def pooling(call: Call) -> Response:
    """Vectors of the inputs, of all their tokens, or the scores of a classifier: what the model's head gives."""
    body = checked(PoolingBody, call.body)
    if body.data is not None:
        raise InvalidRequest("data is for vLLM's plugins, which are not here; send input", param="data")
    wanted = _TASKS.get(body.task or "")
    card = await call.card(body.model, wanted or "embed")
    task = _task_for(card, wanted)
    activation: Activation | None = "none" if body.use_activation is False else None
    options = Options(None, body.use_activation, activation=activation, **_limits(body))
    result = await _run(call, body, card, task, options)
    rows: Any = {"embed": result.vectors, "classify": result.labels}.get(task, list(result.multi_vectors))
    return await _written(body, card, result, rows, "pool", "pooling")


async def score(call: Call) -> Response:
    """Scores of one text against many, or of as many pairs."""
    body = checked(ScoreBody, call.body)
    first, second, names = _sides(body)
    sides = zip(names, (first, second), strict=True)
    raw = [documents_of(side, call.max_items, name) for name, side in sides]
    if len(first) not in (1, len(second)):
        raise InvalidRequest(
            f"{names[0]} has {len(first)} items and {names[1]} {len(second)}: one to many or as many of both",
            param=names[0],
        )
    card = await call.card(body.model, "score")
    firsts = await call.items(card, raw[0], names[0])
    seconds = await call.items(card, raw[1], names[1])
    firsts = firsts * len(seconds) if len(firsts) == 1 else firsts
    pairs = [Pair(a, b) for a, b in zip(firsts, seconds, strict=True)]  # type: ignore[arg-type]
    limits = _limits(body)
    limits["truncate"] = body.truncate or limits["truncate"]
    options = Options(prompt=body.prompt, activation="none" if body.use_activation is False else None, **limits)
    result = await call.run(card, pairs, options, tasks=("score",), field=names[1])
    data = [{"index": n, "object": "score", "score": float(one)} for n, one in enumerate(result.scores)]
    return json_response(_answer("score", card, result, data), truncation_header(result))


async def classify(call: Call) -> Response:
    """The most likely label of each text, with the probabilities of all."""
    body = checked(ClassifyBody, call.body)
    card = await call.card(body.model, "classify")
    options = Options(activation="none" if body.use_activation is False else None, **_limits(body))
    result = await _run(call, body, card, "classify", options)
    data = [
        {"index": n, "label": card.labels[int(row.argmax())], "probs": row.tolist(), "num_classes": len(row)}
        for n, row in enumerate(result.labels)
    ]
    return json_response(_answer("classify", card, result, data), truncation_header(result))


async def rerank_documents(call: Call) -> Response:
    """Documents by their relevance to the query, the best first; each comes back unless `return_documents` is false."""
    body = checked(RerankBody, call.body, required=("query", "documents"))
    card = await call.card(body.model, "score")
    documents = documents_of(body.documents, call.max_items, "documents")
    options = Options(activation="none" if body.use_activation is False else None, **_limits(body))
    result = await rerank(call, card, content_of(body.query, "query"), documents, options)
    results: list[dict[str, Any]] = []
    for index, value in ranked(result.scores, body.top_n):
        shown = {} if body.return_documents is False else {"document": _document(documents[index])}
        results.append({"index": index, **shown, "relevance_score": value})
    facts = {"id": f"rerank-{uuid.uuid4().hex}", "model": card.name, "usage": usage_of(result)}
    return json_response({**facts, "results": results}, truncation_header(result))


async def tokenize(call: Call) -> Response:
    """The token ids of a text."""
    body = checked(TokenizeBody, call.body)
    card = await call.card(body.model)
    tokenizer = tokenizer_of(call.model(card))
    text = content_of(_conversation(body.messages), "messages") if body.prompt is None else body.prompt
    if not isinstance(text, str):
        raise InvalidRequest("messages: only texts have tokens", param="messages")
    check_size([text])
    special = body.messages is None if body.add_special_tokens is None else body.add_special_tokens
    encoding = await asyncio.to_thread(tokenizer.library.encode, text, add_special_tokens=special)
    answer: dict[str, Any] = {"count": len(encoding.ids), "max_model_len": card.max_length, "tokens": encoding.ids}
    answer["token_strs"] = encoding.tokens if body.return_token_strs else None
    return json_response(answer)


async def detokenize(call: Call) -> Response:
    """The text of token ids."""
    body = checked(DetokenizeBody, call.body, required=("tokens",))
    card = await call.card(body.model)
    tokenizer = tokenizer_of(call.model(card))
    if len(body.tokens) > MOST_CHARACTERS:
        raise InvalidRequest(f"tokens holds {len(body.tokens)} ids; at most {MOST_CHARACTERS}", param="tokens")
    if wrong := [token for token in body.tokens if not 0 <= token < tokenizer.vocabulary]:
        raise InvalidRequest(f"tokens holds {wrong[0]}; ids are 0..{tokenizer.vocabulary - 1}", param="tokens")
    text = await asyncio.to_thread(tokenizer.library.decode, body.tokens, skip_special_tokens=False)
    return json_response({"prompt": text})


async def version(call: Call) -> Response:
    """The version of this server."""
    return json_response({"version": __version__})


def _task_for(card: ModelCard, wanted: Task | None) -> Task:
    if wanted == "tokens" and "multi_vector" in card.tasks:
        return "multi_vector"
    if wanted is not None:
        return wanted
    # A model that does none of them is told so, as for any task that it does not do.
    return next((task for task in _NATURAL if task in card.tasks), "embed")


# What a model is pooled into if the body does not say: the first that it does.
_NATURAL: tuple[Task, ...] = ("multi_vector", "embed", "classify", "tokens")

_TASKS: dict[str, Task] = {
    "embed": "embed",
    "token_embed": "tokens",
    "classify": "classify",
    "score": "classify",
    "encode": "embed",
}


async def _run(
    call: Call, body: PoolingBody | EmbeddingsBody | ClassifyBody, card: ModelCard, task: Task, options: Options
) -> Result:
    if body.messages is not None:
        if body.chat_template:
            raise InvalidRequest("chat_template is not supported: messages are joined", param="chat_template")
        raw: list[Raw] = [content_of(_conversation(body.messages), "messages")]
        found = await call.items(card, raw, "messages", lone=True)
        return await call.run(card, found, options, tasks=(task,), field="messages", lone=True)
    if body.input is None:
        raise InvalidRequest("input is missing (or messages)", param="input")
    items, lone = items_of(body.input, call.max_items)
    return await call.run(card, items, options, tasks=(task,), lone=lone)


def _conversation(messages: Any) -> list[Any]:
    """The parts of all messages, in order."""
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise InvalidRequest("messages must be a list of objects with role and content", param="messages")
    parts: list[Any] = []
    for message in messages:
        content = message.get("content")
        parts += content if isinstance(content, list) else [content if content is not None else ""]
    return parts


def _limits(body: Any) -> dict[str, Any]:
    """truncate_prompt_tokens: -1 cuts at the model's length, N at N tokens; without it the server's setting holds."""
    limit = body.truncate_prompt_tokens
    side = body.truncation_side or "right"
    return {
        "truncate": side if limit is not None or body.truncation_side else None,
        "max_tokens": limit if limit is not None and limit > 0 else None,
    }


def _sides(body: ScoreBody) -> tuple[list[Any], list[Any], tuple[str, str]]:
    for names in (("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")):
        first, second = (getattr(body, name) for name in names)
        if first is not None and second is not None:
            sides = [side if isinstance(side, list) else [side] for side in (first, second)]
            return sides[0], sides[1], names
    raise InvalidRequest("the body must have text_1 and text_2, data_1 and data_2, or queries and documents")


def _document(document: Raw) -> dict[str, Any]:
    return {"text": document if isinstance(document, str) else None, "multi_modal": None}


def _answer(kind: str, card: ModelCard, result: Result, data: Any) -> dict[str, Any]:
    return {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": card.name,
        "data": data,
        "usage": {**usage_of(result), "completion_tokens": 0, "prompt_tokens_details": None},
    }


async def _written(
    body: EmbeddingsBody | PoolingBody, card: ModelCard, result: Result, rows: Any, prefix: str, kind: str
) -> Response:
    encoding, dtype = body.encoding_format or "float", body.embed_dtype or "float32"
    endianness = body.endianness or "native"
    size = sum(row.nbytes for row in rows)
    headers = truncation_header(result)
    envelope = _answer(prefix, card, result, [])
    if encoding in ("bytes", "bytes_only"):
        content = b"".join(await off_the_loop(size, raw_rows, rows, dtype, endianness))
        if encoding == "bytes":
            layout = [
                {**one._asdict(), "index": n, "embed_dtype": dtype, "endianness": endianness}
                for n, one in enumerate(row_bytes(rows, dtype))
            ]
            facts = {key: envelope[key] for key in ("id", "created", "model")}
            # ASCII: a header knows nothing else.
            metadata = json.dumps({**facts, "data": layout, "usage": usage_of(result)}, separators=(",", ":"))
            if len(metadata) > _MOST_METADATA:
                raise InvalidRequest(
                    f"the layout of {len(rows)} rows does not fit a header: send fewer inputs, or take bytes_only",
                    param="encoding_format",
                )
            headers["metadata"] = metadata
        return Response(content, headers=headers, media_type="application/octet-stream")

    def write() -> bytes:
        if encoding == "base64":
            written = [base64_string(raw) for raw in raw_rows(rows, dtype, endianness)]
        else:
            written = list(float_rows(rows))
        key = b"embedding" if kind == "embedding" else b"data"
        head = b'"object":"%b","%b"' % (kind.encode(), key)
        return b",".join(b'{"index":%d,%b:%b}' % (n, head, one) for n, one in enumerate(written))

    data = await off_the_loop(size, write)
    return json_response(orjson.dumps(envelope).replace(b'"data":[]', b'"data":[%b]' % data, 1), headers)


# HTTP clients take lines of 64 KiB.
_MOST_METADATA = 60_000

_PAIR = {"text_1": "Where do cats sleep?", "text_2": ["On the sofa.", "In Rust."]}

DIALECT = Dialect(
    "vLLM",
    (
        Operation(
            ("/v1/embeddings", "/embeddings"),
            embeddings,
            "Create embeddings of a conversation, or as bytes",
            claims=lambda body: (
                any(key in body for key in ("messages", "embed_dtype", "endianness", "use_activation"))
                or body.get("truncate_prompt_tokens") is not None
                or body.get("encoding_format") in ("bytes", "bytes_only")
            ),
            description=str(embeddings.__doc__),
            body=EmbeddingsBody,
            examples={"messages": {"value": {"messages": [{"role": "user", "content": "A cat sits on the mat."}]}}},
            answer={"type": "object"},
        ),
        Operation(
            ("/pooling",),
            pooling,
            "What the model's head gives",
            description=str(pooling.__doc__),
            body=PoolingBody,
            examples={"text": {"value": {"input": "A cat sits on the mat."}}},
            answer={"type": "object"},
        ),
        Operation(
            ("/score", "/v1/score"),
            score,
            "Score pairs",
            description=str(score.__doc__),
            body=ScoreBody,
            examples={"one to many": {"value": _PAIR}},
            answer={"type": "object"},
        ),
        Operation(
            ("/classify",),
            classify,
            "Classify texts",
            claims=has("use_activation", "messages", "truncate_prompt_tokens"),
            preferable=True,
            description=str(classify.__doc__),
            body=ClassifyBody,
            examples={"text": {"value": {"input": "Buy cheap pills now!", "use_activation": True}}},
            answer={"type": "object"},
        ),
        Operation(
            ("/rerank",),
            rerank_documents,
            "Rerank documents",
            claims=lambda body: "texts" not in body and has("use_activation", "truncate_prompt_tokens")(body),
            preferable=True,
            description=str(rerank_documents.__doc__),
            body=RerankBody,
            examples={
                "texts": {
                    "value": {
                        "query": "Where do cats sleep?",
                        "documents": ["On the sofa.", "In Rust."],
                        "truncate_prompt_tokens": -1,
                    }
                }
            },
            answer={"type": "object"},
        ),
        Operation(
            ("/tokenize",),
            tokenize,
            "Tokenise a prompt",
            claims=has("prompt", "messages"),
            description=str(tokenize.__doc__),
            body=TokenizeBody,
            examples={"prompt": {"value": {"prompt": "A cat sits on the mat."}}},
            answer={"type": "object"},
        ),
        Operation(
            ("/detokenize",),
            detokenize,
            "The text of token ids",
            description=str(detokenize.__doc__),
            body=DetokenizeBody,
            examples={"tokens": {"value": {"tokens": [101, 1037, 4937, 102]}}},
            answer={"type": "object"},
        ),
        Operation(("/version",), version, "Version of the server", "GET", answer={"type": "object"}),
    ),
    error_body,
)
