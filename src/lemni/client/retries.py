"""When a failed request is sent again, after what wait, and to which of several servers. No I/O, no clock."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from lemni.client.errors import ClientError, RequestTimeout, StatusError
from lemni.errors import InvalidRequest


@dataclass(frozen=True)
class Retries:
    """Exponential back-off with equal jitter (AWS Architecture Blog, 2015, "Exponential Backoff And Jitter").

    Connection errors and the statuses 408, 409, 429, 500, 502, 503, 504 and 529 are tried again; what the caller got
    wrong is not. A server's `Retry-After` is obeyed: it is the least that is waited.

    Attributes:
        times: how often a request is sent again; 0 sends it once.
        first_s: the longest first wait, and at least half of it is waited; each further one may be twice as long.
        longest_s: no wait is longer, unless the server says so.
        longest_retry_after_s: a `Retry-After` over this is an error at once.
    """

    times: int = 4
    first_s: float = 0.5
    longest_s: float = 8.0
    longest_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("times", "first_s", "longest_s", "longest_retry_after_s"):
            value = getattr(self, name)
            kinds = int if name == "times" else int | float
            if not isinstance(value, kinds) or not value >= 0:
                word = "a whole number" if name == "times" else "a number"
                raise InvalidRequest(f"{name} is {value!r}; it must be {word}, 0 or more", param=name)

    def wait_s(self, tries: int, error: ClientError) -> float | None:
        """Seconds to wait after a request has failed `tries` times (from 1), or None to give up."""
        if not error.retryable or tries > self.times:
            return None
        wait = random.uniform(0.5, 1.0) * min(self.longest_s, self.first_s * 2.0 ** min(tries - 1, 64))
        if error.retry_after_s is not None:
            if error.retry_after_s > self.longest_retry_after_s:
                return None
            # Many clients were told the same time: they should not all come back at once.
            wait = error.retry_after_s + random.uniform(0.0, min(self.first_s, 0.1 * error.retry_after_s))
        return wait


class Servers:
    """Several base URLs with the same models. The first that works is kept; one that fails is left alone for a while.

    Thread-safe. `now` is always time.monotonic() of the caller.
    """

    def __init__(self, urls: Sequence[str], rest_s: float = 30.0) -> None:
        self.urls = tuple(urls)
        self._rest_s = rest_s
        self._lock = threading.Lock()
        self._current = 0
        self._resting = dict.fromkeys(self.urls, 0.0)  # until when

    def choose(self, now: float, tried: frozenset[str] = frozenset()) -> str:
        """The server to ask, of those not `tried`: the last good one, else the next awake one, else the first to be."""
        with self._lock:
            order = self.urls[self._current :] + self.urls[: self._current]
            untried = [url for url in order if url not in tried] or order
            return min(untried, key=lambda url: max(now, self._resting[url]))

    def good(self, url: str) -> None:
        """It answered."""
        with self._lock:
            self._resting[url] = 0.0
            self._current = self.urls.index(url)

    def failed(self, url: str, error: ClientError, now: float) -> None:
        """It did not; an overloaded one rests as long as it asks for."""
        with self._lock:
            rest_s = self._rest_s
            if isinstance(error, StatusError) and error.retry_after_s is not None:
                rest_s = min(error.retry_after_s, rest_s)
            self._resting[url] = now + rest_s


def elsewhere(error: ClientError) -> bool:
    """Whether another server may succeed: also where one was too slow, or does not have the model."""
    return error.retryable or isinstance(error, RequestTimeout) or error.status == 404
