"""The FastAPI application: middleware, dialects, probes, metrics, error handlers and the documentation at /docs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lemni import __version__
from lemni.config import MediaSettings, ServerSettings
from lemni.errors import LemniError
from lemni.server import metrics, probes
from lemni.server.auth import is_public
from lemni.server.dialects import load_dialects
from lemni.server.edge import Edge
from lemni.server.errors import on_http_exception, on_lemni_error
from lemni.server.models import Loaded
from lemni.server.routes import Dialects
from lemni.server.service import Service

_ABOUT: dict[str, Any] = {
    "title": "Lemni",
    "version": __version__,
    "description": "Turns text, images and audio into vectors, scores and labels, in the API that its client speaks.",
    "redoc_url": None,
    "redirect_slashes": False,
}


def create_app(
    loaded: Loaded | None,
    settings: ServerSettings,
    longest_s: float = math.inf,
    media: MediaSettings = MediaSettings.model_validate({}),  # noqa: B008 (frozen)
    cache_dir: Path | None = None,
) -> FastAPI:
    """The application over models whose engine is started; it neither starts nor closes it.

    `longest_s` bounds the deadlines that requests ask for: the engine's `request_timeout_s`. `cache_dir` keeps the
    models' int8 ranges.
    With None, requests wait or get 503 until `app.state.service.attach(...)`.
    """
    app = FastAPI(**_ABOUT)
    app.state.service = Service(settings, longest_s, media, cache_dir)
    app.state.dialects = Dialects(load_dialects())
    if loaded is not None:
        app.state.service.attach(loaded.engine, loaded.models)
    app.state.metrics = metrics.Metrics(app.state.service)
    app.add_middleware(Edge, api_key=settings.api_key, url_prefix=settings.url_prefix, counts=app.state.metrics.http)
    if settings.cors_origins:
        # Around everything: a browser asks first, without the key.
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["*"], allow_headers=["*"]
        )
    app.add_exception_handler(LemniError, on_lemni_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.include_router(probes.router)
    app.include_router(metrics.router)
    app.include_router(app.state.dialects.router())
    _document(app, with_key=settings.api_key is not None)
    return app


def _document(app: FastAPI, *, with_key: bool) -> None:
    """Have /docs say what the dialects take and give, and give it its field for the API key."""

    def documented() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = FastAPI(**_ABOUT)
            described.include_router(probes.router)
            described.include_router(metrics.router)
            described.include_router(app.state.dialects.router(documented=True))
            app.openapi_schema = described.openapi()
            if with_key:
                _want_key(app.openapi_schema)
        return app.openapi_schema

    app.openapi = documented  # type: ignore[method-assign]


def _want_key(schema: dict[str, Any]) -> None:
    schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            operation["security"] = [] if is_public(method, path) else [{"key": []}]
