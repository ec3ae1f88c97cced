"""The words of EmbeddingGenerationError: those of faciliter-lib's providers, the server's own, and a remedy."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from lemni.client.errors import (
    ConnectionFailed,
    EmbeddingGenerationError,
    PartialFailure,
    RequestTimeout,
    StatusError,
)
from lemni.errors import LemniError


@dataclass(frozen=True)
class Advice:
    """What a provider tells its users.

    Attributes:
        server: what the server is called, such as "Infinity".
        start: how to start one.
        load: how to get a model served.
        timeout: the variable with the time that is allowed.
        token: argument and variable of the key.
    """

    server: str
    start: str
    load: str
    timeout: str
    token: str


def about_the_model(error: LemniError) -> bool:
    """Whether the server may not have the model: 404, and 400 of an Infinity with several models."""
    error = _first(error)
    if not isinstance(error, StatusError):
        return False
    detail = error.detail.lower()
    return error.status == 404 or (error.status == 400 and "model" in detail and "not found" in detail)


def explained(
    error: LemniError, advice: Advice, base_url: str, timeout_s: float, models: Seq[str]
) -> EmbeddingGenerationError:
    """The error to raise from `error`; `models` are those of the server, where that is known and matters."""
    first, name = _first(error), advice.server
    models = [model.removesuffix(":latest") for model in models]
    if isinstance(first, RequestTimeout):
        message = (
            f"{name} request timed out after {timeout_s:g}s ({base_url}). Raise timeout= or {advice.timeout}, "
            "send fewer or shorter texts at once, or serve the model on a GPU"
        )
    elif isinstance(first, ConnectionFailed):
        message = f"Failed to connect to {name} server at {base_url}: {first.reason}. {_start(first, advice)}"
    elif isinstance(first, StatusError):
        remedy = _remedy(first, advice, models)
        message = f"{name} server returned HTTP error: {first.status} {first.detail.rstrip('. ')}. {remedy}".rstrip()
    else:
        message = f"Unexpected error generating embeddings with {name}: {first}"
    if isinstance(error, PartialFailure):
        message += f" [{len(error.missing)} of {error.total} texts have no vector]"
    elif isinstance(first, StatusError) and first.item is not None:
        message += f" [item {first.item}]"
    explanation = EmbeddingGenerationError.of(first, message)
    explanation.item = error.item
    return explanation


def _first(error: LemniError) -> LemniError:
    return error.failures[0].error if isinstance(error, PartialFailure) else error


def _start(error: ConnectionFailed, advice: Advice) -> str:
    return advice.start if error.refused else "Is the URL right, and is its server well?"


def _remedy(error: StatusError, advice: Advice, models: Seq[str]) -> str:
    if about_the_model(error):
        listed = f"The server has: {', '.join(models)}. " if any(name not in error.detail for name in models) else ""
        return f"{listed}Choose one with model=, or {advice.load}" + (
            "" if models else "; or base_url is not where the server's API begins"
        )
    if error.status in (401, 403):
        return f"Give the server's key with {advice.token}"
    if error.status in (429, 503):
        return "The server is overloaded or starting; try again later"
    return ""
