"""What one knows of a server: its URLs, times, limits and headers, and what was counted. No I/O."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

import lemni
from lemni.client.conversation import Conversation, Heard, Send, Wait, converse
from lemni.client.errors import ClientError
from lemni.client.identity import Identities
from lemni.client.job import Job, naming
from lemni.client.retries import Retries, Servers
from lemni.client.statistics import Counters
from lemni.client.wire.http import HttpRequest, checked_headers
from lemni.client.wire.inputs import input_of
from lemni.client.wire.models import REQUEST, Model, read_models
from lemni.errors import InvalidRequest

if TYPE_CHECKING:
    from lemni.client.cache import EmbeddingCache

BRIEF_S = 5.0
"""What an answer about the server itself may take."""
_LONGEST_S = 1_000_000  # poll(2) counts milliseconds in an int


class Connection:
    """One or several servers with the same models, and how they are asked."""

    def __init__(
        self,
        urls: str | Seq[str],
        api_key: str | None = None,
        *,
        timeout_s: float = 300.0,
        deadline_s: float | None = None,
        retries: Retries | int | None = None,
        concurrency: int = 4,
        batch_size: int = 128,
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
            concurrency: requests of one call in flight at once.
            batch_size: most inputs in one request.
            batch_bytes: about the most bytes in one request.
            headers: more HTTP headers.
            cache: of vectors: an EmbeddingCache, or "memory", "disk:FOLDER", "redis://HOST", which `close` then closes.

        Raises:
            InvalidRequest: a value makes no sense.
        """
        for name, size in (("concurrency", concurrency), ("batch_size", batch_size), ("batch_bytes", batch_bytes)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InvalidRequest(f"{name} is {size!r}; it must be a whole number, 1 or more", param=name)
        check_seconds("timeout_s", timeout_s)
        if deadline_s is not None:
            check_seconds("deadline_s", deadline_s)
        if not isinstance(retries, Retries | int | None):
            raise InvalidRequest(f"retries is {retries!r}; it must be a whole number or Retries(...)", param="retries")
        if not isinstance(headers, Mapping | None):
            kind = type(headers).__name__
            raise InvalidRequest(f"headers is of type {kind}; it must be a mapping of names to values", param="headers")
        if not isinstance(api_key, str | None):
            raise InvalidRequest(f"api_key is of type {type(api_key).__name__}; it must be a text", param="api_key")
        self.urls = _urls(urls)
        self.timeout_s, self.deadline_s = timeout_s, deadline_s
        self.retries = Retries(times=retries) if isinstance(retries, int) else retries or Retries()
        self.concurrency, self.batch_size, self.batch_bytes = concurrency, batch_size, batch_bytes
        self.headers = {"user-agent": f"lemni/{lemni.__version__}", **checked_headers(headers or {}, "headers")}
        if api_key:
            bare = api_key.removeprefix("Bearer ")
            self.headers |= checked_headers({"authorization": f"Bearer {bare}"}, "api_key")
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

    def ask_briefly(self, request: HttpRequest, most_s: float = BRIEF_S, deadline: float | None = None) -> Conversation:
        """A request about the server itself: sent once, answered within `most_s` or not at all."""
        timeout_s = min(self.timeout_s, most_s)
        return converse(request, self.servers, Retries(times=0), self.counters, timeout_s=timeout_s, deadline=deadline)

    def list_models(self, deadline: float | None = None) -> Generator[Send | Wait, Heard, list[Model]]:
        """A conversation that ends with the models that the server has. Raises ClientError."""
        reply = yield from self.ask_briefly(REQUEST, deadline=deadline)
        with naming(reply):
            return read_models(reply)

    def identify(
        self, listing: Generator[Send | Wait, Heard, list[Model]], name: str | None, task: str | None = None
    ) -> Generator[Send | Wait, Heard, Model | None]:
        """What the server says about a model, as a conversation that begins with `listing` every few minutes."""
        if self.identities.stale:
            try:
                self.identities.update((yield from listing))
            except ClientError:
                self.identities.update(None)
        return self.identities.of(name, task)

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


def left_s(deadline: float | None) -> float | None:
    """Seconds until then, at least 0; None without a deadline."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def check_positive(name: str, value: float | None) -> None:
    """Raises InvalidRequest for what is not None and no number over 0."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise InvalidRequest(f"{name} is {value!r}; it must be a number over 0", param=name)


def check_seconds(name: str, value: float) -> None:
    """Raises InvalidRequest for what is no number over 0 that sockets can wait."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_S:
        raise InvalidRequest(
            f"{name} is {value!r}; it must be a number of seconds, over 0 and at most {_LONGEST_S}", param=name
        )


def _urls(value: str | Seq[str]) -> list[str]:
    listed = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Iterable) else [value]
    urls = [_url(url) for url in listed if not isinstance(url, str) or url.strip()]
    if not urls:
        raise InvalidRequest(f"base_url is {value!r}; it must be the URL of a server", param="base_url")
    return list(dict.fromkeys(urls))


def _url(value: str) -> str:
    """Without a slash at its end. Raises InvalidRequest, with a message that shows no password."""
    if not isinstance(value, str) or not value.strip().lower().startswith(("http://", "https://")):
        raise InvalidRequest(f"base_url is {_shown(value)}; it must begin with http:// or https://", param="base_url")
    url = value.strip()
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.password is not None:
            advice = "give a key, or lemni.Client's headers={'authorization': 'Basic ...'}"
            raise InvalidRequest(f"base_url for {parts.hostname} has a user name in it; {advice}", param="base_url")
        if parts.query or parts.fragment:
            raise InvalidRequest(f"base_url is {_shown(url)}; it cannot have a query or fragment", param="base_url")
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0) and not _SPACE.search(url)
    except ValueError as error:  # a port or an IPv6 address that is none
        why = "its host or port is none" if "@" in url else error
        raise InvalidRequest(f"base_url is {_shown(url)}: {why}", param="base_url") from None
    if not whole:
        why = "it has no host, or a port or characters that no URL has"
        raise InvalidRequest(f"base_url is {_shown(url)}; {why}", param="base_url")
    return url.rstrip("/")


def _shown(value: object) -> str:
    """For a message: without what may be a secret, which is what stands before an @ or after a ?."""
    return repr(_SECRET.sub("...", value) if isinstance(value, str) else value)


_SECRET = re.compile(r".+(?=@)|(?<=\?).+")
_SPACE = re.compile(r"[\s\x00-\x1f\x7f]")


def _opened(cache: EmbeddingCache | str | None) -> EmbeddingCache | None:
    if cache is None:
        return None
    from lemni.client.cache import EmbeddingCache, open_cache

    if not isinstance(cache, str | EmbeddingCache):
        raise InvalidRequest(
            f"cache is {cache!r}; it must be 'memory', 'disk:FOLDER', 'redis://HOST' or an EmbeddingCache",
            param="cache",
        )
    return open_cache(cache) if isinstance(cache, str) else cache
