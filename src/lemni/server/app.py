"""The FastAPI application: middleware, dialects, probes, error handlers and the documentation at /docs."""

from __future__ import annotations

import math
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from lemni import __version__
from lemni.config import ServerSettings
from lemni.engine import Engine
from lemni.errors import LemniError
from lemni.server import probes
from lemni.server.auth import PUBLIC_PATHS
from lemni.server.dialects import Dialects
from lemni.server.edge import Edge
from lemni.server.errors import on_http_exception, on_lemni_error
from lemni.server.service import Service

DESCRIPTION = "Turns text into vectors. Speaks OpenAI's API: point any OpenAI client at this server's `/v1`."


def create_app(engine: Engine | None, settings: ServerSettings, longest_s: float = math.inf) -> FastAPI:
    """The application over a started engine; it neither starts nor closes it.

    `longest_s` bounds the deadlines that requests ask for: the engine's `request_timeout_s`.
    With engine None, requests wait or get 503 until `app.state.service.attach(engine)`.
    """
    app = FastAPI(title="Lemni", version=__version__, description=DESCRIPTION, redoc_url=None, redirect_slashes=False)
    app.state.service = Service(settings, longest_s)
    app.state.dialects = Dialects()
    if engine is not None:
        app.state.service.attach(engine)
    app.add_middleware(Edge, api_key=settings.api_key)
    app.add_exception_handler(LemniError, on_lemni_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    for dialect in app.state.dialects.all:
        app.include_router(dialect.router)
    app.include_router(probes.router)
    if settings.api_key is not None:
        _document_the_key(app)
    return app


def _document_the_key(app: FastAPI) -> None:
    """Give /docs its field for the API key."""
    plain = app.openapi

    def with_key() -> dict[str, Any]:
        schema = plain()
        schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path in PUBLIC_PATHS else [{"key": []}]
        return schema

    app.openapi = with_key  # type: ignore[method-assign]
