"""The routes of all dialects: one per method and path, which reads the body once and asks whose it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lemni.server.body import read_body
from lemni.server.call import Call
from lemni.server.dialect import Dialect, Operation
from lemni.server.openapi import documentation
from lemni.server.service import service_of

_Owners = list[tuple[Dialect, Operation]]
Endpoint = Callable[[Request], Awaitable[Response]]


class Dialects:
    """The dialects that are served, their routes, and whose a path is."""

    def __init__(self, dialects: list[Dialect]) -> None:
        self.all = dialects
        self._owners: dict[tuple[str, str], _Owners] = {}
        for dialect in dialects:
            for operation in dialect.operations:
                for path in operation.paths:
                    self._owners.setdefault((operation.method, path), []).append((dialect, operation))
        self._endpoints = {key: _endpoint(owners) for key, owners in self._owners.items()}
        # A path with a parameter is known by what comes before it.
        self._paths = {path.partition("{")[0]: fallback(owners)[0] for (_, path), owners in self._owners.items()}
        self._paths |= {dialect.prefix: dialect for dialect in dialects if dialect.prefix}

    def router(self, *, documented: bool = False) -> APIRouter:
        """One route for each method and path. `documented` ones know what they take and give, for /docs: that takes all
        schemas, so a server starts without."""
        router = APIRouter()
        # Whole paths first: a path with a parameter would take them too.
        for method, path in sorted(self._owners, key=lambda key: "{" in key[1]):
            owners = self._owners[method, path]
            words = documentation(method, path, owners) if documented else {}
            router.add_api_route(path, self._endpoints[method, path], methods=[method], response_model=None, **words)
        return router

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        """What answers a path without parameters; None where the framework has to look."""
        return None if "{" in path else self._endpoints.get((method, path))

    def knows(self, path: str) -> bool:
        """Whether a dialect answers the path."""
        return path in self._paths or any(known[1:].endswith("/") and path.startswith(known) for known in self._paths)

    def of(self, path: str) -> Dialect:
        """The dialect of a path, whether or not there is a route for it."""
        if exact := self._paths.get(path):
            return exact
        prefixes = [known for known in self._paths if known[1:].endswith("/") and path.startswith(known)]
        return self._paths[max(prefixes, key=len)] if prefixes else self.all[0]


def fallback(owners: _Owners, prefer: str | None = None) -> tuple[Dialect, Operation]:
    """Who takes a body that nobody claims, and answers for the path before there is a body."""
    preferred = (owner for owner in owners if owner[1].preferable and owner[0].name.lower() == prefer)
    return next(preferred, None) or next((owner for owner in owners if owner[1].claims is None), owners[0])


def choose(owners: _Owners, body: Mapping[str, Any], prefer: str | None = None) -> tuple[Dialect, Operation]:
    """Whose a body is; `prefer` names the dialect (in lower case) that gets it where it fits several."""
    claimed = (owner for owner in owners if owner[1].claims is not None and owner[1].claims(body))
    return next(claimed, None) or fallback(owners, prefer)


def _endpoint(owners: _Owners) -> Endpoint:
    before_there_is_a_body = fallback(owners)[0]

    async def endpoint(http: Request) -> Response:
        service = service_of(http)
        http.state.dialect = before_there_is_a_body
        body = await read_body(http, service.settings.max_body_mib) if http.method == "POST" else {}
        http.state.dialect, operation = choose(owners, body, service.settings.prefer)
        return await operation.handler(Call(http, service, body))

    return endpoint
