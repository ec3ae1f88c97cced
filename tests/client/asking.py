"""Both clients behind one face: a test that is written once asks the sync and the async one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import lemni
from lemni.client import Retries

FAST = Retries(times=2, first_s=0.01, longest_s=0.02)
"""Retries that no test waits for."""


class Asking:
    """A Client, or an AsyncClient on an event loop of its own; their methods are called alike."""

    def __init__(self, sync: bool, *arguments: Any, **settings: Any) -> None:
        self.sync = sync
        self.client: Any = (lemni.Client if sync else lemni.AsyncClient)(*arguments, **settings)
        self._runner: asyncio.AbstractEventLoop | None = None if sync else asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        if self.sync or not callable(found):
            return found
        return lambda *arguments, **how: self.run(found(*arguments, **how))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self._runner is not None
        return self._runner.run_until_complete(coroutine)

    def end(self) -> None:
        self.close()
        if self._runner is not None:
            self._runner.run_until_complete(self._runner.shutdown_asyncgens())
            self._runner.run_until_complete(self._runner.shutdown_default_executor())
            self._runner.close()


@contextmanager
def asking(sync: bool, *arguments: Any, **settings: Any) -> Iterator[Asking]:
    client = Asking(sync, *arguments, **settings)
    try:
        yield client
    finally:
        client.end()
