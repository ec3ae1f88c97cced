"""What a genuine Infinity 0.0.78 answered (the folder beside this file), and a server that answers so again.

For tests of clients with the kinds of models that the live one (tests/clients/genuine.py) cannot run: multi-vector,
images, rerankers, classifiers. Tiny random weights under well-known names; nothing is computed here.
"""

from __future__ import annotations

import base64
import contextlib
import difflib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from numpy.typing import NDArray

from tests.server.live import listening

FOLDER = Path(__file__).with_name("infinity-0.0.78")
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))
MISMATCH = 599

# What Infinity reads of a body, with its defaults; it ignores the rest (tests/clients/test_genuine_infinity.py).
_FIELDS: dict[str, dict[str, Any]] = {
    "/embeddings": {
        "model": "default/not-specified",
        "input": None,
        "modality": "text",
        "encoding_format": "float",
        "dimensions": 0,
    },
    "/rerank": {
        "model": "default/not-specified",
        "query": None,
        "documents": None,
        "return_documents": False,
        "raw_scores": False,
        "top_n": None,
    },
    "/classify": {"model": "default/not-specified", "input": None},
}


@dataclass(frozen=True)
class Recording:
    """A request and its answer; bodies are parsed JSON."""

    name: str
    method: str
    path: str
    body: dict[str, Any] | None
    status: int
    headers: dict[str, str]
    reply: Any

    @property
    def pictures(self) -> list[bytes]:
        """The JPEG files in the request, for a client to send."""
        return [base64.b64decode(uri.partition(",")[2]) for uri in (self.body or {})["input"]]

    def vectors(self, width: int | None = None) -> list[NDArray[np.float32]]:
        """The answer's vectors in order: float32 [width], or [tokens, width] where `width` is given or sent."""
        found = [item["embedding"] for item in self.reply["data"]]
        arrays = [
            np.frombuffer(base64.b64decode(vector), "<f4") if isinstance(vector, str) else np.array(vector, np.float32)
            for vector in found
        ]
        return arrays if width is None else [array.reshape(-1, width) for array in arrays]


@dataclass
class Replay:
    """A server that answers like the genuine one; `answered` names the recordings that it used, in order."""

    url: str = ""
    answered: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def recorded(name: str) -> Recording:
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    request, response = content["request"], content["response"]
    return Recording(name, **request, status=response["status"], headers=response["headers"], reply=response["body"])


@contextlib.contextmanager
def replaying(*names: str) -> Iterator[Replay]:
    """A real HTTP server with the recordings of these names, or all of them.

    A request that means none of them is answered by 599 and a diff to the nearest, and fails the test at the end.
    """
    recordings = [recorded(name) for name in names or NAMES]
    replay = Replay()
    app = FastAPI(openapi_url=None, redirect_slashes=False)

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def answer(request: Request) -> Response:
        content = await request.body()
        body = json.loads(content) if content else None
        for recording in recordings:
            if (request.method, request.url.path) == (recording.method, recording.path) and _same(recording, body):
                replay.answered.append(recording.name)
                return JSONResponse(recording.reply, recording.status, recording.headers)
        replay.refused.append(_difference(recordings, request.method, request.url.path, body))
        return PlainTextResponse(replay.refused[-1], MISMATCH)

    with listening(app) as replay.url:
        try:
            yield replay
        finally:  # says more than the exception that a refusal may have caused
            assert not replay.refused, "\n\n".join(replay.refused)


def _meaning(path: str, body: Any) -> Any:
    """The body as Infinity reads it."""
    if not isinstance(body, dict) or path not in _FIELDS:
        return body
    read = {name: body.get(name, default) for name, default in _FIELDS[path].items()}
    if isinstance(read.get("input"), str):
        read["input"] = [read["input"]]
    return read


def _same(recording: Recording, body: Any) -> bool:
    ours, theirs = _meaning(recording.path, recording.body), _meaning(recording.path, body)
    if ours == theirs:
        return True
    if not (isinstance(theirs, dict) and theirs.get("modality") == "image" and theirs["input"] is not None):
        return False
    return (
        {**ours, "input": None} == {**theirs, "input": None}
        and len(ours["input"]) == len(theirs["input"])
        and all(map(_same_picture, ours["input"], theirs["input"]))
    )


def _same_picture(ours: str, theirs: str) -> bool:
    """The same but for what writing it as JPEG once more has changed."""
    pixels = _pixels(ours), _pixels(theirs)
    if pixels[0] is None or pixels[1] is None or pixels[0].shape != pixels[1].shape:
        return False
    return float(np.abs(pixels[0] - pixels[1]).mean()) < 3


def _pixels(uri: str) -> NDArray[np.float32] | None:
    from PIL import Image, UnidentifiedImageError

    if not uri.startswith("data:image/"):
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            return np.asarray(image.convert("RGB"), np.float32)
    except UnidentifiedImageError:
        return None


def _difference(recordings: list[Recording], method: str, path: str, body: Any) -> str:
    asked = _lines(_meaning(path, body))
    near = [recording for recording in recordings if (recording.method, recording.path) == (method, path)]
    if not near:
        return f"nothing is recorded for {method} {path}\n" + "\n".join(asked)
    texts = {recording.name: _lines(_meaning(path, recording.body)) for recording in near}
    name = max(texts, key=lambda name: difflib.SequenceMatcher(None, texts[name], asked).ratio())
    diff = difflib.unified_diff(texts[name], asked, name, f"{method} {path}", lineterm="")
    return f"no recording for {method} {path}; the nearest is {name!r}\n" + "\n".join(diff)


def _lines(body: Any) -> list[str]:
    return [
        line if len(line) < 120 else f"{line[:100]} ... {len(line)}" for line in json.dumps(body, indent=1).split("\n")
    ]
