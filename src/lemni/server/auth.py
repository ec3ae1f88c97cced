"""Who may ask: the API key, compared in constant time. Probes, metrics and the documentation are public.

Clients send it in one of three ways: `Authorization: Bearer KEY` (most), `Authorization: KEY` (llama-index for TEI), or
a header of its own (`api-key`, `x-api-key`).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from lemni.errors import Unauthorized

PUBLIC_PATHS = frozenset({"/", "/health", "/ready", "/ping", "/metrics", "/docs", "/openapi.json", "/favicon.ico"})
_OWN_HEADERS = (b"api-key", b"x-api-key")


def is_public(method: str, path: str) -> bool:
    """Whether a route needs no key: those above, for looking only. `POST /` computes."""
    return path in PUBLIC_PATHS and method.upper() in ("GET", "HEAD")


def check(api_key: str, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
    """Raises Unauthorized unless the route is public or the headers (names in lower case) carry the key."""
    if is_public(method, path):
        return
    authorization = headers.get(b"authorization")
    scheme, _, token = (authorization or b"").partition(b" ")
    given = [token.strip()] if scheme.lower() == b"bearer" else [(authorization or b"").strip()]
    given += [headers[name] for name in _OWN_HEADERS if name in headers]
    if any(hmac.compare_digest(one, api_key.encode()) for one in given):
        return
    if not any(given):
        raise Unauthorized("this server needs an API key; send it as 'Authorization: Bearer KEY'")
    raise Unauthorized("the API key is wrong; send the right one as 'Authorization: Bearer KEY'")
