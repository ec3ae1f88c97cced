"""Milvus Lite: the server that pymilvus begins in this process for a folder."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from lemni.errors import missing_extra


def prepare(path: str, store: str) -> None:
    """Before a client opens `path`.

    Raises:
        MissingExtra: Milvus Lite is not installed.
    """
    if find_spec("milvus_lite") is None:
        raise missing_extra("milvus-lite", "milvus", store)
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger("grpc._server").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Not that the server lacks what every client asks it for first (AllocTimestamp)."""
    return not (record.exc_info and isinstance(record.exc_info[1], NotImplementedError))
