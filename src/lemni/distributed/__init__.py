"""More than one machine, with Ray: whole inputs by Ray Data (`offline.py`), requests by Ray Serve (`online.py`).

Names are imported when they are first used; Ray is the extra `ray`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lemni.distributed.offline import embed

_HOMES = {"embed": "lemni.distributed.offline"}

__all__ = ["embed"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lemni.distributed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
