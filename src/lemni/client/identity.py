"""Which model a name stands for on a server, so that a cache does not mix up what another model has computed."""

from __future__ import annotations

import time

from lemni.client.wire.models import Model

_FRESH_S = 300.0
_UNKNOWN_S = 30.0


class Identities:
    """Models by the names that the caller uses, and when they were last asked for. Thread-safe: the last one wins."""

    def __init__(self) -> None:
        self._models: list[Model] = []
        self._until = 0.0

    @property
    def stale(self) -> bool:
        """Whether the server should be asked again."""
        return time.monotonic() >= self._until

    def update(self, models: list[Model] | None) -> None:
        """What the server says; None if it does not answer: what is known stays."""
        if models is not None:
            self._models = models
        self._until = time.monotonic() + (_UNKNOWN_S if models is None else _FRESH_S)

    def of(self, name: str | None, task: str | None = None) -> Model | None:
        """The model that answers to a name; without a name the only one, or the only one for a task."""
        if name is None:
            able = [model for model in self._models if len(self._models) == 1 or task in model.capabilities]
            return able[0] if len(able) == 1 else None
        exact = [model for model in self._models if model.id == name]
        short = [model for model in self._models if model.id.rpartition("/")[2] == name]
        found = exact or short
        return found[0] if len(found) == 1 else None
