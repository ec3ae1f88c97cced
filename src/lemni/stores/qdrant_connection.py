"""How `qdrant.py` gets its client and tells what went wrong: a folder has one client in a process, whoever asks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from lemni.errors import StoreError, missing_extra
from lemni.stores.place import Place

_TIMEOUT_S = 120

_guard = Lock()
_folders: dict[str, tuple[Any, int]] = {}
"""Qdrant locks a folder: the client of each open one, and how many use it."""


def connect(place: Place) -> Any:
    """A client that has been answered."""
    from qdrant_client import QdrantClient

    if place.host:
        https = place.option("https")
        client = QdrantClient(
            host=place.host,
            port=place.port or 6333,
            prefix=place.path or None,
            https=https == "true" if https else None,
            api_key=os.environ.get("QDRANT_API_KEY") or place.password,
            prefer_grpc=place.option("prefer_grpc") == "true",
            grpc_port=int(place.option("grpc_port", "6334")),
            timeout=_TIMEOUT_S,
            check_compatibility=False,  # it asks in a thread that outlives the client
        )
        try:
            client.info()
        except BaseException:
            client.close()
            raise
        return client
    folder = str(Path(place.path).resolve())
    with _guard:
        client, users = _folders.get(folder, (None, 0))
        client = client or QdrantClient(path=folder, force_disable_check_same_thread=True)
        _folders[folder] = (client, users + 1)
    return client


def disconnect(place: Place, client: Any) -> None:
    folder = str(Path(place.path).resolve())
    with _guard:
        if not place.host:
            _, users = _folders.pop(folder)
            if users > 1:
                _folders[folder] = (client, users - 1)
                return
        client.close()


@contextmanager
def asking(name: str) -> Iterator[None]:
    """The client's errors as StoreError, in the server's words where it gave any."""
    try:
        import grpc
        import httpx
        from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse
    except ImportError:
        raise missing_extra("qdrant-client", "qdrant", "The store Qdrant") from None
    try:
        yield
    except UnexpectedResponse as error:
        raise StoreError(f"{name}: {_said(error)}") from error
    except ResponseHandlingException as error:
        raise StoreError(f"{name}: {error.source}") from error
    except grpc.RpcError as error:
        raise StoreError(f"{name}: {error.details() if hasattr(error, 'details') else error}") from error
    except (ApiException, httpx.HTTPError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise StoreError(f"{name}: {str(error) or type(error).__name__}") from error


def _said(error: Any) -> str:
    try:
        return f"{error.status_code}: {json.loads(error.content)['status']['error']}"
    except (ValueError, TypeError, KeyError):
        return f"{error.status_code} {error.reason_phrase}: {error.content[:200].decode(errors='replace')}"
