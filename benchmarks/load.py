"""A load generator in a process of its own: some clients that each send a request, wait for the answer, send the next.

It has to be cheap, for it shares the machine with the server: requests are bytes made beforehand, sockets are used
without an HTTP library, and of an answer only the status and the count of vectors are looked at. `Load` starts it;
an order is a line of JSON on its stdin, what it measured a line on its stdout.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import orjson

ROOT = Path(__file__).parents[1]
# Every dialect of OpenAI's embeddings numbers its vectors; no text is in an answer, so this counts them.
VECTOR = b'"index"'
PATIENCE_S = 600.0
"""A request that takes longer fails the run."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Measured:
    """What `clients` side by side saw: each sent at least one request, and waited for its last answer."""

    wall_s: float
    requests: int
    texts: int
    latencies_ms: list[float]
    """Of each request, from its first byte sent to its last byte received."""
    cpu_s: float
    """CPU seconds of the generator."""
    answer_bytes: int

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.latencies_ms, share))


class Load:
    """The generator's process. `start` and `result` let several work at once, and `stop` end one early; `run` is both.

    Args of `start`:
        url: of the endpoint, http only.
        requests: texts of each request. Clients take them in turn, each from another place in the list.
        seconds: how long clients send new requests; each sends one at least.
        pause_s: mean of a random time (exponential) that a client waits between an answer and its next request.
        fields: further fields of the body, such as the model.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._folder = tempfile.TemporaryDirectory()

    def start(
        self,
        url: str,
        requests: Sequence[Sequence[str]],
        *,
        clients: int,
        seconds: float,
        pause_s: float = 0.0,
        **fields: Any,
    ) -> None:
        bodies = [orjson.dumps({"input": texts, **fields}) for texts in requests]
        path = Path(self._folder.name) / "bodies.json"
        path.write_bytes(
            orjson.dumps([[body.decode(), len(texts)] for body, texts in zip(bodies, requests, strict=True)])
        )
        order = {"url": url, "bodies": str(path), "clients": clients, "seconds": seconds, "pause_s": pause_s}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def result(self) -> Measured:
        """Waits for what `start` has begun; RuntimeError with the server's answer if that was an error."""
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline() or '{"error": "the load generator has stopped"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return Measured(**answer)

    def stop(self) -> None:
        """Have clients send nothing more; `result` still waits for the last answers."""
        self._process.send_signal(signal.SIGUSR1)

    def run(self, url: str, requests: Sequence[Sequence[str]], **options: Any) -> Measured:
        self.start(url, requests, **options)
        return self.result()

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


class _Connection(asyncio.Protocol):
    """Kept open; one request at a time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._missing = -1  # bytes of the answer still to come; -1 before its head is complete
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        assert self._transport is not None
        self._parts, self._missing = [], -1
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if self._missing < 0:
            head = b"".join(self._parts)
            end = head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(head, 0, end + 2)
            if length is None:
                self._fail(f"an answer without its length: {head[:200]!r}")
                return
            self._missing = end + 4 + int(length[1]) - len(head)
        else:
            self._missing -= len(data)
        if self._missing == 0 and self._answer is not None and not self._answer.done():
            self._answer.set_result(b"".join(self._parts))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the server has closed the connection: {exc}")

    def _fail(self, message: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(RuntimeError(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def measure(url: str, bodies: list[tuple[str, int]], clients: int, seconds: float, pause_s: float) -> Measured:
    where = urlsplit(url)
    requests = [
        (
            f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body.encode())}\r\n\r\n{body}".encode(),
            count,
        )
        for body, count in bodies
    ]
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(_Connection, where.hostname, where.port))[1] for _ in range(clients)]
    latencies: list[float] = []
    answer_bytes = texts = 0
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, stopped.set)

    async def client(connection: _Connection, number: int) -> None:
        nonlocal answer_bytes, texts
        rng = np.random.default_rng(number)
        place = number * len(requests) // clients
        while True:
            request, count = requests[place % len(requests)]
            place += 1
            sent = time.perf_counter()
            answer = await asyncio.wait_for(connection.ask(request), PATIENCE_S)
            latencies.append(1000 * (time.perf_counter() - sent))
            if not answer.startswith(b"HTTP/1.1 200") or answer.count(VECTOR) != count:
                raise RuntimeError(f"not {count} vectors: {answer[:500]!r}")
            answer_bytes += len(answer)
            texts += count
            if pause_s:
                await asyncio.sleep(rng.exponential(pause_s))
            if stopped.is_set() or time.perf_counter() >= until:
                return

    cpu, start = time.process_time(), time.perf_counter()
    until = start + seconds
    try:
        await asyncio.gather(*(client(connection, number) for number, connection in enumerate(connections)))
    finally:
        for connection in connections:
            connection.close()
    wall = time.perf_counter() - start
    return Measured(wall, len(latencies), texts, latencies, time.process_time() - cpu, answer_bytes)


def main() -> None:
    import uvloop

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for line in sys.stdin:
        try:
            order = json.loads(line)
            bodies = orjson.loads(Path(order.pop("bodies")).read_bytes())
            answer: dict[str, Any] = asdict(uvloop.run(measure(bodies=bodies, **order)))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
