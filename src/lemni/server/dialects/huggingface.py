"""The Hugging Face Inference style, which is TEI's too: the model's own task at `POST /`, for clients with a bare URL.

`/invocations` (SageMaker) is the same route; `/vertex` (Vertex AI) has several such bodies in one. What a body asks for
is told by its keys, then by what the model was made for.
"""

from __future__ import annotations

import asyncio

from fastapi.responses import Response

from lemni.errors import InvalidRequest, LemniError, Unavailable
from lemni.server.body import kind_of
from lemni.server.call import Call
from lemni.server.dialect import Dialect, Operation
from lemni.server.dialects import tei
from lemni.server.dialects import tei_schemas as schemas
from lemni.server.dialects.tei import Answer, Body
from lemni.server.dialects.tei_errors import Empty, error_body, status_of
from lemni.types import Task

# The first task of a model -> what a body with `inputs` asks it for.
_BY_TASK: dict[Task, tei.Answering] = {
    "classify": tei.predict,
    "score": tei.predict,
    "sparse": tei.embed_sparse,
    "multi_vector": tei.embed_all,
}


async def default_task(call: Call, given: Body) -> Answer:
    """`inputs` with a source sentence is similarity, `query` and `texts` reranking; other `inputs` are classified or
    embedded, as the model can. The fields may also be in `parameters`."""
    if "query" in given and "texts" in given:
        return await tei.rerank_texts(call, given)
    inputs = given.get("inputs")
    if inputs is None:
        raise InvalidRequest("inputs is missing (or query and texts, for reranking)", param="inputs")
    if isinstance(inputs, dict):
        return await tei.similarity(call, given)
    name = given.get("model") if isinstance(given.get("model"), str) else None
    card = await call.card(name, *_asked(call, given, inputs))
    answering = _BY_TASK.get(card.tasks[0], tei.embed)
    parameters = given.get("parameters")
    if answering is not tei.predict and isinstance(parameters, dict):
        given = {**parameters, **given}
    return await answering(call, given)


def _asked(call: Call, given: Body, inputs: object) -> tuple[Task, ...]:
    """What a body without a model's name is for, where several are served: `text_classification` of huggingface_hub
    sends one text with `parameters` of its own, and feature extraction none."""
    parameters = given.get("parameters")
    classifies = any(card.tasks[0] == "classify" for card in call.service.names.cards.values())
    own = isinstance(parameters, dict) and parameters.keys() <= {"function_to_apply", "top_k"}
    return ("classify",) if classifies and own and isinstance(inputs, str) else ("embed",)


async def vertex(call: Call, given: Body) -> Answer:
    """Several bodies as they would be sent to `POST /`: {"instances": [...]} -> {"predictions": [...]}."""
    instances = given.get("instances")
    if not isinstance(instances, list):
        raise InvalidRequest(f"instances is {kind_of(instances)}; it must be a list of objects", param="instances")
    if not instances:
        raise Empty("instances is an empty list; it must hold at least one object", param="instances")
    if len(instances) > call.max_items:
        raise InvalidRequest(
            f"instances has {len(instances)} bodies; this server takes at most {call.max_items}", param="instances"
        )
    running = [asyncio.ensure_future(_instance(call, index, one)) for index, one in enumerate(instances)]
    try:
        found = await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
    headers = {name: str(sum(int(one.headers.get(name, 0)) for one in found)) for name in _SUMS}
    return Answer(b'{"predictions":[%b]}' % b",".join(one.content for one in found), headers)


_SUMS = ("x-compute-characters", "x-compute-tokens")


async def _instance(call: Call, index: int, given: object) -> Answer:
    try:
        if not isinstance(given, dict):
            raise InvalidRequest(f"the body is {kind_of(given)}; it must be an object")
        return await default_task(call, given)
    except LemniError as error:
        error.message = f"instances[{index}]: {error.message}"
        raise


async def ping(call: Call) -> Response:
    """200 without a body if every model can answer, else 503: SageMaker's and TEI's probe."""
    if not call.service.ready:
        raise Unavailable(f"not ready: {call.service.state}")
    return Response(media_type="text/plain")


_EXAMPLES = {
    "texts": {"value": {"inputs": schemas.CATS}},
    "similarity": schemas.SIMILARITY_EXAMPLES["sentences"],
    "rerank": schemas.RERANK_EXAMPLES["texts"],
}

DIALECT = Dialect(
    "Hugging Face Inference",
    (
        Operation(
            ("/", "/invocations"),
            tei.answers(default_task),
            "The model's own task",
            description=str(default_task.__doc__),
            body={"type": "object"},
            examples=_EXAMPLES,
            answer={"type": "array"},
        ),
        Operation(
            ("/vertex",),
            tei.answers(vertex),
            "Several bodies at once, as Vertex AI sends them",
            description=str(vertex.__doc__),
            body={"type": "object", "properties": {"instances": {"type": "array", "items": {"type": "object"}}}},
            examples={"texts": {"value": {"instances": [{"inputs": "A cat sits on the mat."}]}}},
            answer={"type": "object", "properties": {"predictions": {"type": "array", "items": {"type": "array"}}}},
        ),
        Operation(("/ping",), ping, "Can it answer?", "GET", description=str(ping.__doc__), media_type="text/plain"),
    ),
    error_body,
    status_of,
)
