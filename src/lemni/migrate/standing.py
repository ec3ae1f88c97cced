"""Whether the stores still hold what a migration has left: its journal may be older than they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from lemni.migrate.connection import Connection
from lemni.migrate.places import Places
from lemni.migrate.preflight import shape
from lemni.migrate.state import State
from lemni.migrate.switching import meaning
from lemni.migrate.verify import cosine
from lemni.stores.base import Page, Schema, Store

_ENTRIES = 8
_VALUES = 16  # of each vector: enough to tell two models apart
_NEAR = 0.999  # cosine; a store that quantises reads the same values back each time
_JOB = ("manifest.json", "rejects.jsonl", "lemni")
_MOVED = (
    *(f"{job}.{ending}" for job in ("job", "catch-up") for ending in _JOB),
    "report.md",
    "report.html",
    "migration.json",  # last: while it is there the rest is to be moved
)


def left_in(target: Connection) -> dict[str, Any]:
    """What tells a collection from another one of the same name, for the journal: its schema and a few entries."""

    def look(store: Store) -> dict[str, Any]:
        schema = store.describe().schema
        page = next(store.pages(_ENTRIES, vectors=_is_dense(schema)), None)
        entries = [] if page is None else _marks(page)[:_ENTRIES]
        return {"kind": schema and schema.kind, "dimensions": schema and schema.dimensions, "entries": entries}

    return target.ask(look)


def changed(state: State, places: Places, target: Connection) -> str:
    """Why the journal does not describe the stores any more; "" where it does.

    A few entries stand for all. Those whose texts have changed since say nothing, and of the others most have to have
    the vectors that the migration gave them.
    """
    switched = any(one["step"] == "switched" for one in state.history)
    if state.phase == "dropped" and places.source is not None and not (switched and places.is_same_store):
        with contextlib.closing(Connection(places.source)) as source:
            if source.ask(lambda store: store.exists()):
                return f"{places.source} was removed, and is there again"
    name = state.alias if switched and state.alias is not None else state.new
    now = meaning(target, name)
    if now != state.new:
        return f"{name} is {now}, not {state.new}" if now else f"{name} is not there any more"
    left = state.results.get("left")
    if left is None:
        return ""
    with contextlib.closing(target.other(now)) as connection:
        schema = connection.ask(lambda store: store.describe()).schema
        if schema is not None and (schema.kind, schema.dimensions) != (left["kind"], left["dimensions"]):
            return f"{name} has {shape(schema)} now, and the migration left {left['dimensions']} dimensions"
        if not left["entries"]:
            return ""
        ids = [one["id"] for one in left["entries"]]
        found = connection.ask(lambda store: store.fetch(ids, vectors=_is_dense(schema)))
    there = {one["id"]: one for one in _marks(found)}
    alike = [
        _is_near(one["vector"], there[one["id"]]["vector"])
        for one in left["entries"]
        if one["id"] in there and there[one["id"]]["text"] == one["text"]
    ]
    if alike and 2 * sum(alike) >= len(alike):
        return ""
    return f"{name} has other {'vectors' if alike else 'entries'} than the migration left"


def said(state: State) -> str:
    """Of a migration that is finished."""
    kept = ", its old collection is removed" if state.phase == "dropped" else f", {state.old} is kept"
    return f"nothing to do: {state.alias or state.new} is the new collection already{kept if state.old else ''}"


def put_aside(folder: Path) -> Path:
    """Move an ended migration's own files aside, as `migration-1.json` and so on. Killed in the middle, the same call
    goes on. Returns the journal."""
    number = next(n for n in range(1, 1 << 30) if not (folder / f"migration-{n}.json").exists())
    for name in _MOVED:
        first, _, rest = name.partition(".")
        if (folder / name).exists():
            os.replace(folder / name, folder / f"{first}-{number}.{rest}")
    return folder / f"migration-{number}.json"


def _is_dense(schema: Schema | None) -> bool:
    return schema is not None and schema.kind == "dense"


def _marks(page: Page) -> list[dict[str, Any]]:
    vectors: Any = page.vectors
    return [
        {
            "id": name,
            "text": hashlib.blake2b((text or "").encode("utf-8", "surrogatepass"), digest_size=8).hexdigest(),
            "vector": "" if vectors is None else " ".join(f"{value:.6g}" for value in vectors[at][:_VALUES]),
        }
        for at, (name, text) in enumerate(zip(page.ids, page.texts, strict=True))
    ]


def _is_near(one: str, other: str) -> bool:
    return cosine(*(np.array([float(value) for value in text.split()]) for text in (one, other))) > _NEAR
