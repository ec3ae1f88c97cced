"""The API dialects: one file each, one line here. A dialect parses its clients' bodies and writes its own answers.

A dialect's module has a `DIALECT`: its routes, and how it writes an error. The first in the table answers for paths
that belong to nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from fastapi import APIRouter
from fastapi.routing import APIRoute

from lemni.errors import LemniError

DIALECTS = {
    "openai": "lemni.server.dialects.openai",
}


@dataclass(frozen=True)
class Dialect:
    """Args: `error_body` writes the JSON of an error as this dialect's clients read it."""

    router: APIRouter
    error_body: Callable[[LemniError], bytes]


class Dialects:
    """The dialects that are served, and whose a path is."""

    def __init__(self) -> None:
        self.all: list[Dialect] = [import_module(module).DIALECT for module in DIALECTS.values()]
        # A path with a parameter is known by what comes before it.
        self._paths = {
            route.path.partition("{")[0]: dialect
            for dialect in reversed(self.all)
            for route in dialect.router.routes
            if isinstance(route, APIRoute)
        }

    def of(self, path: str) -> Dialect:
        """The dialect of a path, whether or not there is a route for it."""
        if exact := self._paths.get(path):
            return exact
        prefixes = [known for known in self._paths if known.endswith("/") and path.startswith(known)]
        return self._paths[max(prefixes, key=len)] if prefixes else self.all[0]
