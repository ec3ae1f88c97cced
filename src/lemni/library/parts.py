"""A request of any length through the engine, in parts: memory stays bounded, and a list may be longer than the queue.

`steps` is the whole way except waiting, which the caller does in its own manner, sync or async.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Generator, Iterator
from collections.abc import Sequence as Seq
from typing import TypeAlias

import numpy as np

from lemni.config import EngineSettings
from lemni.engine import Engine, Handle
from lemni.errors import DeadlineExceeded, LemniError, Overloaded
from lemni.tasks.model import LoadedModel
from lemni.tasks.tokenizer import no_item
from lemni.types import Request, Result

logger = logging.getLogger("lemni.library")

_PART = 512
_PARTS_IN_FLIGHT = 4
_PARTS_PER_QUEUE = 8  # a part's estimated tokens are at most the queue's by this

Steps: TypeAlias = Generator["Handle | float", None, Result]
"""Yields a handle to wait for, or seconds to sleep; returns the result."""


def steps(engine: Engine, model: LoadedModel, settings: EngineSettings, request: Request) -> Steps:
    """Run a request whose items may be more than the queue takes.

    A part that finds the queue full comes again when an earlier one is done, or when the queue should have room.
    """
    deadline_s = settings.request_timeout_s if request.deadline_s is None else request.deadline_s
    until = time.monotonic() + deadline_s
    handles: deque[Handle] = deque()
    results: list[Result] = []
    try:
        for part in _parts(model, request, settings.max_queue_tokens // _PARTS_PER_QUEUE):
            if len(handles) == _PARTS_IN_FLIGHT:
                yield handles[0]
                results.append(_taken(handles.popleft(), model, request))
            while isinstance(answer := _submit(engine, model, part, until, deadline_s), float):
                if handles:
                    yield handles[0]
                    results.append(_taken(handles.popleft(), model, request))
                else:
                    yield answer
            handles.append(answer)
        while handles:
            yield handles[0]
            results.append(_taken(handles.popleft(), model, request))
    finally:
        for handle in handles:
            handle.cancel()
    return joined(results)


def joined(results: Seq[Result]) -> Result:
    """The results of a request's parts as one; of none, one without items."""
    if len(results) == 1:
        return results[0]
    if not results:
        return Result(np.zeros(0, np.int32))
    starts = np.cumsum([0, *(len(result.token_counts) for result in results)])
    return Result(
        np.concatenate([result.token_counts for result in results]),
        tuple(int(start) + place for start, one in zip(starts, results, strict=False) for place in one.truncated),
        np.concatenate([result.vectors for result in results]),
        tuple(vector for result in results for vector in result.sparse),
        tuple(matrix for result in results for matrix in result.multi_vectors),
        np.concatenate([result.scores for result in results]),
        np.concatenate([result.labels for result in results]),
    )


def _taken(handle: Handle, model: LoadedModel, request: Request) -> Result:
    result = handle.result()
    if result.truncated:
        limit = min(model.card.max_length, request.options.max_tokens or model.card.max_length)
        message = "%d of %d inputs were cut to %d tokens; truncate='error' refuses such inputs"
        logger.warning(message, len(result.truncated), len(result.token_counts), limit)
    return result


def _submit(engine: Engine, model: LoadedModel, part: Request, until: float, deadline_s: float) -> Handle | float:
    """The part's handle, or the seconds after which the full queue should have room."""
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded(f"not finished within its deadline of {deadline_s:g} s")
    try:
        return engine.submit(model.card.name, dataclasses.replace(part, deadline_s=left_s))
    except Overloaded as full:
        return float(min(full.retry_after_s or 1.0, left_s))


def _parts(model: LoadedModel, request: Request, most_tokens: int) -> Iterator[Request]:
    items = request.items
    start, tokens = 0, 0
    for stop in range(len(items)):
        estimate = _estimate(model, request, stop)
        if stop > start and (stop - start == _PART or tokens + estimate > most_tokens):
            yield dataclasses.replace(request, items=items[start:stop], first_item=start)
            start, tokens = stop, 0
        tokens += estimate
    if start < len(items):
        yield dataclasses.replace(request, items=items[start:], first_item=start)


def _estimate(model: LoadedModel, request: Request, place: int) -> int:
    item, name = request.items[place], request.named(place)
    try:
        if error := no_item(item, name):
            raise error
        return model.estimate_tokens(item, request)
    except LemniError as error:
        error.item, error.param = place, name
        raise
