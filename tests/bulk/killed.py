"""Runs `lemni.bulk.embed` and kills itself with -9 just before or after the nth time that something reaches the disk.

python killed.py N INPUT OUTPUT MODEL SHARD_ROWS ENGINE
"""

from __future__ import annotations

import os
import signal
import sys

import lemni.bulk

limit = int(sys.argv[1])
calls = 0


def counted(function):  # type: ignore[no-untyped-def]
    def call(*given, **how):  # type: ignore[no-untyped-def]
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        done = function(*given, **how)
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return call


for name in ("replace", "rename", "fsync", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
_, _, source, output, model, shard_rows = sys.argv
done = lemni.bulk.embed(source, output, model=model, shard_rows=int(shard_rows), progress=False)
print(calls, done.rows, done.written, done.resumed)
