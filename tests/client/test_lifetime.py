"""How clients begin and end: cancelled, interrupted, closed meanwhile, forked, in several loops and processes. And long
lists, and proxies."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lemni
from lemni.client import ClientError, PartialFailure
from lemni.client.connection import Connection
from lemni.client.session import Session
from tests.client import misbehaving as bad
from tests.client.asking import Asking
from tests.client.misbehaving import misbehaving, vector_of, vectors_of
from tests.client.zoo import DENSE, Zoo
from tests.server.live import wait_for

pytestmark = pytest.mark.timeout(30)

TEXTS = [f"text {number}" for number in range(6)]


def same(vectors: Any, texts: list[str]) -> None:
    np.testing.assert_array_equal(vectors, vectors_of(texts))


# Cancelled and interrupted.


async def test_a_cancelled_call_lets_go_of_the_server() -> None:
    with misbehaving(otherwise=bad.hang) as server:
        async with lemni.AsyncClient(server.url, batch_size=1, concurrency=3) as client:
            for texts in (["lone"], TEXTS):
                task = asyncio.create_task(client.embed(texts))
                await asyncio.to_thread(wait_for, lambda texts=texts: server.open == min(3, len(texts)))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.to_thread(wait_for, lambda: not server.open)
            assert len(server.seen) == 1 + 3  # nothing is sent after it
            server.otherwise = bad.good
            same(await client.embed(TEXTS), TEXTS)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_timeout_around_a_call() -> None:
    with misbehaving(otherwise=bad.drip_body) as server:
        async with lemni.AsyncClient(server.url, cache="memory", model="toy") as client:
            server.script.append(bad.good)  # for the question for the models
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.embed(TEXTS), 0.2)
            server.otherwise = bad.good
            same(await client.embed(TEXTS), TEXTS)


PROGRAM = """
import sys, threading, lemni
client = lemni.Client(sys.argv[1], batch_size=1, concurrency=4, timeout_s=60, retries=9)
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    "call", ["client.embed('lone')", "client.embed(['a', 'b', 'c', 'd', 'e', 'f', 'g'])"], ids=["lone", "list"]
)
@pytest.mark.parametrize("behaviour", [bad.hang, bad.status(503, Retry_After="50")], ids=["in_flight", "waiting"])
def test_an_interrupted_program_ends_at_once(call: str, behaviour: bad.Behaviour) -> None:
    with misbehaving(otherwise=behaviour) as server:
        command = [sys.executable, "-c", PROGRAM.format(call=call), server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: len(server.seen) >= (1 if "lone" in call else 4))
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        assert (out, err, process.returncode) == ("interrupted\n", "", 0)
        assert len(server.seen) <= 4


def test_a_program_ends_with_a_client_that_was_not_closed() -> None:
    program = (
        "import sys, lemni\nclient = lemni.Client(sys.argv[1], batch_size=1)\nprint(len(client.embed(['a', 'b'])))"
    )
    with misbehaving() as server:
        done = subprocess.run([sys.executable, "-c", program, server.url], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n", "", 0)


# Closed meanwhile.


@pytest.mark.parametrize("behaviour", [bad.slow(0.3), bad.status(503, Retry_After="50")], ids=["in_flight", "waiting"])
def test_a_call_ends_when_the_client_is_closed_meanwhile(behaviour: bad.Behaviour) -> None:
    ends: list[object] = []

    def call() -> None:
        try:
            ends.append(client.embed("a"))
        except ClientError as error:
            ends.append(error)

    with misbehaving(behaviour) as server:
        client = lemni.Client(server.url)
        thread = threading.Thread(target=call)
        thread.start()
        wait_for(lambda: len(server.seen) == 1)
        client.close()
        thread.join(5)
        assert not thread.is_alive()
        (end,) = ends
        assert isinstance(end, np.ndarray | ClientError)  # what is in flight may come to its end
        wait_for(lambda: server.open == 0)


def test_a_long_list_ends_when_the_client_is_closed_between_two_tries() -> None:
    with misbehaving(*[bad.status(503, Retry_After="50")] * 2) as server:
        client = lemni.Client(server.url, batch_size=3, concurrency=2)
        timer = threading.Timer(0.3, client.close)
        began = time.monotonic()
        timer.start()
        with pytest.raises(ClientError, match="closed"):
            client.embed(TEXTS)
        assert time.monotonic() - began < 5


def test_a_call_that_has_ended_reports_no_progress() -> None:
    calls: list[int] = []

    def fail(done: int, total: int) -> None:
        calls.append(done)
        raise RuntimeError("mine")

    with misbehaving(*[bad.slow(0.05 * place) for place in range(1, 7)]) as server:
        with (
            lemni.Client(server.url, batch_size=1, concurrency=3) as client,
            pytest.raises(RuntimeError, match="mine"),
        ):
            client.embed(TEXTS, progress=fail)
        wait_for(lambda: not any(one.name.startswith("lemni-client") for one in threading.enumerate()))
    assert calls == [1]


def test_what_was_finished_before_the_client_was_closed_is_not_lost() -> None:
    with misbehaving() as server:
        client = lemni.Client(server.url, batch_size=1, concurrency=1)
        with pytest.raises(PartialFailure, match="closed") as caught:
            client.embed(TEXTS, progress=lambda done, total: client.close() if done == 2 else None)
        assert sorted(caught.value.finished) == [0, 1]


# Loops, threads, processes.


# The first loop ends with its connections open, as nobody closed the client in it.
@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_async_client_in_loops_one_after_another() -> None:
    with misbehaving() as server:
        client = lemni.AsyncClient(server.url)

        async def use(close: bool) -> None:
            same(await client.embed(TEXTS), TEXTS)
            if close:
                await client.close()

        asyncio.run(use(False))
        asyncio.run(use(True))
        with pytest.raises(ClientError, match="closed"):
            asyncio.run(use(False))
        gc.collect()


async def test_one_async_client_in_two_loops_at_once_is_refused() -> None:
    with misbehaving() as server:
        async with lemni.AsyncClient(server.url) as client:
            await client.embed("a")
            with pytest.raises(ClientError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, client.embed("a"))


def test_threads_that_use_a_new_client_at_once_share_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Session] = []
    begin = Session.__init__

    def slowly(self: Session, connection: Connection, http: Any = None) -> None:
        time.sleep(0.02)
        begin(self, connection, http)
        made.append(self)

    monkeypatch.setattr(Session, "__init__", slowly)
    with misbehaving() as server, lemni.Client(server.url) as client:
        threads = [threading.Thread(target=client.embed, args=("a",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1


def test_no_thread_is_left() -> None:
    with misbehaving() as server, lemni.Client(server.url, batch_size=1, concurrency=8) as client:
        client.embed(TEXTS)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("lemni-client")]


FORK = """
import os, sys, lemni
client = lemni.Client(sys.argv[1], batch_size=1)
texts = [f"text {number}" for number in range(6)]
client.embed(texts)
child = os.fork()
mine = [client.embed(texts).tolist() for _ in range(20)]
wrong = any(one != mine[0] for one in mine)
if child == 0:
    os._exit(int(wrong))
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), wrong, mine[0] == client.embed(texts).tolist())
"""


def test_after_a_fork_parent_and_child_each_have_their_connections() -> None:
    with misbehaving() as server:
        done = subprocess.run([sys.executable, "-c", FORK, server.url], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("0 False True\n", "")


# Long lists.


def test_a_hundred_thousand_texts() -> None:
    texts = [f"text {number}" for number in range(100_000)]
    rows = np.zeros((256, 4), np.float32)

    def count(turn: bad.Turn) -> None:
        size = len(turn.seen.inputs)
        rows_here = rows[:size].copy()
        rows_here[0] = vector_of(turn.seen.inputs[0])
        turn.send(bad.reply(bad.safetensors({"embeddings": rows_here}), kind="application/x-safetensors"))
        turn.seen.body = None  # or the list of what was seen is what takes the memory

    with misbehaving(otherwise=count) as server, lemni.Client(server.url) as client:
        client.embed(texts[:256])
        tracemalloc.start()
        vectors = client.embed(iter(texts))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        same(vectors[::256], texts[::256])
        assert client.statistics.requests == 2 + 782
        assert peak < 40e6  # 1.6 MB of vectors, twice; lists of 100,000; and the server's share


# Proxies.


def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with misbehaving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with lemni.Client("http://far.invalid/v1") as client:
            same(client.embed(TEXTS), TEXTS)
            assert proxy.seen[0].path == "http://far.invalid/v1/embeddings"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with misbehaving() as server, lemni.Client(server.url) as client:
            same(client.embed(TEXTS), TEXTS)
        assert len(proxy.seen) == 1


def test_importing_the_client_loads_nothing_heavy() -> None:
    program = (
        "import sys, lemni; lemni.Client().close(); "
        "heavy = {'torch', 'openvino', 'tokenizers', 'pydantic', 'fastapi', 'PIL', 'transformers', 'tqdm'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "LEMNI_URL": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")


# A live Lemni.


def test_threads_share_a_client(zoo: Zoo) -> None:
    expected = zoo.model(DENSE).embed(TEXTS)
    errors: list[Exception] = []

    def use() -> None:
        try:
            for _ in range(4):
                np.testing.assert_allclose(client.embed(TEXTS), expected, atol=1e-5)
        except Exception as error:
            errors.append(error)

    with lemni.Client(zoo.url, model=DENSE, batch_size=2) as client:
        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert client.statistics.inputs == 8 * 4 * 6
        assert client.statistics.requests == 8 * 4 * 3


def test_a_client_is_closed_in_another_thread(zoo: Zoo) -> None:
    client = lemni.Client(zoo.url, model=DENSE)
    client.embed("a")
    thread = threading.Thread(target=client.close)
    thread.start()
    thread.join()
    with pytest.raises(lemni.client.ClientError, match="closed"):
        client.embed("a")


def test_a_closed_client_says_so(ask_zoo: Callable[..., Asking]) -> None:
    client = ask_zoo(model=DENSE, batch_size=1)
    client.embed(TEXTS)
    client.close()
    client.close()
    for call in (lambda: client.embed("a"), lambda: client.embed(TEXTS), client.models):
        with pytest.raises(lemni.client.ClientError, match="the client is closed"):
            call()
    assert client.health() is False
