"""Who may ask: the API key as a bearer token, compared in constant time. Probes and the documentation are public."""

from __future__ import annotations

import hmac

from lemni.errors import Unauthorized

PUBLIC_PATHS = frozenset({"/", "/health", "/ready", "/docs", "/openapi.json", "/favicon.ico"})


def check(api_key: str, path: str, authorization: bytes | None) -> None:
    """Raises Unauthorized unless the path is public or the `Authorization` header carries the key."""
    if path in PUBLIC_PATHS:
        return
    if authorization is None:
        raise Unauthorized("this server needs an API key; send it as 'Authorization: Bearer KEY'")
    scheme, _, token = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), api_key.encode()):
        raise Unauthorized("the API key is wrong; send the right one as 'Authorization: Bearer KEY'")
