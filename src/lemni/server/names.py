"""Which served model a client means: the served name, in any case, or the model's hub id, whole or its last part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lemni.errors import InvalidRequest, UnknownModel
from lemni.types import ModelCard


class Names:
    """The served models by every name that means exactly one of them. A served name wins over another's alias."""

    def __init__(self, cards: Iterable[ModelCard]) -> None:
        self.cards = {card.name: card for card in cards}
        self._served: dict[str, set[str]] = {}  # in lower case, like the aliases
        self._aliases: dict[str, set[str]] = {}
        for name, card in self.cards.items():
            self._served.setdefault(name.lower(), set()).add(name)
            for alias in _aliases(card):
                self._aliases.setdefault(alias, set()).add(name)

    def find(self, wanted: str | None) -> ModelCard:
        """The model that `wanted` means; without one, the only model.

        Raises:
            InvalidRequest: no name, and several models are served.
            UnknownModel: no model has the name, or several share it.
        """
        served = ", ".join(self.cards)
        if not wanted:
            if len(self.cards) == 1:
                return next(iter(self.cards.values()))
            raise InvalidRequest(f"model is missing; served here: {served}", param="model")
        if card := self.cards.get(wanted):
            return card
        names = self._served.get(wanted.lower()) or self._aliases.get(wanted.lower(), set())
        if len(names) == 1:
            return self.cards[next(iter(names))]
        shown = wanted if len(wanted) <= 200 else f"{wanted[:200]}..."
        if names:
            raise UnknownModel(f"model {shown!r} can mean {' or '.join(sorted(names))}: say which", param="model")
        raise UnknownModel(f"model {shown!r} is not served here; served: {served}", param="model")


def _aliases(card: ModelCard) -> Iterator[str]:
    ids = [card.name] if card.source == "folder" else [card.name, card.model_id]
    for name in ids:
        yield name.lower()
        yield name.rpartition("/")[2].lower()
