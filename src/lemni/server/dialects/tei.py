"""Text Embeddings Inference's native routes: /embed, /rerank, /predict, /tokenize and the like, with bare answers.

More is answered than TEI would: /rerank also by models that embed (by similarity, where TEI says 424), an empty text
gets a vector, and `model` in a body chooses among several. `huggingface.py` has the routes at the root.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from fastapi.responses import Response

from lemni.errors import TooManyItems
from lemni.ranking import ranked
from lemni.server.call import Call, json_response, truncation_header
from lemni.server.content import Raw
from lemni.server.dialect import EMBED_KEYS, Dialect, Handler, Operation, has, only
from lemni.server.dialects import tei_schemas as schemas
from lemni.server.dialects.tei_errors import Empty, error_body, status_of
from lemni.server.dialects.tei_options import info, predict_inputs, predictions, score_activation, truncate_of
from lemni.server.dialects.tokens import decoded, ids_of, tokenized
from lemni.server.inputs import checked, items_of, texts_of
from lemni.server.reranking import rerank
from lemni.server.rows import float_rows, off_the_loop, sparse_pair_rows
from lemni.types import Item, ModelCard, Options, Pair, Result, Task


@dataclass(frozen=True)
class Answer:
    """Attributes:
    content: the JSON.
    headers: of this answer; those about time are made by `respond`.
    """

    content: bytes
    headers: Mapping[str, str]


Body = Mapping[str, Any]
Answering = Callable[[Call, Body], Awaitable[Answer]]
"""Answers one body; a call may have several (/vertex)."""


async def embed(call: Call, given: Body) -> Answer:
    """A vector for each input, of unit length unless `normalize` is false; a list of vectors even for one text."""
    body = checked(schemas.EmbedBody, given, required=("inputs",))
    items, lone = _items(call, body.inputs)
    card = await call.card(body.model)
    normalize = True if body.normalize is None else body.normalize
    options = replace(_options(card, body), normalize=normalize, dimensions=body.dimensions)
    result = await call.run(card, items, options, field="inputs", lone=lone)
    content = await off_the_loop(result.vectors.nbytes, _list_of_rows, result.vectors)
    return Answer(content, _facts(card, result, items))


async def embed_all(call: Call, given: Body) -> Answer:
    """The last hidden state of every token of each input, never normalised; of a late-interaction model its vectors."""
    body = checked(schemas.TextsBody, given, required=("inputs",))
    items, lone = _items(call, body.inputs)
    card = await call.card(body.model, "tokens")
    task: Task = "multi_vector" if "multi_vector" in card.tasks and "tokens" not in card.tasks else "tokens"
    result = await call.run(card, items, _options(card, body), tasks=(task,), field="inputs", lone=lone)
    size = sum(matrix.nbytes for matrix in result.multi_vectors)
    content = await off_the_loop(size, _list_of_rows, list(result.multi_vectors))
    return Answer(content, _facts(card, result, items))


async def embed_sparse(call: Call, given: Body) -> Answer:
    """The terms of each input and their weights."""
    body = checked(schemas.TextsBody, given, required=("inputs",))
    items, lone = _items(call, body.inputs)
    card = await call.card(body.model, "sparse")
    result = await call.run(card, items, _options(card, body), tasks=("sparse",), field="inputs", lone=lone)
    size = sum(2 * vector.values.nbytes for vector in result.sparse)
    content = await off_the_loop(size, lambda: b"[%b]" % b",".join(sparse_pair_rows(result.sparse)))
    return Answer(content, _facts(card, result, items))


async def rerank_texts(call: Call, given: Body) -> Answer:
    """The texts by their relevance to the query, the best first."""
    body = checked(schemas.RerankBody, given, required=("query", "texts"))
    _check_batch(call, body.texts, "texts")
    texts: list[Raw] = list(texts_of(body.texts, call.max_items, "texts"))
    card = await call.card(body.model, "score")
    truncate = truncate_of(card, body.truncate, body.truncation_direction)
    options = Options(truncate=truncate, activation=score_activation(card, body.raw_scores))
    result = await rerank(call, card, body.query, texts, options, field="texts")
    ranks = [
        {"index": place, "text": texts[place], "score": score} if body.return_text else {"index": place, "score": score}
        for place, score in ranked(result.scores, body.top_n)
    ]
    return Answer(orjson.dumps(ranks), _facts(card, result, [Pair(body.query, str(text)) for text in texts]))


async def similarity(call: Call, given: Body) -> Answer:
    """The cosine similarity of each sentence to the source sentence, in their order."""
    body = checked(schemas.SimilarityBody, given, required=("inputs",))
    if not body.inputs.sentences:
        raise Empty("inputs.sentences is an empty list; it must hold at least one text", param="inputs")
    items: list[Item] = [body.inputs.source_sentence, *body.inputs.sentences]
    _check_batch(call, items, "inputs")
    parameters = body.parameters or schemas.SimilarityParameters.model_validate({})
    card = await call.card(body.model)
    options = replace(_options(card, parameters), normalize=True)
    result = await call.run(card, items, options, field="inputs")
    cosines = result.vectors[1:] @ result.vectors[0]
    return Answer(orjson.dumps(cosines, option=orjson.OPT_SERIALIZE_NUMPY), _facts(card, result, items))


async def predict(call: Call, given: Body) -> Answer:
    """The labels of each text or pair with their probabilities, the best first."""
    body = checked(schemas.PredictBody, given, required=("inputs",))
    parameters = body.parameters
    items, lone = predict_inputs(body.inputs, flat=parameters is not None)
    _check_batch(call, items, "inputs")
    card = await call.card(body.model, "classify")
    activation = "none" if body.raw_scores else parameters.function_to_apply if parameters else None
    truncate = truncate_of(card, body.truncate, body.truncation_direction)
    options = Options(truncate=truncate, activation=activation)
    result = await call.run(card, items, options, tasks=("classify",), field="inputs", lone=lone)
    found = [predictions(card, row, parameters.top_k if parameters else None) for row in result.labels]
    # Hugging Face's clients take the first of the outer list, also for one text.
    shown = found[0] if lone and parameters is None else found
    return Answer(orjson.dumps(shown), _facts(card, result, items))


async def tokenize(call: Call, given: Body) -> Answer:
    """The tokens of each text: id, text, and where it stands, in bytes of UTF-8."""
    body = checked(schemas.TokenizeBody, given, required=("inputs",))
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    _check_batch(call, texts, "inputs")
    texts = texts_of(texts, call.max_items, "inputs")
    model = call.model(await call.card(body.model))
    special = body.add_special_tokens is not False

    def written() -> bytes:
        return orjson.dumps(
            [[token._asdict() for token in one] for one in tokenized(model, texts, special, body.prompt_name)]
        )

    return Answer(await asyncio.to_thread(written), {"x-compute-characters": str(_characters(texts))})


async def decode(call: Call, given: Body) -> Answer:
    """The text of each list of token ids."""
    body = checked(schemas.DecodeBody, given, required=("ids",))
    ids = ids_of(body.ids)
    _check_batch(call, body.ids and ids, "ids")
    model = call.model(await call.card(body.model))
    texts = await asyncio.to_thread(decoded, model, ids, body.skip_special_tokens is not False)
    return Answer(orjson.dumps(texts), {"x-compute-tokens": str(sum(map(len, ids)))})


async def show_info(call: Call) -> Response:
    """What is served, and its limits. With several models, `?model=NAME` says which."""
    card = await call.card(call.http.query_params.get("model"))
    return json_response(orjson.dumps(info(call.service, card), option=orjson.OPT_NON_STR_KEYS))


def answers(answering: Answering) -> Handler:
    """The handler of a route: one body, one answer."""

    async def handler(call: Call) -> Response:
        began = time.perf_counter()
        answer = await answering(call, call.body)
        return respond(answer, began)

    return handler


def respond(answer: Answer, began: float) -> Response:
    """With TEI's headers, in whole ms."""
    ms = str(round((time.perf_counter() - began) * 1000))
    return json_response(answer.content, {"x-compute-time": ms, "x-total-time": ms, **answer.headers})


def _facts(card: ModelCard, result: Result, items: list[Any]) -> dict[str, str]:
    return {
        "x-compute-type": ("cpu" if card.device == "cpu" else "gpu") + "+optimized",
        "x-compute-characters": str(_characters(items)),
        "x-compute-tokens": str(int(result.token_counts.sum())),
        "x-tokenization-time": str(round(result.timing.tokenization_s * 1000)),
        "x-queue-time": str(round(result.timing.queue_s * 1000)),
        "x-inference-time": str(round(result.timing.inference_s * 1000)),
        **truncation_header(result),
    }


def _characters(items: list[Any]) -> int:
    return sum(len(item) for item in items if isinstance(item, str | Pair))


def _options(card: ModelCard, body: schemas.TextsBody | schemas.SimilarityParameters) -> Options:
    truncate = truncate_of(card, body.truncate, body.truncation_direction)
    return Options(prompt_name=body.prompt_name, truncate=truncate)


def _items(call: Call, value: Any) -> tuple[list[str | list[int]], bool]:
    if not (isinstance(value, list) and value and type(value[0]) is int):
        _check_batch(call, value, "inputs")
    return items_of(value, call.max_items, "inputs")


def _check_batch(call: Call, value: Any, field: str) -> None:
    if isinstance(value, list) and not value:
        raise Empty(f"{field} is an empty list; it must hold at least one item", param=field)
    if isinstance(value, list) and len(value) > call.max_items:
        raise TooManyItems(f"batch size {len(value)} > maximum allowed batch size {call.max_items}", param=field)


def _list_of_rows(rows: Any) -> bytes:
    return b"[%b]" % b",".join(float_rows(rows))


def operation(path: str, answering: Answering, summary: str, **more: Any) -> Operation:
    """A POST route of TEI's."""
    return Operation((path,), answers(answering), summary, description=str(answering.__doc__), **more)


_TEXTS = {"texts": {"value": {"inputs": schemas.CATS}}}

DIALECT = Dialect(
    "Text Embeddings Inference",
    (
        operation(
            "/embed",
            embed,
            "Embed texts",
            claims=only("inputs", among=EMBED_KEYS),
            body=schemas.EmbedBody,
            examples=schemas.EMBED_EXAMPLES,
            answer=schemas.VECTORS,
        ),
        operation(
            "/embed_all",
            embed_all,
            "Embed every token of texts",
            body=schemas.TextsBody,
            examples=_TEXTS,
            answer=schemas.MATRICES,
        ),
        operation(
            "/embed_sparse",
            embed_sparse,
            "Embed texts as weighted terms",
            body=schemas.TextsBody,
            examples=_TEXTS,
            answer=schemas.SPARSE,
        ),
        operation(
            "/rerank",
            rerank_texts,
            "Rerank texts",
            claims=has("texts"),
            body=schemas.RerankBody,
            examples=schemas.RERANK_EXAMPLES,
            answer=schemas.RANKS,
        ),
        operation(
            "/similarity",
            similarity,
            "Compare sentences with one",
            body=schemas.SimilarityBody,
            examples=schemas.SIMILARITY_EXAMPLES,
            answer=schemas.SIMILARITIES,
        ),
        operation(
            "/predict",
            predict,
            "Classify texts or pairs",
            body=schemas.PredictBody,
            examples={
                "text": {"value": {"inputs": "Buy cheap pills now!"}},
                "pair": {"value": {"inputs": schemas.CATS}},
                "batch": {"value": {"inputs": [["Buy cheap pills now!"], schemas.CATS]}},
            },
            answer=schemas.PREDICTIONS,
        ),
        operation(
            "/tokenize",
            tokenize,
            "Split texts into tokens",
            claims=has("inputs"),
            body=schemas.TokenizeBody,
            examples=_TEXTS,
            answer=schemas.TOKENS,
        ),
        operation(
            "/decode",
            decode,
            "Turn token ids into text",
            body=schemas.DecodeBody,
            examples={"ids": {"value": {"ids": [101, 1037, 4937, 102]}}},
            answer=schemas.TEXTS,
        ),
        Operation(
            ("/info",),
            show_info,
            "What is served",
            "GET",
            description=str(show_info.__doc__),
            answer={"type": "object"},
        ),
    ),
    error_body,
    status_of,
)
