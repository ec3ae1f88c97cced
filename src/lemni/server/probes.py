"""What supervisors and curious people ask: is it alive, is it ready, what is this? Always public."""

from __future__ import annotations

import html
import time
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from lemni import __version__
from lemni.server.service import Service, service_of

router = APIRouter(tags=["Server"])


@router.head("/health", include_in_schema=False)
@router.get("/health", summary="Is the process alive?")
async def health(http: Request) -> Response:
    """200 as soon as the port is open, whatever the models do. Says which model embeds, unless there is an API key."""
    service = service_of(http)
    body: dict[str, Any] = {"status": "healthy", "unix": time.time()}
    cards = [] if service.settings.api_key is not None else list(service.names.cards.values())
    if cards:
        card = next((card for card in cards if "embed" in card.tasks), cards[0])
        body |= {"model": card.name, "device": card.device, "embedding_dimension": card.dimensions}
    return _json(body)


@router.head("/ready", include_in_schema=False)
@router.get("/ready", summary="Can it embed now?", responses={503: {"description": "Loading, stopping or broken."}})
async def ready(http: Request) -> Response:
    """200 if every model answers with all its replicas; else 503. Tells the state of each model."""
    service = service_of(http)
    broken = service.state == "serving" and not service.ready
    body = {
        "status": "ready" if service.ready else "unavailable" if broken else service.state,
        "models": {}
        if service.settings.api_key is not None
        else {
            name: {
                "replicas_alive": status.replicas_alive,
                "replicas_total": status.replicas_total,
                "waiting_tokens": status.waiting_tokens,
                "open_requests": status.open_requests,
            }
            for name, status in service.status().items()
        },
    }
    return _json(body) if service.ready else _json(body, 503, {"retry-after": "1"})


@router.head("/", include_in_schema=False)
@router.get("/", summary="What is this?", include_in_schema=False)
async def root(http: Request) -> Response:
    """A page for browsers, JSON for programs."""
    service = service_of(http)
    names = _names(service)
    if "text/html" in http.headers.get("accept", ""):
        listed = "".join(f"<li><code>{html.escape(name)}</code></li>" for name in names)
        return HTMLResponse(
            f"<!doctype html><title>Lemni</title><h1>Lemni {__version__}</h1>"
            f"<p>Turns text, images and audio into vectors, scores and labels. State: {service.state}.</p>"
            f"<ul>{listed}</ul>"
            '<p><a href="docs">API documentation</a> · <a href="v1/models">models</a> · <a href="ready">ready?</a></p>'
        )
    return _json(
        {"name": "lemni", "version": __version__, "status": service.state, "models": names, "documentation": "/docs"}
    )


def _names(service: Service) -> list[str]:
    """Which models are served is for key holders, where there is a key."""
    return [] if service.settings.api_key is not None else list(service.names.cards)


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")
