"""What the sync and the async client have in common: settings, and each of their methods as a Job. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
from typing_extensions import TypedDict, Unpack

from lemni.client.connection import Connection, check_seconds
from lemni.client.environment import Environment
from lemni.client.errors import BadAnswer
from lemni.client.job import Job, chained
from lemni.client.retries import Retries
from lemni.client.statistics import Statistics
from lemni.client.wire import embeddings, scores
from lemni.client.wire.embeddings import Encoding, Vectors
from lemni.client.wire.http import HttpReply, HttpRequest
from lemni.client.wire.inputs import checked, json_bytes, listed
from lemni.errors import InvalidRequest
from lemni.ranking import Label, Ranked, ranked
from lemni.types import Image, InputType, Item, Mixed, Pair, Priority, SparseVector, Truncate

if TYPE_CHECKING:
    from lemni.client.cache import EmbeddingCache

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:7997"

Progress: TypeAlias = bool | Callable[[int, int], object]

OutputType: TypeAlias = Literal["float32", "float16", "bfloat16", "int8", "int8_scaled", "uint8", "binary", "ubinary"]


class How(TypedDict, total=False):
    """Options by keyword. Only what is given is sent, so that servers of other makes see nothing that they do not know.

    Attributes:
        model: a name from `models()`; the client's own if not given, else the server's only one.
        deadline_s: seconds until everything is given up, retries and all parts of a long list included.
        progress: True for a bar, or a function that is called with (done, total).
    """

    model: str | None
    deadline_s: float | None
    progress: Progress


class EmbedHow(How, total=False):
    """Options of vectors.

    Attributes:
        dimensions: keep the first N values and normalise again.
        input_type: "query" or "document": takes the model's prompt or markers for it, if it has some.
        prompt: text to put before every text instead.
        prompt_name: one of the model's prompts.
        normalize: unit length or raw; default is what the model does.
        truncate: "right", "left", "error" to refuse texts over the model's length, or "chunk" to average its parts.
        priority: "bulk" yields to interactive requests on the same model.
    """

    dimensions: int | None
    input_type: InputType | None
    prompt: str | None
    prompt_name: str | None
    normalize: bool | None
    truncate: Truncate | None
    priority: Priority | None


class DenseHow(EmbedHow, total=False):
    """Options of dense vectors.

    Attributes:
        output_type: number type of the vectors, quantised by the server; "int8_scaled" and "bfloat16" travel so and
            come back as float32.
    """

    output_type: OutputType | None


class ScoreHow(How, total=False):
    """Options of scores and labels.

    Attributes:
        raw_scores: the model's logits, instead of scores from 0 to 1.
        truncate: what to do with pairs over the model's length.
        prompt: the instruction of a causal reranker.
    """

    raw_scores: bool | None
    truncate: Truncate | None
    prompt: str | None


class Settings(TypedDict, total=False):
    """Settings of a client by keyword.

    Attributes:
        timeout_s: for one answer; 300 if not given.
        deadline_s: for one call, with its retries and all its parts; none if not given.
        retries: how failed requests are repeated; a number is how often.
        concurrency: requests of one call in flight at once; 4 if not given.
        batch_size: most inputs in one request; longer lists are split. 128 if not given.
        batch_bytes: about the most bytes in one request; 1 MiB if not given.
        headers: more HTTP headers.
        cache: of dense and multi-vectors: an EmbeddingCache, or "memory", "disk:FOLDER", "redis://HOST".
    """

    timeout_s: float
    deadline_s: float | None
    retries: Retries | int
    concurrency: int
    batch_size: int
    batch_bytes: int
    headers: Mapping[str, str] | None
    cache: EmbeddingCache | str | None


_OWN = ("deadline_s", "progress")  # not fields of a body


class ClientBase:
    """Settings of a client, and its calls as data. Not used by itself."""

    def __init__(
        self,
        base_url: str | Seq[str] | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        encoding: Encoding = "raw",
        **settings: Unpack[Settings],
    ) -> None:
        """
        Args:
            base_url: what the server's OpenAI API begins with: `http://host:7997`, or with `/v1` for servers that want
                it. Several, or a text with commas, are servers with the same models: when one fails, the next is asked.
                Default is the variable `LEMNI_URL`, else http://127.0.0.1:7997.
            model: name for calls that give none.
            api_key: sent as `Authorization: Bearer`; default is the variable `LEMNI_API_KEY`.
            encoding: how vectors travel. "raw" takes raw bytes of servers that have them and base64 of others; "float"
                is for servers that know no base64.
            settings: see `Settings`.

        Raises:
            InvalidRequest: a setting makes no sense.
        """
        if unknown := sorted(set(settings) - set(Settings.__annotations__)):
            known = ", ".join(("base_url", "model", "api_key", "encoding", *Settings.__annotations__))
            raise TypeError(f"unexpected keyword argument {unknown[0]!r}; known: {known}")
        if encoding not in get_args(Encoding):
            raise InvalidRequest(f"encoding is {encoding!r}; it must be raw, base64 or float", param="encoding")
        environment = Environment()
        self.model = model
        self._lock = threading.Lock()
        self._encoding: Encoding = encoding
        self._connection = Connection(
            base_url if base_url is not None else environment.text("LEMNI_URL") or DEFAULT_URL,
            api_key if api_key is not None else environment.text("LEMNI_API_KEY"),
            **settings,
        )

    @property
    def base_url(self) -> str:
        """The server's URL; the first of several."""
        return self._connection.url

    @property
    def statistics(self) -> Statistics:
        """What was sent and counted so far."""
        return self._connection.counters.read()

    @property
    def cache(self) -> EmbeddingCache | None:
        """The cache, if there is one; its `statistics` say what it saved."""
        return self._connection.cache

    def _embed(self, texts: Item | Seq[Item], how: DenseHow) -> Job[Vectors]:
        items, lone = listed(texts)
        _check_known(how, DenseHow)
        output_type = how.get("output_type")

        def join(parts: list[Any]) -> Vectors:
            if not parts:
                return np.zeros((0, how.get("dimensions") or 0), np.float32)
            # A part is an array of a reply, or a list of rows: those of a cache may be of another model by that name.
            rows = [row for part in parts for row in (part if isinstance(part, list) else [part])]
            if len(kinds := {(row.shape[-1], row.dtype.name) for row in rows}) > 1:
                advice = "; if the server has another model now, clear the cache" if self.cache is not None else ""
                raise BadAnswer(f"the vectors are of different lengths or types: {sorted(kinds)}{advice}")
            arrays = [np.asarray(part) for part in parts]
            vectors: Vectors = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            return vectors[0] if lone else vectors

        return self._job(
            items,
            how,
            lambda some, body: embeddings.request(some, self._encoding, body),
            lambda reply, count: embeddings.read_dense(reply, count, output_type),
            join,
            task="embed",
        )

    def _embed_both(self, a: Item | Seq[Item], b: Item | Seq[Item], how: EmbedHow) -> Job[tuple[Vectors, Vectors]]:
        """Both in one call, which has one deadline."""
        (first, first_lone), (second, second_lone) = listed(a, "a"), listed(b, "b")
        _check_known(how, EmbedHow)
        job = self._embed([*first, *second], {**how, "output_type": None})

        def join(parts: list[Any]) -> tuple[Vectors, Vectors]:
            vectors = job.join(parts)
            left, right = vectors[: len(first)], vectors[len(first) :]
            return left[0] if first_lone else left, right[0] if second_lone else right

        return Job(job.items, job.request, job.read, join, job.identity, job.progress, job.deadline_s)

    def _sparse(self, texts: Seq[Item], how: EmbedHow) -> Job[list[SparseVector]]:
        items, _ = listed(texts)
        _check_known(how, EmbedHow)
        return self._job(
            items,
            how,
            lambda some, body: embeddings.request(some, self._encoding, {**body, "outputs": ["sparse"]}),
            embeddings.read_sparse,
            chained,
        )

    def _multi_vector(self, items: Seq[Item], how: EmbedHow) -> Job[list[Vectors]]:
        found, _ = listed(items, "items")
        _check_known(how, EmbedHow)
        return self._job(
            found,
            how,
            lambda some, body: embeddings.request(some, self._encoding, {**body, "outputs": ["multi_vector"]}),
            embeddings.read_multi,
            chained,
            task="multi_vector",
        )

    def _rerank(
        self, query: str | Image | Mixed, documents: Seq[str | Image | Mixed], top_n: int | None, how: ScoreHow
    ) -> Job[list[Ranked]]:
        if isinstance(documents, str):
            raise InvalidRequest("documents is a text; it must be a list of texts", param="documents")
        _check_side(query, "query")
        items, _ = listed(documents, "documents")
        _check_known(how, ScoreHow)
        return self._job(
            items,
            how,
            lambda some, body: scores.rerank_request(query, some, body),
            scores.read_scores,
            lambda parts: ranked(_scores(parts), top_n),
        )

    def _score(self, pairs: Seq[Pair], how: ScoreHow) -> Job[Vectors]:
        if isinstance(pairs, Pair) or not hasattr(pairs, "__iter__"):
            kind = type(pairs).__name__
            raise InvalidRequest(f"pairs is of type {kind}; it must be a list of lemni.Pair", param="pairs")
        items = list(pairs)
        for place, pair in enumerate(items):
            if not isinstance(pair, Pair):
                kind = type(pair).__name__
                raise InvalidRequest(f"pairs[{place}] is of type {kind}; it must be a lemni.Pair", item=place)
            _check_side(pair.first, f"pairs[{place}].first", place)
            _check_side(pair.second, f"pairs[{place}].second", place)
        _check_known(how, ScoreHow)
        return self._job(items, how, lambda some, body: scores.score_request(some, body), scores.read_scores, _scores)

    def _classify(self, texts: Seq[str], top_k: int | None, how: ScoreHow) -> Job[list[list[Label]]]:
        items, _ = listed(texts)
        for place, text in enumerate(items):
            if not isinstance(text, str):
                raise InvalidRequest(f"texts[{place}] is of type {type(text).__name__}; it must be a text", item=place)
        _check_known(how, ScoreHow)
        most = top_k if top_k is not None and top_k > 0 else None
        return self._job(
            items,
            how,
            lambda some, body: scores.classify_request(some, body),
            scores.read_labels,
            lambda parts: [row[:most] for row in chained(parts)],
        )

    def _job(
        self,
        items: list[Any],
        how: Mapping[str, Any],
        request: Callable[[Seq[Any], dict[str, Any]], HttpRequest],
        read: Callable[[HttpReply, int], Any],
        join: Callable[[list[Any]], T],
        task: str | None = None,
    ) -> Job[T]:
        body = {name: _plain(value) for name, value in how.items() if name not in _OWN and value is not None}
        if model := how.get("model") or self.model:
            body["model"] = model
        json_bytes(body)
        deadline_s = how.get("deadline_s")
        if deadline_s is not None:
            check_seconds("deadline_s", deadline_s)
        identity = {"task": task, **{name: body[name] for name in body if name != "priority"}} if task else None
        return Job(
            items, lambda some: request(some, body), read, join, identity, how.get("progress", False), deadline_s
        )


def _check_known(how: Mapping[str, Any], options: type) -> None:
    if unknown := sorted(set(how) - set(options.__annotations__)):
        known = ", ".join(options.__annotations__)
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; known: {known}")


def _check_side(side: object, where: str, place: int | None = None) -> None:
    if not isinstance(side, str | Image | Mixed):
        kind = type(side).__name__
        message = f"{where} is of type {kind}; it must be a text, a lemni.Image or a lemni.Mixed"
        raise InvalidRequest(message, item=place, param=where)
    checked(side, where, place)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _scores(parts: list[Any]) -> Vectors:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
