"""`InfinityEmbeddings`: multi-vectors of texts and images from an Infinity or a Lemni server, as nested lists.

A drop-in for AutoRAG-Research's class of this name. Its jobs are made in infinity_jobs.py; what comes out is scored,
searched and made smaller by `lemni.client.late_interaction`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias

from typing_extensions import Self

from lemni.client.base import Progress
from lemni.client.connection import Connection, check_seconds
from lemni.client.environment import Environment
from lemni.client.errors import ClientError
from lemni.client.images import ImageInput
from lemni.client.infinity_jobs import InfinityJobs, MultiVectors, Steps
from lemni.client.job import Job
from lemni.client.loops import LoopSessions
from lemni.client.retries import Retries
from lemni.client.session import Session
from lemni.errors import InvalidRequest
from lemni.types import InputType

MultiVector: TypeAlias = list[list[float]]
"""[tokens, dim]"""


@dataclass(frozen=True)
class InfinityEmbeddings:
    """Multi-vectors (ColPali, ColQwen2, ColBERT) of a server, sync and async. Thread-safe; can be copied and pickled.

    An image is a path, an http(s) URL (which the server fetches), a data URI, the bytes of a file, a BytesIO, a Pillow
    image, or a uint8 array [height, width], [height, width, 1, 3 or 4]. JPEG, PNG and WebP files are sent unchanged.

    Vectors come as the server computes them, but without those that are all zeros, which are Infinity's padding.
    Connections are opened when they are needed, and closed by `close`, `aclose`, the end of a `with` block, with the
    event loop, or when the object is collected.

    All methods raise InvalidRequest, TypeError or OSError for wrong inputs, before anything is sent, and otherwise
    ClientError and its kinds: ConnectionFailed, RequestTimeout, StatusError, BadAnswer, and PartialFailure, which has
    the finished part of a long list as arrays.

    Attributes:
        url: of the server; default is the variable INFINITY_API_URL, else http://localhost:7997. Never None once made.
        model_name: as the server calls it.
        encoding: how vectors travel: "base64" (raw bytes where the server has them) or "float", equal to the bit.
        hidden_dim: expected length of a vector. It is checked: where the server's is another, that one is used, with a
            warning in the log.
        timeout: seconds for one answer.
        max_retries: how often a request is sent at most, the first time included. Connection errors and the statuses
            408, 409, 429 and 5xx are tried again, after growing waits that obey `Retry-After`.
        embed_batch_size: inputs per request of the batch methods.
        api_key: sent as `Authorization: Bearer`; default is the variable INFINITY_API_KEY. It is pickled, not shown.
        concurrency: requests of a batch method in flight at once.

    Example:
        >>> with InfinityEmbeddings(model_name="vidore/colpali-v1.3") as embeddings:
        ...     query = embeddings.embed_query("What is RAG?")
        ...     pages = embeddings.embed_images_batch(["page1.png", "page2.png"], show_progress=True)
        >>> len(query), len(query[0])
        (18, 128)
    """

    url: str | None = None
    model_name: str = "michaelfeil/colqwen2-v0.1"
    encoding: Literal["base64", "float"] = "base64"
    hidden_dim: int = 128
    timeout: float = 60.0
    max_retries: int = 3
    embed_batch_size: int = 10
    api_key: str | None = field(default=None, repr=False, kw_only=True)
    concurrency: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        """Raises InvalidRequest: a setting makes no sense."""
        if self.encoding not in ("base64", "float"):
            raise InvalidRequest(f"encoding is {self.encoding!r}; it must be base64 or float", param="encoding")
        for name in ("hidden_dim", "max_retries", "embed_batch_size", "concurrency"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidRequest(f"{name} is {value!r}; it must be a whole number over 0", param=name)
        check_seconds("timeout", self.timeout)
        environment = Environment()
        url = self.url or environment.text("INFINITY_API_URL") or "http://localhost:7997"
        object.__setattr__(self, "url", url)
        if self.api_key is None:
            object.__setattr__(self, "api_key", environment.text("INFINITY_API_KEY"))
        object.__setattr__(self, "url", ",".join(self._connection.urls))

    def embed_text(self, text: str) -> MultiVector:
        """One text, as a query: floats [tokens, dim]."""
        return _lists(self._compute(self._jobs.texts([text], "query")))[0]

    def embed_query(self, query: str) -> MultiVector:
        """The same."""
        return self.embed_text(query)

    def embed_documents(self, texts: Sequence[str]) -> list[MultiVector]:
        """Texts as documents: floats [tokens, dim] each. In one request: the server's limit holds (Infinity: 2048)."""
        return _lists(self._compute(self._jobs.texts(texts, "document")))

    def embed_image(self, image: ImageInput) -> MultiVector:
        """One image: floats [tokens, dim]."""
        return _lists(self._compute(self._jobs.images([image])))[0]

    def embed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        """Images: floats [tokens, dim] each. In one request: the server's limit holds (Infinity: 32)."""
        return _lists(self._compute(self._jobs.images(images)))

    def embed_documents_batch(self, texts: Sequence[str], show_progress: Progress = False) -> list[MultiVector]:
        """Any number of documents, in requests of `embed_batch_size`; in order. `show_progress`: True for a bar, or a
        function that is called with (done, total)."""
        return _lists(self._compute(self._jobs.texts(texts, "document", self.embed_batch_size, show_progress)))

    def embed_images_batch(self, paths: Sequence[ImageInput], show_progress: Progress = False) -> list[MultiVector]:
        """The same for images; files on disk are read when their turn comes."""
        return _lists(self._compute(self._jobs.images(paths, self.embed_batch_size, show_progress)))

    def embed_arrays(
        self,
        inputs: Sequence[Any],
        modality: Literal["text", "image"] = "text",
        *,
        input_type: InputType = "document",
        show_progress: Progress = False,
    ) -> MultiVectors:
        """The batch methods for numpy: float32 arrays [tokens, dim], a fraction of the lists' memory.

        Args:
            inputs: texts, or images if `modality` says so.
            input_type: which side of a search texts are on.
        """
        return self._compute(self._batch(inputs, modality, input_type, show_progress))

    async def aembed_text(self, text: str) -> MultiVector:
        """`embed_text` for asyncio; so for all below."""
        return _lists(await self._acompute(self._jobs.texts([text], "query")))[0]

    async def aembed_query(self, query: str) -> MultiVector:
        return await self.aembed_text(query)

    async def aembed_documents(self, texts: Sequence[str]) -> list[MultiVector]:
        return _lists(await self._acompute(self._jobs.texts(texts, "document")))

    async def aembed_image(self, image: ImageInput) -> MultiVector:
        return (await self.aembed_images([image]))[0]

    async def aembed_images(self, images: Sequence[ImageInput]) -> list[MultiVector]:
        # Files are looked at, and pixels compressed, off the loop.
        return _lists(await self._acompute(await asyncio.to_thread(self._jobs.images, images)))

    async def aembed_documents_batch(self, texts: Sequence[str], show_progress: Progress = False) -> list[MultiVector]:
        return _lists(await self.aembed_arrays(texts, show_progress=show_progress))

    async def aembed_images_batch(
        self, paths: Sequence[ImageInput], show_progress: Progress = False
    ) -> list[MultiVector]:
        return _lists(await self.aembed_arrays(paths, "image", show_progress=show_progress))

    async def aembed_arrays(
        self,
        inputs: Sequence[Any],
        modality: Literal["text", "image"] = "text",
        *,
        input_type: InputType = "document",
        show_progress: Progress = False,
    ) -> MultiVectors:
        job = await asyncio.to_thread(self._batch, inputs, modality, input_type, show_progress)
        return await self._acompute(job)

    def close(self) -> None:
        """Close the connections of the sync methods. Idempotent; a later call opens new ones."""
        if session := self.__dict__.pop("_session", None):
            session.close()

    async def aclose(self) -> None:
        """Close those of the running event loop, too."""
        await self._loops.close()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def __getstate__(self) -> dict[str, Any]:
        """The settings: copies have connections of their own."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _batch(
        self,
        inputs: Sequence[Any],
        modality: Literal["text", "image"],
        input_type: InputType,
        progress: Progress,
    ) -> Job[MultiVectors]:
        if modality == "image":
            return self._jobs.images(inputs, self.embed_batch_size, progress)
        if modality != "text":
            raise InvalidRequest(f"modality is {modality!r}; it must be text or image", param="modality")
        return self._jobs.texts(inputs, input_type, self.embed_batch_size, progress)

    def _compute(self, job: Job[MultiVectors]) -> MultiVectors:
        steps = self._jobs.steps(job)
        try:
            wanted = next(steps)
            while True:
                try:
                    done = self._session.compute(wanted)
                except ClientError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(done)
        except StopIteration as end:
            found: MultiVectors = end.value
            return found

    async def _acompute(self, job: Job[MultiVectors]) -> MultiVectors:
        session = await self._loops.session()
        steps: Steps = self._jobs.steps(job)
        try:
            wanted = next(steps)
            while True:
                try:
                    done = await session.compute(wanted)
                except ClientError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(done)
        except StopIteration as end:
            found: MultiVectors = end.value
            return found

    @cached_property
    def _connection(self) -> Connection:
        assert self.url is not None
        return Connection(
            self.url,
            self.api_key,
            timeout_s=self.timeout,
            retries=Retries(times=self.max_retries - 1),
            concurrency=self.concurrency,
        )

    @cached_property
    def _jobs(self) -> InfinityJobs:
        return InfinityJobs(self.model_name, self.encoding, self.hidden_dim)

    @cached_property
    def _session(self) -> Session:
        session = Session(self._connection)
        weakref.finalize(self, session.close)
        return session

    @cached_property
    def _loops(self) -> LoopSessions:
        return LoopSessions(self._connection)


def _lists(vectors: MultiVectors) -> list[MultiVector]:
    return [rows.tolist() for rows in vectors]
