"""Whose turn is it: weighted fair queueing by virtual time.

Every flow has a `Share`. A flow that was served `cost` moves `cost / weight` ahead; the next turn goes
to the flow whose next unit would *end* first, so small units of heavy flows pass long ones. Newcomers begin at
the queue's own virtual time, which keeps moving while anybody is served: a stream of newcomers cannot starve
anyone, and a newcomer waits for at most about one unit of each flow that was here before.
Pure: no thread, no clock. Used for tokenising (cost: characters) and for the forward pass (true tokens).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeAlias, TypeVar


class Share:
    """One flow's account in one fair queue."""

    __slots__ = ("order", "start", "version", "waiting", "weight")

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.start = 0.0  # virtual time up to which the flow has been served
        self.order = 0  # breaks ties: first come, first served
        self.version = 0  # heap entries of older versions are stale
        self.waiting = False


S = TypeVar("S", bound=Share)
Turn: TypeAlias = tuple[float, int, int, S]
"""Virtual finish time of the next unit, order, version, share."""


class FairQueue(Generic[S]):
    def __init__(self) -> None:
        self._now = 0.0  # cost served per unit of waiting weight
        self._weight = 0  # sum over the waiting shares
        self._heap: list[Turn[S]] = []
        self._orders = count(1)

    def wait(self, share: S, cost: int) -> None:
        """`share` waits for a unit of `cost`; if it waits already, for this one instead."""
        if not share.waiting:
            first = self.first()
            if first is not None:
                # The clock must not run ahead of the flow in front, or newcomers would wait for its arrears.
                self._now = min(self._now, self._heap[0][0])
            share.start = max(share.start, self._now)
            share.waiting = True
            share.order = share.order or next(self._orders)
            self._weight += share.weight
        share.version += 1
        heapq.heappush(self._heap, (share.start + cost / share.weight, share.order, share.version, share))

    def leave(self, share: S) -> None:
        """`share` waits no more. Idempotent."""
        if share.waiting:
            share.waiting = False
            share.version += 1
            self._weight -= share.weight

    def first(self) -> S | None:
        """Whose turn it is."""
        heap = self._heap
        while heap and heap[0][2] != heap[0][3].version:
            heapq.heappop(heap)
        return heap[0][3] if heap else None

    def waiting(self) -> Iterator[S]:
        """All that wait, in no order."""
        return (share for _, _, version, share in self._heap if version == share.version)

    def serve(self, share: S, cost: int) -> None:
        """`share`, which waits, got a unit of `cost`. It must `wait` for its next unit or `leave` afterwards."""
        share.start += cost / share.weight
        self._now += cost / self._weight

    def skip(self) -> Turn[S]:
        """Set the first turn aside, to give it back with `restore`. There must be one."""
        return heapq.heappop(self._heap)

    def restore(self, turns: list[Turn[S]]) -> None:
        for turn in turns:
            heapq.heappush(self._heap, turn)
