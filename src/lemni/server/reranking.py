"""Reranking as every dialect does it: documents in their spellings, scores in order, the first N of them."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from functools import partial
from typing import Any

from lemni.errors import InvalidRequest
from lemni.server.body import kind_of
from lemni.server.call import Call
from lemni.server.content import Raw, content_of, contents_of
from lemni.server.inputs import check_count
from lemni.types import Image, Mixed, ModelCard, Options, Pair, Priority, Result


def documents_of(value: Any, max_items: int, field: str, rank_fields: Seq[str] | None = None) -> list[Raw]:
    """The documents: strings, or objects with a text, an image, or the fields that `rank_fields` names.

    Raises InvalidRequest or TooManyItems.
    """
    if not isinstance(value, list):
        raise InvalidRequest(f"{field} is {kind_of(value)}; it must be a list of documents", param=field)
    check_count(value, max_items, field)
    read = partial(_fields, rank_fields=rank_fields) if rank_fields else content_of
    return contents_of(value, field, read)


async def rerank(
    call: Call,
    card: ModelCard,
    query: Raw,
    documents: Seq[Raw],
    options: Options = Options(),  # noqa: B008 (frozen)
    *,
    field: str = "documents",
    priority: Priority | None = None,
    deadline_s: float | None = None,
) -> Result:
    """Scores of every document for the query, in the order of the documents."""
    [first] = await call.items(card, [query], "query", lone=True)
    seconds = await call.items(card, documents, field)
    pairs = []
    if not isinstance(first, str | Image | Mixed):
        raise InvalidRequest("query is a sound; queries are texts or images", param="query")
    for index, item in enumerate(seconds):
        if not isinstance(item, str | Image | Mixed):
            name = f"{field}[{index}]"
            raise InvalidRequest(f"{name} is a sound; documents are texts or images", item=index, param=name)
        pairs.append(Pair(first, item))
    return await call.run(card, pairs, options, tasks=("score",), field=field, priority=priority, deadline_s=deadline_s)


def _fields(document: Any, name: str, rank_fields: Seq[str]) -> Raw:
    """The named fields of an object, one a line, as Cohere joins them."""
    if not isinstance(document, dict):
        return content_of(document, name)
    lines = [f"{key}: {document[key]}" for key in rank_fields if document.get(key) is not None]
    if not lines:
        raise InvalidRequest(f"{name} has none of the fields in rank_fields: {', '.join(rank_fields)}"[:300])
    return "\n".join(lines)
