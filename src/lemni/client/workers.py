"""Threads that share the work of one call, for the sync client.

They are made for the call: nothing of them survives a fork, and as daemons they let a program that was interrupted end
at once, where those of a ThreadPoolExecutor would be waited for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


def side_by_side(work: Callable[[threading.Event], object], threads: int) -> None:
    """Run `work` in so many threads until it has ended in all of them.

    Raises what it raises first in one of them, or what interrupts the caller; the others are told by the event.
    """
    stop = threading.Event()
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:
            ends.put(error)
        else:
            ends.put(None)

    workers = [threading.Thread(target=run, name=f"lemni-client-{number}", daemon=True) for number in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            if (error := ends.get()) is not None:
                raise error
    finally:
        stop.set()
    for worker in workers:
        worker.join()
