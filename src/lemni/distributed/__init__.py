"""More than one machine, with Ray: whole inputs by Ray Data (`offline.py`), requests by Ray Serve (`online.py`).

Names are imported when they are first used; Ray is the extra `ray`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemni.distributed.offline import Pool, embed
    from lemni.distributed.online import Scale, application, deploy, remove

_HOMES = {
    "Pool": "lemni.distributed.offline",
    "Scale": "lemni.distributed.online",
    "application": "lemni.distributed.online",
    "deploy": "lemni.distributed.online",
    "embed": "lemni.distributed.offline",
    "remove": "lemni.distributed.online",
}

__all__ = ["Pool", "Scale", "application", "deploy", "embed", "remove"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lemni.distributed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
