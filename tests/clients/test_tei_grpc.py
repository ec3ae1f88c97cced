"""TEI's gRPC API with the clients that others have written: tei-client (also over HTTP) and Haystack, by reflection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni.config import MediaSettings
from lemni.engine import Engine
from lemni.server.grpc.server import GrpcServer
from lemni.server.service import Service
from tests.clients import environments
from tests.clients.conftest import KEY, MODEL, TEXTS
from tests.server.live import PATIENCE_S, loaded, server_settings

DOCUMENTS = ["Rust is a language.", "Cats sleep on the sofa.", "Dogs sleep in the yard."]


@pytest.fixture(scope="module")
def target(engine: Engine) -> Iterator[str]:
    """Address of a gRPC server that wants the key; it runs in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> GrpcServer:
        service = Service(server_settings(api_key=KEY, grpc_port=0), 600, MediaSettings())
        service.attach(engine, loaded(engine).models)
        server = GrpcServer(service)
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(PATIENCE_S)
    yield f"127.0.0.1:{server.port}"
    asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(PATIENCE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE_S)
    loop.close()


@pytest.fixture(scope="module")
def tei_client(server: str, target: str) -> dict[str, Any]:
    program = Path(__file__).with_name("tei_client_program.py")
    arguments = {"url": server, "target": target, "key": KEY, "texts": TEXTS}
    found: dict[str, Any] = environments.run("clients", program, arguments)
    return found


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_tei_client(tei_client: dict[str, Any], transport: str, same: Callable[[object], None]) -> None:
    found = tei_client[transport]
    same(found["embed"])
    assert found["info"] == [MODEL, "embedding", 256]
    assert found["tokens"][0] == [101, 1037, 4937, 7719, 2006, 1996, 13523, 1012, 102]
    assert found["decoded"] in ("a cat", ["a cat"])  # over HTTP it gives the list
    assert found["prompt_names"] in ([], [""])
    for ours, other in zip(found["embed_all"], tei_client["http"]["embed_all"], strict=True):
        assert np.shape(ours)[1] == 384
        np.testing.assert_allclose(ours, other, atol=1e-4)


@pytest.fixture(scope="module")
def haystack(target: str) -> dict[str, Any]:
    program = Path(__file__).with_name("haystack_grpc_program.py")
    query = {"query": "Where do cats sleep?", "documents": DOCUMENTS}
    found: dict[str, Any] = environments.run(
        "clients", program, {"target": target, "key": KEY, "texts": TEXTS, **query}
    )
    return found


@pytest.mark.parametrize("case", ["documents", "texts"])
def test_haystack_embeds(haystack: dict[str, Any], case: str, same: Callable[[object], None]) -> None:
    same(haystack[case])


def test_haystack_ranks(haystack: dict[str, Any]) -> None:
    found = haystack["ranked"]
    assert [text for text, _ in found] == [DOCUMENTS[1], DOCUMENTS[2]]
    assert found[0][1] > found[1][1] > 0.2
