"""What /docs says about a route: the bodies of all dialects that share it, their examples, answers and errors."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel

from lemni.server.dialect import Dialect, Operation

_ERRORS = {
    "400": "Something in the request is wrong; the message names the item.",
    "401": "The API key is missing or wrong.",
    "404": "The model is not served here.",
    "413": "The body is too large.",
    "415": "The body is not of a type that is read.",
    "422": "Something in the request is wrong, in dialects that say so with this status.",
    "424": "The model does not do what is asked, in dialects that say so with this status.",
    "429": "The queue is full; Retry-After says when to come back.",
    "503": "Loading or shutting down; Retry-After says when to come back.",
    "504": "Not finished within the deadline.",
}


def documentation(method: str, path: str, owners: list[tuple[Dialect, Operation]]) -> dict[str, Any]:
    """Keyword arguments of the route."""
    extra: dict[str, Any] = {"parameters": _parameters(path), "responses": _responses(method, owners)}
    if method == "POST":
        extra["requestBody"] = _request_body(owners)
    return {
        "summary": owners[0][1].summary,
        "description": "\n\n".join(_described(owners)),
        "tags": list(dict.fromkeys(dialect.name for dialect, _ in owners)),
        "operation_id": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "openapi_extra": extra,
    }


def _described(owners: list[tuple[Dialect, Operation]]) -> list[str]:
    if len(owners) == 1:
        return [owners[0][1].description]
    return [f"**{dialect.name}**: {one.summary}. {one.description}" for dialect, one in owners]


def _request_body(owners: list[tuple[Dialect, Operation]]) -> dict[str, Any]:
    schemas = [_schema(one.body) for _, one in owners if one.body is not None]
    examples = {
        (name if len(owners) == 1 else f"{dialect.name}: {name}"): example
        for dialect, one in owners
        for name, example in one.examples.items()
    }
    schema = _any_of(schemas) if schemas else {"type": "object"}
    return {"required": True, "content": {"application/json": {"schema": schema, "examples": examples}}}


def _responses(method: str, owners: list[tuple[Dialect, Operation]]) -> dict[str, Any]:
    content: dict[str, list[dict[str, Any]]] = {}
    for _, one in owners:
        content.setdefault(one.media_type, []).append({} if one.answer is None else _schema(one.answer))
        for media in one.also:
            content.setdefault(media, []).append({"type": "string", "format": "binary"})
    good = {media: {"schema": _any_of(found)} for media, found in content.items()}
    bodies = [{"type": "object"} if dialect.error is None else _schema(dialect.error) for dialect, _ in owners]
    bad = {"application/json": {"schema": _any_of(bodies)}}
    errors = _ERRORS if method == "POST" else {status: _ERRORS[status] for status in ("401", "404", "503")}
    answers: dict[str, Any] = {"200": {"description": "Done.", "content": good}}
    for status, description in errors.items():
        answers[status] = {"description": description, "content": bad}
    return answers


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    """The schema of what fits one of them."""
    different = [schema for place, schema in enumerate(schemas) if schema not in schemas[:place]]
    return different[0] if len(different) == 1 else {"anyOf": different}


def _parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)(?::\w+)?}", path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _schema(given: type[BaseModel] | dict[str, Any]) -> dict[str, Any]:
    """A schema that stands by itself: references are written out."""
    if isinstance(given, dict):
        return given
    schema = given.model_json_schema()
    inlined: dict[str, Any] = _inlined(schema, schema.pop("$defs", {}))
    return inlined


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in node.items()}
    return [_inlined(value, definitions) for value in node] if isinstance(node, list) else node
