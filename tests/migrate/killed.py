"""Runs `lemni.migrate.migrate` and kills itself with -9 just before or after the nth time that a file is put in its
place or a store is asked for something.

python killed.py N SOURCE MODEL BATCH
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from lemni.migrate import How, Limits, migrate
from lemni.migrate.connection import Connection

limit = int(sys.argv[1])
calls = 0


def count() -> None:
    global calls
    calls += 1
    if calls == limit:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **how: Any) -> Any:
        count()
        done = function(*given, **how)
        count()
        return done

    return call


for name in ("replace", "rename"):
    setattr(os, name, counted(getattr(os, name)))
Connection.ask = counted(Connection.ask)  # type: ignore[method-assign]
_, _, source, model, batch = sys.argv
how = How(batch=int(batch), progress=False, limits=Limits(sample=20, queries=5))
done = migrate(source, model=model, how=how)
assert done.switched, done.said
print(calls)
