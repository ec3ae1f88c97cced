"""Stages in threads, one item handed on at a time: while one window is computed, the next is read and tokenised and
the one before is written. Order is kept, memory is bounded, and the first error ends all of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_LAST_READ_S = 1.0
"""For reading what nobody wants any more, such as standard input to which nothing comes."""


class _Ended(Exception):
    """Another stage has failed, or whoever consumes has gone."""


class _Channel:
    """A queue of at most `room` items that can be closed from both ends."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._ended = False

    def put(self, item: Any) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._items) < self._room)
            if self._ended:
                raise _Ended
            self._items.append(item)
            self._changed.notify_all()

    def close(self) -> None:
        """No further item will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def end(self) -> None:
        """No further item is wanted, and none will be given."""
        with self._changed:
            self._ended = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed or self._ended)
                if self._ended:
                    raise _Ended
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def run_stages(
    items: Iterable[Any], *stages: Callable[[Any], Any], room: int = 1, ended: threading.Event | None = None
) -> Iterator[Any]:
    """Each item through all stages, in order: `items` is consumed in a thread of its own, each stage runs in one.

    Args:
        items: consumed as fast as the first stage takes them.
        stages: each is given what the one before returned.
        room: items that may wait in front of each stage.
        ended: set as soon as nothing more is wanted, so that a stage which takes long can stop in the middle.

    Raises:
        Exception: the first that `items` or a stage raised; what was before it in the line is yielded or dropped.
    """
    channels = [_Channel(room) for _ in range(len(stages) + 1)]
    failed: list[BaseException] = []

    def end() -> None:
        if ended is not None:
            ended.set()
        for channel in channels:
            channel.end()

    def feed(source: Iterable[Any], target: _Channel, stage: Callable[[Any], Any] | None) -> None:
        try:
            for item in source:
                target.put(item if stage is None else stage(item))
        except _Ended:
            pass
        except BaseException as error:
            failed.append(error)
            end()
        finally:
            target.close()

    sources: list[Iterable[Any]] = [items, *channels[:-1]]
    threads = [
        threading.Thread(target=feed, args=(source, target, stage), name=f"lemni-bulk-{number}", daemon=True)
        for number, (source, target, stage) in enumerate(zip(sources, channels, (None, *stages), strict=True))
    ]
    for thread in threads:
        thread.start()
    try:
        yield from channels[-1]
    except _Ended:
        pass
    finally:
        end()
        threads[0].join(_LAST_READ_S)
        for thread in threads[1:]:
            thread.join()
    if failed:
        raise failed[0]
