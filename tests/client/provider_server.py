"""A live Lemni with the real default model under the names that faciliter-lib's documentation uses, which writes down
what it is asked; and what a broken server does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lemni import hub
from lemni.config import EngineSettings
from lemni.engine import Engine
from lemni.server.app import create_app
from tests.server.live import listening, loaded, server_settings
from tests.tasks.classifiers import load

BGE = "BAAI/bge-small-en-v1.5"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Asked:
    """A request, with its body as parsed JSON."""

    path: str
    body: Any
    headers: dict[str, str]


@dataclass
class Watched:
    """A server, and what it was asked since `asked` was cleared, in order."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

    @property
    def inputs(self) -> list[Any]:
        """Of requests for vectors."""
        return [one.body["input"] for one in self.asked if one.path in ("/embeddings", "/v1/embeddings", "/api/embed")]


@contextlib.contextmanager
def watching(app: Any) -> Iterator[Watched]:
    """The application on a port of its own."""
    watched = Watched()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        body = b""

        async def reading() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        await app(scope, reading, send)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        watched.asked.append(Asked(scope["path"], json.loads(body) if body else None, headers))

    with listening(serve) as watched.url:  # type: ignore[arg-type]
        yield watched


@contextlib.contextmanager
def named_models(minilm: hub.ModelFiles) -> Iterator[Watched]:
    """Two copies of the default model, one by the name of BGE."""
    models = {name: load(minilm.path, served_name=name) for name in (BGE, MINILM)}
    with (
        Engine(models, EngineSettings()) as engine,
        watching(create_app(loaded(engine), server_settings())) as watched,
    ):
        yield watched
    for model in models.values():
        model.close()
