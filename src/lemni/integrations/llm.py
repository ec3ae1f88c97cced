"""The plugin for Simon Willison's `llm`: `llm embed -m lemni`, and `lemni/NAME` for each embedding model of the server.

`llm` finds it by its entry point and asks for the models with each command about embeddings: it is quick, and quiet
when no server runs. `llm` does not say whether a text is a query or a document, so no prompt for either is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lemni
from lemni.errors import LemniError, missing_extra

try:
    import click
    import llm
except ModuleNotFoundError as error:
    raise missing_extra("llm", "llm", "lemni.integrations.llm") from error

_LIST_WITHIN_S = 1.0


class LemniModel(llm.EmbeddingModel):
    """An embedding model of the server at `LEMNI_URL`; the key is that of `llm keys set lemni`, or `LEMNI_API_KEY`."""

    batch_size = 1024  # the client splits it further and sends the parts at once

    def __init__(self, name: str | None = None, images: bool = False) -> None:
        self.model_id = f"lemni/{name}" if name else "lemni"
        self.name = name
        self.supports_binary = images

    def embed_batch(self, items: Iterable[str | bytes], key: str | None = None) -> Iterator[list[float]]:
        """A vector for each text or image file. Raises click.ClickException, which `llm` prints."""
        # Without a name nobody has answered a moment ago.
        settings: dict[str, Any] = {} if self.name else {"retries": 0}
        inputs = [lemni.Image(item) if isinstance(item, bytes) else item for item in items]
        try:
            with lemni.Client(api_key=_key(key), model=self.name, **settings) as client:
                yield from client.embed(inputs).tolist()
        except LemniError as error:
            raise click.ClickException(str(error)) from error


@llm.hookimpl
def register_embedding_models(register: Callable[..., Any]) -> None:
    """The models that the server has now; the first is also called `lemni`."""
    try:
        with lemni.Client(api_key=_key(None), timeout_s=_LIST_WITHIN_S) as client:
            served = [one for one in client.models() if not one.capabilities or "embed" in one.capabilities]
    except LemniError:
        served = []
    found = [LemniModel(one.id, "image" in (one.fields.get("modalities") or ())) for one in served]
    for place, model in enumerate(found):
        register(model, aliases=("lemni",) if place == 0 else ())
    if not found:
        register(LemniModel())


def _key(given: str | None) -> str | None:
    key: str | None = llm.get_key(given, "lemni", "LEMNI_API_KEY")
    return key
