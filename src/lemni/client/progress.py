"""Shows how far a long call is: a bar, or whatever the caller's function does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown(progress: bool | Callable[[int, int], object], total: int) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of inputs that were finished just now; the bar ends with the block."""
    if progress is True:
        from tqdm import tqdm

        with tqdm(total=total, unit=" inputs", unit_scale=True) as bar:
            yield bar.update
    elif callable(progress):
        lock = threading.Lock()
        done = 0

        def count(more: int) -> None:
            nonlocal done
            with lock:
                done += more
                progress(done, total)

        yield count
    else:
        yield lambda more: None
