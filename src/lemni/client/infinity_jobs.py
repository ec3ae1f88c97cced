"""What `InfinityEmbeddings` asks for, and how it reads the answers of Lemni and of Infinity. No I/O.

Lemni says the shape of a multi-vector. Infinity sends base64 as one flat row of numbers, so their length is asked for
once, by a short request for decimal numbers; and it pads the shorter inputs of a batch with rows of zeros.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lemni.client.base import Progress
from lemni.client.errors import BadAnswer, PartialFailure, StatusError
from lemni.client.images import ImageInput, sources_of, uri_of
from lemni.client.job import Job, chained
from lemni.client.wire import embeddings, safetensors
from lemni.client.wire.http import HttpReply, HttpRequest, json_of
from lemni.client.wire.inputs import json_bytes
from lemni.client.wire.usage import Answer
from lemni.errors import InvalidRequest
from lemni.types import InputType

T = TypeVar("T")

log = logging.getLogger(__name__)

MultiVectors: TypeAlias = list[NDArray[np.float32]]
"""[tokens, dim] of each input."""

Steps: TypeAlias = Generator[Job[Any], Any, MultiVectors]
"""Yields jobs to do, is sent what came of each or thrown its ClientError."""


@dataclass(frozen=True)
class ChunkedJob(Job[T]):
    """A job of which each request has `chunk` inputs, whatever their size in bytes."""

    chunk: int = 1

    def parts(self, most_items: int, most_bytes: int) -> list[range]:
        count = len(self.items)
        return [range(start, min(start + self.chunk, count)) for start in range(0, count, self.chunk)]


class InfinityJobs:
    """The calls for one model as jobs.

    Args:
        hidden_dim: what the caller believes to be the length of a vector.
    """

    def __init__(self, model: str, encoding: Literal["base64", "float"], hidden_dim: int) -> None:
        self._model = model
        self._encoding = encoding
        self._hidden_dim = hidden_dim
        self._width: int | None = None  # as the server has it

    def texts(
        self, texts: Sequence[str], side: InputType | None, chunk: int | None = None, progress: Progress = False
    ) -> Job[MultiVectors]:
        """Texts in requests of `chunk`, or all in one. Raises InvalidRequest that names what is no text."""
        if isinstance(texts, str | bytes | dict) or not hasattr(texts, "__iter__"):
            raise InvalidRequest(f"texts is of type {type(texts).__name__}; it must be a list of texts", param="texts")
        items = list(texts)
        for place, text in enumerate(items):
            if not isinstance(text, str):
                raise InvalidRequest(f"texts[{place}] is of type {type(text).__name__}; it must be a text", item=place)
        return self._job(items, {"modality": "text", "input_type": side}, chunk, progress)

    def images(
        self, images: Sequence[ImageInput], chunk: int | None = None, progress: Progress = False
    ) -> Job[MultiVectors]:
        """Images in requests of `chunk`, or all in one. Raises what `sources_of` raises."""
        return self._job(sources_of(images), {"modality": "image"}, chunk, progress)

    def steps(self, job: Job[MultiVectors]) -> Steps:
        """Do the job, and what it takes to know the shapes of its result. Raises ClientError."""
        try:
            rows = yield job
        except PartialFailure as failure:
            finished = yield from self._shaped(failure.finished)
            raise PartialFailure(finished, failure.failures, failure.total) from failure.failures[0].error
        shaped = yield from self._shaped(dict(enumerate(rows)))
        return list(shaped.values())

    def _job(self, items: list[Any], about: dict[str, Any], chunk: int | None, progress: Progress) -> Job[MultiVectors]:
        # `encoding` is what the clients of seed and Lemni call it; Infinity knows only `encoding_format`.
        options = {"model": self._model, **about, "encoding": self._encoding}

        def request(some: Sequence[Any]) -> HttpRequest:
            encoding: embeddings.Encoding = "raw" if self._encoding == "base64" else "float"
            return embeddings.request([uri_of(one) for one in some], encoding, options)

        return ChunkedJob(items, request, _read, chained, progress=progress, chunk=chunk or max(1, len(items)))

    def _probe(self) -> Job[int]:
        """The length of a vector: of a text's first one, as numbers. `dimensions` is Infinity's count of vectors."""
        body = {"input": ["test"], "model": self._model, "dimensions": 1}
        return ChunkedJob(["test"], lambda _: HttpRequest("/embeddings", json_bytes(body)), _read_width, _only)

    def _shaped(
        self, rows: Mapping[int, NDArray[np.float32]]
    ) -> Generator[Job[Any], Any, dict[int, NDArray[np.float32]]]:
        """The rows as [tokens, dim], by their places."""
        shaped: dict[int, NDArray[np.float32]] = {}
        for place, row in rows.items():
            if row.shape[1] != 1:
                self._learn(row.shape[1])
                shaped[place] = _without_padding(row)
                continue
            if self._width is None:
                try:
                    width = yield self._probe()
                except StatusError as error:
                    raise BadAnswer(
                        f"the server sends flat vectors, and does not say how long one is ({error}); "
                        "take encoding='float'"
                    ) from error
                self._learn(width)
            assert self._width is not None
            if row.size % self._width:
                raise BadAnswer(
                    f"the multi-vector of input {place} has {row.size} numbers, which is no multiple of {self._width}, "
                    "the length of this model's vectors",
                    item=place,
                )
            shaped[place] = _without_padding(row.reshape(-1, self._width))
        return shaped

    def _learn(self, width: int) -> None:
        if self._width is None and width != self._hidden_dim:
            log.warning(
                "hidden_dim is %d, but the vectors of %s have %d dimensions; their own length is used",
                self._hidden_dim,
                self._model,
                width,
            )
        self._width = width


def _read(reply: HttpReply, count: int) -> Answer:
    """[tokens, dim] of each input where the server says the shape, else [numbers, 1]."""
    if reply.media_type == safetensors.SAFETENSORS and "embeddings" in safetensors.read(reply.body)[0]:
        raise _one_vector()
    return embeddings.read_multi(reply, count, dim=1)


def _read_width(reply: HttpReply, count: int) -> Answer:
    content = json_of(reply)
    try:
        found = np.asarray(content["data"][0]["embedding"], np.float32)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadAnswer(f"the server's answer has no vectors: {error!r}") from error
    if found.ndim != 2 or found.shape[1] < 2:
        raise _one_vector()
    return Answer([found.shape[1]])


def _one_vector() -> BadAnswer:
    return BadAnswer("the model gives one vector per input, not one per token; lemni.Client.embed is for those")


def _without_padding(row: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without the vectors that are all zeros: no model computes such a one."""
    real = row.any(axis=1)
    return row if real.all() else row[real]


def _only(parts: list[list[int]]) -> int:
    return parts[0][0]
