"""Which served model a client means: the served name, in any case, or the model's hub id, whole or its last part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lemni.errors import InvalidRequest, TaskNotSupported, UnknownModel
from lemni.types import TASK_WORDS, Modality, ModelCard, Task

_UNNAMED = "default/not-specified"
"""What Infinity's clients send for no name."""


class Names:
    """The served models by every name that means exactly one of them. A served name wins over another's alias."""

    def __init__(self, cards: Iterable[ModelCard], *, any_name: bool) -> None:
        """`any_name`: the only model answers to every name, as Infinity's and TEI's do."""
        self.cards = {card.name: card for card in cards}
        self._any_name = any_name
        self._served: dict[str, set[str]] = {}  # in lower case, like the aliases
        self._aliases: dict[str, set[str]] = {}
        for name, card in self.cards.items():
            self._served.setdefault(name.lower(), set()).add(name)
            for alias in _aliases(card):
                self._aliases.setdefault(alias, set()).add(name)

    def find(self, wanted: str | None, *tasks: Task, modality: Modality = "text") -> ModelCard:
        """The model that `wanted` means; without a name the only model, or the only one made for one of the tasks
        (embedding, if none is given) on such inputs.

        Raises:
            InvalidRequest: no name, and several models could do it; TaskNotSupported if none can.
            UnknownModel: no model has the name, or several share it.
        """
        served = ", ".join(self.cards)
        if self.cards and (not wanted or wanted == _UNNAMED):
            return self._for(tasks or ("embed",), modality)
        if len(self.cards) == 1 and self._any_name:
            return next(iter(self.cards.values()))
        wanted = wanted or ""
        if card := self.cards.get(wanted):
            return card
        names = self._served.get(wanted.lower()) or self._aliases.get(wanted.lower(), set())
        if len(names) == 1:
            return self.cards[next(iter(names))]
        shown = wanted if len(wanted) <= 200 else f"{wanted[:200]}..."
        if names:
            raise UnknownModel(f"model {shown!r} can mean {' or '.join(sorted(names))}: say which", param="model")
        raise UnknownModel(f"model {shown!r} is not served here; served: {served}", param="model")

    def _for(self, tasks: tuple[Task, ...], modality: Modality) -> ModelCard:
        able = [card for card in self.cards.values() if modality in card.modalities and set(tasks) & set(card.tasks)]
        # A cross-encoder is made for what an embedding model can do besides.
        made = [card for card in able if card.tasks[0] in tasks]
        for choice in (list(self.cards.values()), made, able):
            if len(choice) == 1:
                return choice[0]
        served = ", ".join(self.cards)
        if able:
            raise InvalidRequest(f"model is missing; served here: {served}", param="model")
        words = " or ".join(TASK_WORDS[task] for task in tasks) + (
            "" if modality == "text" else f" of {modality} inputs"
        )
        raise TaskNotSupported(f"no model here does {words}; served here: {served}", param="model")


def _aliases(card: ModelCard) -> Iterator[str]:
    ids = [card.name] if card.source == "folder" else [card.name, card.model_id]
    for name in ids:
        yield name.lower()
        yield name.rpartition("/")[2].lower()
