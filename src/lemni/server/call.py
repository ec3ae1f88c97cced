"""One HTTP call as a dialect sees it: the parsed body, the served models, and the way to the engine.

Made by `lemni.server.dialects` for every operation; everything here is the same for all dialects.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any

import orjson
from fastapi import Request as HttpRequest
from fastapi.responses import Response

from lemni.server.content import Raw, check_modalities, fetched
from lemni.server.errors import log
from lemni.server.service import Service, while_there
from lemni.tasks.model import LoadedModel
from lemni.types import Item, Modality, ModelCard, Options, Priority, Request, Result, Task

_MOST_INDICES = 100  # of the header that names truncated items


class Call:
    """Attributes:
    http: the request; its body has been read.
    body: the JSON object, or the fields of a form (files as bytes); empty for a GET.
    """

    def __init__(self, http: HttpRequest, service: Service, body: Mapping[str, Any]) -> None:
        self.http = http
        self.service = service
        self.body = body

    @property
    def max_items(self) -> int:
        """Items that one request may hold."""
        return self.service.settings.max_items

    async def card(self, name: str | None, *tasks: Task, modality: Modality = "text") -> ModelCard:
        """The served model that the client means; without a name, the one that does one of the tasks (embedding, if
        none is given) on such inputs.

        Raises InvalidRequest, UnknownModel or Unavailable.
        """
        return await self.service.model(name, *tasks, modality=modality)

    async def items(self, card: ModelCard, raw: Seq[Raw], field: str = "input", *, lone: bool = False) -> list[Item]:
        """What the client sent, with the bytes of its images and sounds, which are given up as soon as it hangs up.

        Raises InvalidRequest that names the item (by `field` itself, if it is `lone`); also, before anything is
        fetched, for what the model does not take.
        """
        if all(isinstance(one, str | list) for one in raw):
            return [one for one in raw if isinstance(one, str | list)]
        check_modalities(card, raw, field, lone=lone)
        return await while_there(self.http, fetched(raw, field, self.service.media, self.service.fetcher, lone=lone))

    def model(self, card: ModelCard) -> LoadedModel:
        """The loaded model of a card, for its tokenizer. Slow work with it belongs in a thread."""
        return self.service.loaded_model(card.name)

    async def run(
        self,
        card: ModelCard,
        items: Seq[Item],
        options: Options = Options(),  # noqa: B008 (frozen)
        *,
        tasks: tuple[Task, ...] = ("embed",),
        field: str = "input",
        lone: bool = False,
        priority: Priority | None = None,
        deadline_s: float | None = None,
    ) -> Result:
        """What the model makes of the items; given up as soon as the client hangs up.

        Args:
            field: the client's name for its items, for messages: "input", "texts" ...
            lone: the client sent one item, not a list.
            deadline_s: seconds, at most the server's own limit.

        Raises what the engine raises.
        """
        if deadline_s is not None:
            deadline_s = min(deadline_s, self.service.longest_s)
        request = Request(items, options, tasks, priority or "interactive", deadline_s, field=field, lone=lone)
        return await self.service.run(self.http, card.name, request)


def json_response(data: Any, headers: dict[str, str] | None = None) -> Response:
    """Small answers; vectors are written by `lemni.server.rows`."""
    body = data if isinstance(data, bytes) else orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, headers=headers, media_type="application/json")


def usage_of(result: Result) -> dict[str, int]:
    """OpenAI's two counts of what was computed, which its look-alikes give as well."""
    tokens = int(result.token_counts.sum())
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def truncation_header(result: Result) -> dict[str, str]:
    """The header that says which items lost tokens, if some did."""
    cut = result.truncated
    if not cut:
        return {}
    log.debug("truncated items: %s", cut)
    more = len(cut) - _MOST_INDICES
    return {"x-lemni-truncated": ",".join(map(str, cut[:_MOST_INDICES])) + (f" and {more} more" if more > 0 else "")}
