"""The five services of `tei.v1`. One message in, one message out; `calls.py` makes calls and streams of it.

Unlike over HTTP an absent `truncate` or `normalize` is false, as proto3 has it: long texts are refused, vectors raw.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from lemni.errors import InvalidRequest, PayloadTooLarge, TooManyItems
from lemni.ranking import ranked
from lemni.server.dialects.tei_errors import Empty
from lemni.server.dialects.tei_options import info, model_type, predictions, score_activation, truncate_of
from lemni.server.dialects.tokens import decoded, tokenized
from lemni.server.grpc import tei_pb2 as pb
from lemni.server.grpc import tei_pb2_grpc as generated
from lemni.server.grpc.calls import Call, Servicer, streaming, unary
from lemni.server.rows import off_the_loop
from lemni.server.service import Service
from lemni.types import Item, ModelCard, Options, Pair, Result, Task, Truncate

_MODEL_TYPES = {
    "embedding": pb.MODEL_TYPE_EMBEDDING,
    "classifier": pb.MODEL_TYPE_CLASSIFIER,
    "reranker": pb.MODEL_TYPE_RERANKER,
}
_INFO_FIELDS = frozenset(field.name for field in pb.InfoResponse.DESCRIPTOR.fields) - {"model_type"}


async def _info(call: Call, request: Any) -> Any:
    card = await call.card()
    facts = {name: value for name, value in info(call.service, card).items() if name in _INFO_FIELDS}
    return pb.InfoResponse(**facts, model_type=_MODEL_TYPES[model_type(card)])


async def _embed(call: Call, request: Any) -> Any:
    began = time.perf_counter()
    card = await call.card()
    options = _text_options(card, request, normalize=request.normalize)
    result = await call.run(card, [request.inputs], options, "embed")
    return pb.EmbedResponse(
        embeddings=result.vectors[0].tolist(), metadata=_metadata(began, result, len(request.inputs))
    )


async def _embed_sparse(call: Call, request: Any) -> Any:
    began = time.perf_counter()
    card = await call.card("sparse")
    result = await call.run(card, [request.inputs], _text_options(card, request), "sparse")
    indices, values = result.sparse[0]
    terms = zip(indices.tolist(), values.tolist(), strict=True)
    return pb.EmbedSparseResponse(
        sparse_embeddings=[pb.SparseValue(index=index, value=value) for index, value in terms],
        metadata=_metadata(began, result, len(request.inputs)),
    )


async def _embed_all(call: Call, request: Any) -> Any:
    began = time.perf_counter()
    card = await call.card("tokens")
    task: Task = "multi_vector" if "multi_vector" in card.tasks and "tokens" not in card.tasks else "tokens"
    result = await call.run(card, [request.inputs], _text_options(card, request), task)
    [matrix] = result.multi_vectors

    def written() -> list[Any]:
        return [pb.TokenEmbedding(embeddings=row) for row in matrix.tolist()]

    rows = await off_the_loop(matrix.nbytes, written)
    return pb.EmbedAllResponse(token_embeddings=rows, metadata=_metadata(began, result, len(request.inputs)))


async def _predict(call: Call, request: Any) -> Any:
    return await _predicted(call, request, request.inputs)


async def _predict_pair(call: Call, request: Any) -> Any:
    if len(request.inputs) != 2:
        raise InvalidRequest(f"inputs has {len(request.inputs)} texts; a pair has two", param="inputs")
    return await _predicted(call, request, Pair(*request.inputs))


async def _predicted(call: Call, request: Any, item: str | Pair) -> Any:
    began = time.perf_counter()
    card = await call.card("classify")
    options = Options(truncate=_truncate(card, request), activation="none" if request.raw_scores else None)
    result = await call.run(card, [item], options, "classify")
    found = [pb.Prediction(**one) for one in predictions(card, result.labels[0])]
    return pb.PredictResponse(predictions=found, metadata=_metadata(began, result, len(item)))


async def _rerank(call: Call, request: Any) -> Any:
    began = time.perf_counter()
    pairs = [Pair(request.query, text) for text in request.texts]
    _check_batch(call, len(pairs))
    return await _reranked(call, began, pairs, request)


async def _rerank_stream(call: Call, requests: AsyncIterator[Any]) -> Any:
    """Every message is a pair; how they are scored and shown is up to the first."""
    began = time.perf_counter()
    limit_mib = call.service.settings.max_body_mib
    first, pairs, size = None, [], 0
    async for request in requests:
        first = first or request
        # All of them are kept until the stream ends, so together they are what one body is over HTTP.
        size += request.ByteSize()
        if size > limit_mib * (1 << 20):
            raise PayloadTooLarge(f"the stream is over this server's limit of {limit_mib:g} MiB (max_body_mib)")
        pairs.append(Pair(request.query, request.text))
        _check_batch(call, len(pairs))
    _check_batch(call, len(pairs))
    return await _reranked(call, began, pairs, first)


async def _reranked(call: Call, began: float, pairs: list[Pair], request: Any) -> Any:
    card = await call.card("score")
    options = Options(truncate=_truncate(card, request), activation=score_activation(card, request.raw_scores))
    items: list[Item] = list(pairs)
    result = await call.run(card, items, options, "score", field="texts", lone=False)
    ranks = [
        pb.Rank(index=place, score=score, text=pairs[place].second if request.return_text else None)
        for place, score in ranked(result.scores)
    ]
    return pb.RerankResponse(ranks=ranks, metadata=_metadata(began, result, sum(map(len, pairs))))


async def _tokenize(call: Call, request: Any) -> Any:
    model = call.model(await call.card())
    name = request.prompt_name if request.HasField("prompt_name") else None
    [tokens] = await asyncio.to_thread(tokenized, model, [request.inputs], request.add_special_tokens, name)
    return pb.EncodeResponse(tokens=[pb.SimpleToken(**token._asdict()) for token in tokens])


async def _decode(call: Call, request: Any) -> Any:
    model = call.model(await call.card())
    [text] = await asyncio.to_thread(decoded, model, [list(request.ids)], request.skip_special_tokens)
    return pb.DecodeResponse(text=text)


def _truncate(card: ModelCard, request: Any) -> Truncate | None:
    left = request.truncation_direction == pb.TRUNCATION_DIRECTION_LEFT
    return truncate_of(card, request.truncate, "left" if left else "right")


def _text_options(card: ModelCard, request: Any, normalize: bool | None = None) -> Options:
    name = request.prompt_name if request.HasField("prompt_name") else None
    return Options(prompt_name=name, truncate=_truncate(card, request), normalize=normalize)


def _check_batch(call: Call, size: int) -> None:
    limit = call.service.settings.max_items
    if not size:
        raise Empty("texts is empty; it must hold at least one text", param="texts")
    if size > limit:
        raise TooManyItems(f"batch size {size} > maximum allowed batch size {limit}", param="texts")


def _metadata(began: float, result: Result, characters: int) -> Any:
    tokenization, queue, inference = (int(seconds * 1e9) for seconds in result.timing)
    return pb.Metadata(
        compute_chars=characters,
        compute_tokens=int(result.token_counts.sum()),
        total_time_ns=int((time.perf_counter() - began) * 1e9),
        tokenization_time_ns=tokenization,
        queue_time_ns=queue,
        inference_time_ns=inference,
    )


class Info(Servicer):
    Info = unary(_info)


class Embed(Servicer):
    Embed = unary(_embed)
    EmbedStream = streaming(_embed)
    EmbedSparse = unary(_embed_sparse)
    EmbedSparseStream = streaming(_embed_sparse)
    EmbedAll = unary(_embed_all)
    EmbedAllStream = streaming(_embed_all)


class Predict(Servicer):
    Predict = unary(_predict)
    PredictStream = streaming(_predict)
    PredictPair = unary(_predict_pair)
    PredictPairStream = streaming(_predict_pair)


class Rerank(Servicer):
    Rerank = unary(_rerank)
    RerankStream = unary(_rerank_stream)


class Tokenize(Servicer):
    Tokenize = unary(_tokenize)
    TokenizeStream = streaming(_tokenize)
    Decode = unary(_decode)
    DecodeStream = streaming(_decode)


def add_all(server: Any, service: Service) -> None:
    """Put the services into a `grpc.aio` server."""
    generated.add_InfoServicer_to_server(Info(service), server)
    generated.add_EmbedServicer_to_server(Embed(service), server)
    generated.add_PredictServicer_to_server(Predict(service), server)
    generated.add_RerankServicer_to_server(Rerank(service), server)
    generated.add_TokenizeServicer_to_server(Tokenize(service), server)
