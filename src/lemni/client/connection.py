"""What one knows of a server: its URLs, times, limits and headers, and what was counted. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any

import orjson

import lemni
from lemni.client.conversation import Conversation, converse
from lemni.client.identity import Identities
from lemni.client.job import Job
from lemni.client.retries import Retries, Servers
from lemni.client.statistics import Counters
from lemni.client.wire.http import HttpRequest
from lemni.client.wire.inputs import input_of
from lemni.client.wire.models import Model
from lemni.errors import InvalidRequest

if TYPE_CHECKING:
    from lemni.client.cache import EmbeddingCache

_BRIEF_S = 5.0


class Connection:
    """One or several servers with the same models, and how they are asked."""

    def __init__(
        self,
        urls: str | Seq[str],
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        deadline_s: float | None = None,
        retries: Retries | int | None = None,
        concurrency: int = 4,
        batch_size: int = 256,
        batch_bytes: int = 1 << 20,
        headers: Mapping[str, str] | None = None,
        cache: EmbeddingCache | str | None = None,
    ) -> None:
        """
        Args:
            urls: base URLs; a text may hold several with commas between. When one fails, the next is asked.
            api_key: sent as `Authorization: Bearer`.
            timeout_s: for one answer.
            deadline_s: for one call with its retries and all its parts; None is no limit.
            retries: how failed requests are repeated; a number is how often.
            concurrency: requests in flight at once.
            batch_size: most inputs in one request.
            batch_bytes: about the most bytes in one request.
            headers: more HTTP headers.
            cache: of vectors: an EmbeddingCache, or "memory", "disk:FOLDER", "redis://HOST", which `close` then closes.

        Raises:
            InvalidRequest: a value makes no sense.
        """
        sizes = {"concurrency": concurrency, "batch_size": batch_size, "batch_bytes": batch_bytes}
        for name, value in {"timeout_s": timeout_s, "deadline_s": deadline_s, **sizes}.items():
            check_positive(name, value)
        self.urls = _urls(urls)
        self.timeout_s, self.deadline_s = timeout_s, deadline_s
        self.retries = Retries(times=retries) if isinstance(retries, int) else retries or Retries()
        self.concurrency, self.batch_size, self.batch_bytes = concurrency, batch_size, batch_bytes
        self.headers = {"user-agent": f"lemni/{lemni.__version__}", **(headers or {})}
        if api_key:
            self.headers["authorization"] = f"Bearer {api_key}"
        self.servers = Servers(self.urls)
        self.counters = Counters()
        self.identities = Identities()
        self._owns_cache = isinstance(cache, str)
        self.cache = _opened(cache)

    @property
    def url(self) -> str:
        """The first base URL."""
        return self.urls[0]

    def talk(self, deadline: float | None) -> Callable[[HttpRequest], Conversation]:
        """How the requests of one call are sent."""

        def start(request: HttpRequest) -> Conversation:
            return converse(
                request, self.servers, self.retries, self.counters, timeout_s=self.timeout_s, deadline=deadline
            )

        return start

    def ask_briefly(self, request: HttpRequest, most_s: float = _BRIEF_S) -> Conversation:
        """A request about the server itself: sent once, answered within `most_s` or not at all."""
        return converse(request, self.servers, Retries(times=0), self.counters, timeout_s=min(self.timeout_s, most_s))

    def deadline(self, job: Job[Any]) -> float | None:
        """time.monotonic() at which the job is given up."""
        seconds = job.deadline_s if job.deadline_s is not None else self.deadline_s
        return None if seconds is None else time.monotonic() + seconds

    def parts(self, job: Job[Any]) -> list[range]:
        """The positions of the inputs of each request."""
        return job.parts(self.batch_size, self.batch_bytes)

    def keys(self, job: Job[Any], model: Model | None) -> list[bytes]:
        """The cache's keys of a job's inputs: the server's model and all options that change a vector are in them."""
        from lemni.client.cache import Keys

        identity = dict(job.identity or {})
        name = identity.pop("model", None)
        keys = Keys(
            server=self.url,
            model=model.id if model else str(name or ""),
            revision=model.revision if model else None,
            task=identity.pop("task"),
            prompt=identity.pop("prompt", None),
            dimensions=identity.pop("dimensions", None),
            more=identity,
        )
        return [keys(item if isinstance(item, str) else orjson.dumps(input_of(item))) for item in job.items]

    def close(self) -> None:
        """Close the cache, if it was opened here."""
        if self._owns_cache and self.cache is not None:
            self.cache.close()


def check_positive(name: str, value: float | None) -> None:
    """Raises InvalidRequest for what is not None and no number over 0."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise InvalidRequest(f"{name} is {value!r}; it must be a number over 0", param=name)


def _urls(value: str | Seq[str]) -> list[str]:
    listed = value.split(",") if isinstance(value, str) else list(value)
    urls = [url.strip().rstrip("/") for url in listed if url.strip()]
    for url in urls or [""]:
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest(f"base_url is {url!r}; it must begin with http:// or https://", param="base_url")
    return list(dict.fromkeys(urls))


def _opened(cache: EmbeddingCache | str | None) -> EmbeddingCache | None:
    if not isinstance(cache, str):
        return cache
    from lemni.client.cache import open_cache

    return open_cache(cache)
